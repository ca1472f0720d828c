//! Erp: the demo's two small ERPs, each one SQLite file: RM's manner and Protheus's manner.
//!
//! Promises: the same seed and size give the same rows; every table of [`TABLES`] has its share of `--rows`.
//! Never: knows agent, server or staging.

mod chance;
mod day;
mod rows;

use std::path::{Path, PathBuf};

use protocol::{Code, Coded as _, Result};
use rusqlite::{Connection, params_from_iter, types::Value};

use chance::Chance;
pub(crate) use day::Day;

/// Company group of the demo's Protheus: `SE1` lives in `SE1010`.
pub(crate) const COMPANY_GROUP: &str = "01";
/// Characters of its branch code (`D MG 01`) that are company and unity.
pub(crate) const LAYOUT: (usize, usize) = (2, 3);

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Rm,
    Protheus,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::Rm, Self::Protheus];

    /// The proto field `erp`.
    pub(crate) fn erp(self) -> &'static str {
        match self {
            Self::Rm => "RM",
            Self::Protheus => "PROTHEUS",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Rm => "rm.sqlite",
            Self::Protheus => "protheus.sqlite",
        }
    }

    fn ddl(self) -> &'static str {
        match self {
            Self::Rm => include_str!("erp/rm.sql"),
            Self::Protheus => include_str!("erp/protheus.sql"),
        }
    }
}

/// A table of the small ERP.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) kind: Kind,
    pub(crate) physical: &'static str,
    /// Name on the wire.
    pub(crate) wire: &'static str,
    /// Key columns, in order; of Protheus those of the unique index.
    pub(crate) key: &'static [&'static str],
    /// Thousandths of `--rows`; the last table takes the rest.
    share: u64,
    row: fn(i64, &mut Chance) -> Vec<Value>,
}

/// All tables, largest last.
pub(crate) const TABLES: [Table; 10] = [
    Table {
        kind: Kind::Rm,
        physical: "GCOLIGADA",
        wire: "GCOLIGADA",
        key: &["CODCOLIGADA"],
        share: 1,
        row: rows::gcoligada,
    },
    Table {
        kind: Kind::Rm,
        physical: "FCFO",
        wire: "FCFO",
        key: &["CODCOLIGADA", "CODCFO"],
        share: 80,
        row: rows::fcfo,
    },
    Table {
        kind: Kind::Rm,
        physical: "TPRODUTO",
        wire: "TPRODUTO",
        key: &["CODCOLIGADA", "IDPRD"],
        share: 40,
        row: rows::tproduto,
    },
    Table {
        kind: Kind::Rm,
        physical: "TMOV",
        wire: "TMOV",
        key: &["CODCOLIGADA", "IDMOV"],
        share: 100,
        row: rows::tmov,
    },
    Table {
        kind: Kind::Rm,
        physical: "TITMMOV",
        wire: "TITMMOV",
        key: &["CODCOLIGADA", "IDMOV", "NSEQITMMOV"],
        share: 180,
        row: rows::titmmov,
    },
    Table {
        kind: Kind::Protheus,
        physical: "CTT010",
        wire: "CTT",
        key: &["CTT_FILIAL", "CTT_CUSTO"],
        share: 20,
        row: rows::ctt,
    },
    Table {
        kind: Kind::Protheus,
        physical: "SA1010",
        wire: "SA1",
        key: &["A1_FILIAL", "A1_COD", "A1_LOJA"],
        share: 80,
        row: rows::sa1,
    },
    Table {
        kind: Kind::Protheus,
        physical: "SD2010",
        wire: "SD2",
        key: &["D2_FILIAL", "D2_DOC", "D2_ITEM"],
        share: 100,
        row: rows::sd2,
    },
    Table {
        kind: Kind::Protheus,
        physical: "SE1010",
        wire: "SE1",
        key: &["E1_FILIAL", "E1_PREFIXO", "E1_NUM", "E1_PARCELA", "E1_TIPO"],
        share: 180,
        row: rows::se1,
    },
    Table {
        kind: Kind::Rm,
        physical: "FLAN",
        wire: "FLAN",
        key: &["CODCOLIGADA", "IDLAN"],
        share: 0,
        row: rows::flan,
    },
];

/// The two files.
#[derive(Clone, Debug)]
pub(crate) struct Erp {
    folder: PathBuf,
    seed: u64,
    /// Rows each table was filled with, in the order of [`TABLES`].
    filled: Vec<u64>,
}

impl Erp {
    /// Makes and fills both files. Blocking.
    pub(crate) fn make(folder: &Path, rows: u64, seed: u64) -> Result<Self> {
        let mut filled: Vec<u64> =
            TABLES.iter().map(|table| (rows * table.share / 1_000).max(1)).collect();
        let given: u64 = filled.iter().sum();
        if let Some(last) = filled.last_mut() {
            *last = rows.saturating_sub(given - *last).max(1);
        }
        let erp = Self { folder: folder.to_owned(), seed, filled };
        for kind in Kind::BOTH {
            erp.fill(kind).coded(Code::SourceFailed, "cannot make the small ERP")?;
        }
        Ok(erp)
    }

    pub(crate) fn path(&self, kind: Kind) -> PathBuf {
        self.folder.join(kind.file())
    }

    /// Rows of `physical` at the start.
    fn filled(&self, physical: &str) -> i64 {
        let of = TABLES.iter().zip(&self.filled).find(|(table, _)| table.physical == physical);
        of.and_then(|(_, rows)| i64::try_from(*rows).ok()).unwrap_or(0)
    }

    fn fill(&self, kind: Kind) -> rusqlite::Result<()> {
        let mut connection = self.connect(kind)?;
        // A power cut may destroy a demo's source; nothing promised rests on it.
        connection.execute_batch("PRAGMA synchronous = OFF")?;
        connection.execute_batch(kind.ddl())?;
        let mut chance = Chance::new(self.seed);
        let transaction = connection.transaction()?;
        for (table, count) in
            TABLES.iter().zip(&self.filled).filter(|(table, _)| table.kind == kind)
        {
            for n in 0..i64::try_from(*count).unwrap_or(i64::MAX) {
                insert(&transaction, table.physical, (table.row)(n, &mut chance))?;
            }
        }
        transaction.commit()
    }

    /// A connection that writes, as the ERP itself has it.
    fn connect(&self, kind: Kind) -> rusqlite::Result<Connection> {
        let connection = Connection::open(self.path(kind))?;
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        Ok(connection)
    }
}

fn insert(into: &Connection, physical: &str, row: Vec<Value>) -> rusqlite::Result<()> {
    let marks = vec!["?"; row.len()].join(", ");
    let sql = format!("INSERT INTO {physical} VALUES ({marks})");
    into.prepare_cached(&sql)?.execute(params_from_iter(row)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(erp: &Erp, table: &Table) -> u64 {
        let connection = erp.connect(table.kind).unwrap();
        let sql = format!("SELECT count(*) FROM {}", table.physical);
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    }

    /// Every row of every table as SQLite quotes it.
    fn dump(erp: &Erp) -> Vec<String> {
        let mut all = Vec::new();
        for table in &TABLES {
            let connection = erp.connect(table.kind).unwrap();
            let sql = format!("SELECT * FROM {} ORDER BY {}", table.physical, table.key.join(", "));
            let mut statement = connection.prepare(&sql).unwrap();
            let columns = statement.column_count();
            let rows = statement
                .query_map([], |row| {
                    (0..columns).map(|at| row.get::<_, Value>(at)).collect::<Result<Vec<_>, _>>()
                })
                .unwrap();
            all.extend(rows.map(|row| format!("{} {:?}", table.wire, row.unwrap())));
        }
        all
    }

    #[test]
    fn the_rows_asked_for_are_spread_over_all_tables() {
        let folder = tempfile::tempdir().unwrap();
        let erp = Erp::make(folder.path(), 1_000, 1).unwrap();
        let counts: Vec<u64> = TABLES.iter().map(|table| count(&erp, table)).collect();
        assert_eq!(counts.iter().sum::<u64>(), 1_000);
        assert!(counts.iter().all(|rows| *rows > 0), "{counts:?}");
    }

    #[test]
    fn the_same_seed_makes_the_same_erp_and_another_seed_another() {
        let make = |seed| {
            let folder = tempfile::tempdir().unwrap();
            dump(&Erp::make(folder.path(), 300, seed).unwrap())
        };
        assert!(make(7) == make(7), "same seed, other rows");
        assert!(make(7) != make(8), "other seed, same rows");
    }

    #[test]
    fn a_day_changes_every_table_and_leaves_equal_keys_live_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let erp = Erp::make(folder.path(), 2_000, 3).unwrap();
        let before = dump(&erp);
        let mut day = Day::begin(&erp).unwrap();
        let mut steps = 0;
        while let Some(step) = day.next().unwrap() {
            assert!(step.rows > 0, "{step:?}");
            steps += 1;
        }
        assert!(steps >= 10, "{steps}");
        let after = dump(&erp);
        for table in &TABLES {
            let of = |all: &[String]| {
                all.iter()
                    .filter(|row| row.starts_with(&format!("{} ", table.wire)))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            assert!(of(&before) != of(&after), "{} did not change", table.wire);
        }
        let shared = "SELECT count(*) FROM SE1010 a JOIN SE1010 b USING (E1_FILIAL, E1_PREFIXO, E1_NUM, E1_PARCELA, E1_TIPO)
             WHERE a.D_E_L_E_T_ = '*' AND b.D_E_L_E_T_ = ' '";
        let rows: i64 =
            erp.connect(Kind::Protheus).unwrap().query_row(shared, [], |row| row.get(0)).unwrap();
        assert!(rows > 0, "no deleted row shares its key with a live one");
    }
}
