//! Filters that the cloud sends: parsed, printed, and run on a database.
//!
//! Promises: what is taken is within its limits, prints to a text that reads back alike, and is run as a predicate that
//! changes nothing; what is refused is refused by its place.
//! Never: sends the received text to a database.

use std::{fs, path::PathBuf};

use agent::source::{
    AnySource, Profile, ReadLimit, Source as _, SourceOptions, TableShape, TableSpec, connect,
};
use protocol::{
    Code,
    filter::{Expr, Filter},
    limits,
    names::{ColumnName, TableName},
};
use rusqlite::Connection;
use tokio::runtime::Runtime;

use super::{Found, Kept, asynchronous, fault, folder, holds};

const TABLE: &str = "TMOV";
const COLUMNS: [&str; 5] = ["IDLAN", "CODCOLIGADA", "STATUS", "DATAMOVIMENTO", "E1_VALOR"];

fn parsed(bytes: &[u8]) -> Found<Option<Filter>> {
    // A filter comes in JSON, so it is always text.
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(None) };
    let columns: protocol::Result<Vec<ColumnName>> =
        COLUMNS.iter().map(|name| name.parse()).collect();
    let (table, columns) = (table()?, columns.map_err(fault("no columns"))?);
    let filter = match Filter::parse(text, &table, &columns) {
        Ok(filter) => filter,
        Err(error) => {
            let told = error.code == Code::FilterRefused && !error.message.is_empty();
            return holds(told, || format!("refused by {error}")).map(|()| None);
        }
    };
    let (depth, literals) = measured(filter.root());
    let bounded = text.len() <= limits::FILTER_BYTES
        && depth <= limits::FILTER_DEPTH + 1
        && literals <= limits::FILTER_LITERALS;
    holds(bounded, || format!("taken with depth {depth} and {literals} literals"))?;
    let printed = filter.to_string();
    // Parentheses of the print may make it longer than a text may be.
    if printed.len() <= limits::FILTER_BYTES {
        let again = Filter::parse(&printed, &table, &columns);
        let again = again.map_err(|error| format!("its print {printed:?} is refused: {error}"))?;
        holds(again == filter, || format!("its print {printed:?} reads as another filter"))?;
    }
    let row = |name: &ColumnName| (name.as_str() != "STATUS").then_some("1");
    let _ = filter.matches(&row);
    Ok(Some(filter))
}

fn table() -> Found<TableName> {
    TABLE.parse().map_err(fault("no table"))
}

/// Depth and number of literals, an upper bound of them for a comparison.
fn measured(node: &Expr) -> (usize, usize) {
    match node {
        Expr::And(parts) | Expr::Or(parts) => parts
            .iter()
            .map(measured)
            .fold((1, 0), |sum, part| (sum.0.max(part.0 + 1), sum.1 + part.1)),
        Expr::Not(inner) => {
            let (depth, literals) = measured(inner);
            (depth + 1, literals)
        }
        Expr::In { list, .. } => (1, list.len()),
        Expr::Like { .. } => (1, 1),
        Expr::Compare { .. } | Expr::Between { .. } | Expr::IsNull { .. } => (1, 0),
    }
}

/// The parser alone.
pub(super) fn parse(bytes: &[u8]) -> Found {
    parsed(bytes).map(|_| ())
}

/// A SQLite file as the ERP database.
struct World {
    runtime: Runtime,
    source: AnySource,
    shape: TableShape,
    file: PathBuf,
    before: Vec<u8>,
    tries: u64,
    _folder: tempfile::TempDir,
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

impl World {
    fn new() -> Found<Self> {
        let (runtime, folder) = (asynchronous()?, folder()?);
        let file = folder.path().join("erp.sqlite");
        let database = Connection::open(&file).map_err(fault("no database"))?;
        let fill = "CREATE TABLE tmov (idlan integer PRIMARY KEY, codcoligada integer, status varchar(20),
                        datamovimento date, e1_valor decimal(10,2));
                    INSERT INTO tmov VALUES (1, 1, 'A', '2024-01-01', 1.5), (2, NULL, 'a%_b', NULL, -0.01),
                        (3, 0, '', '2012-12-31', NULL), (1001, 7, NULL, '2024-02-29', 100)";
        database.execute_batch(fill).map_err(fault("no rows"))?;
        drop(database);
        let url = format!("sqlite:{}", file.display());
        let source = connect(&url, Profile::Generic, &SourceOptions::default());
        let source = source.map_err(fault("no source"))?;
        let spec = TableSpec::of(table()?);
        let shape = runtime.block_on(source.describe(&spec)).map_err(fault("no shape"))?;
        let before = fs::read(&file).map_err(fault("no file"))?;
        Ok(Self { runtime, source, shape, file, before, tries: 0, _folder: folder })
    }
}

/// What is taken, as a condition of a read: it reads, and the database stays as it was.
pub(super) fn run(bytes: &[u8]) -> Found {
    let Some(filter) = parsed(bytes)? else { return Ok(()) };
    WORLD.with(World::new, |world| {
        let limit = ReadLimit { rows: 100, bytes: 1 << 20 };
        let read = world.source.chunk(&world.shape, None, Some(&filter), limit);
        match world.runtime.block_on(read) {
            Ok(page) => holds(page.len() <= 4, || "more rows than there are".to_owned())?,
            // A literal that the column's type cannot hold.
            Err(error) => holds(error.code == Code::FilterRefused, || {
                format!("{filter} was taken and cannot be run: {error:?}")
            })?,
        }
        world.tries += 1;
        if world.tries.is_multiple_of(64) {
            let now = fs::read(&world.file).map_err(fault("no file"))?;
            holds(now == world.before, || "the database was written to".to_owned())?;
        }
        Ok(())
    })
}
