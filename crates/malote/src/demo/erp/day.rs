//! Day: what happens in the small ERP between morning and evening, step by step.
//!
//! Promises: inserts, updates, deletes (hard in RM, soft in Protheus), keys that come back, keys that change, first
//! stamps and emptied ones, a physical purge, a bulk update under one stamp, and a transaction that commits long after it stamped its rows.
//! Never: waits by itself; whoever runs the day decides how long the late transaction stays open.

use protocol::{Code, Coded as _, Result};
use rusqlite::{Connection, params};

use super::{Erp, Kind, TABLES, chance::Chance, insert};

/// SQLite's own clock in the form of the stamps.
const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// One step that was done.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    /// English and Portuguese.
    pub(crate) words: (&'static str, &'static str),
    pub(crate) rows: usize,
    /// The transaction is still open: its rows are stamped, nobody else sees them yet.
    pub(crate) open: bool,
}

type Work = fn(&mut Day) -> rusqlite::Result<usize>;

struct Plan(Kind, &'static str, &'static str, Work);

/// A day under way.
pub(crate) struct Day {
    rm: Connection,
    protheus: Connection,
    chance: Chance,
    /// About a two-hundredth of the largest table: how much one step touches.
    some: i64,
    lan: i64,
    mov: i64,
    se1: i64,
    at: usize,
}

const STEPS: [Plan; 16] = [
    Plan(
        Kind::Rm,
        "new movements and entries",
        "novos movimentos e lançamentos",
        Day::new_movements,
    ),
    Plan(
        Kind::Rm,
        "entries paid, customers edited",
        "lançamentos baixados, clientes editados",
        Day::edits,
    ),
    Plan(Kind::Rm, "logo and name of a company", "logotipo e nome de uma coligada", Day::company),
    Plan(
        Kind::Rm,
        "products edited, without a stamp",
        "produtos editados, sem coluna de controle",
        Day::products,
    ),
    Plan(
        Kind::Rm,
        "entries, items and products deleted",
        "lançamentos, itens e produtos excluídos",
        Day::deletes,
    ),
    Plan(Kind::Rm, "deleted keys used again", "chaves excluídas usadas de novo", Day::keys_again),
    Plan(Kind::Rm, "customer codes changed", "códigos de clientes alterados", Day::new_codes),
    Plan(Kind::Protheus, "new titles and items", "novos títulos e itens", Day::titles),
    Plan(
        Kind::Protheus,
        "titles settled, customers edited",
        "títulos baixados, clientes editados",
        Day::settle,
    ),
    Plan(
        Kind::Rm,
        "a long transaction stamps its rows",
        "uma transação longa grava suas linhas",
        Day::late_begin,
    ),
    Plan(
        Kind::Protheus,
        "titles deleted softly, some come back",
        "títulos excluídos, alguns voltam",
        Day::soft_deletes,
    ),
    Plan(
        Kind::Protheus,
        "customers older than the stamp column edited",
        "clientes anteriores à coluna de controle editados",
        Day::first_stamps,
    ),
    Plan(
        Kind::Protheus,
        "stamps emptied to force a resend, deleted rows purged",
        "controle esvaziado para forçar reenvio, linhas excluídas expurgadas",
        Day::empty_stamps,
    ),
    Plan(
        Kind::Protheus,
        "cost centres edited, without a stamp",
        "centros de custo editados, sem controle",
        Day::centres,
    ),
    Plan(
        Kind::Rm,
        "the long transaction commits",
        "a transação longa é confirmada",
        Day::late_commit,
    ),
    Plan(
        Kind::Rm,
        "all movements closed in one statement",
        "todos os movimentos fechados de uma vez",
        Day::bulk,
    ),
];

impl Day {
    pub(crate) fn begin(erp: &Erp) -> Result<Self> {
        let open = |kind| erp.connect(kind).coded(Code::SourceFailed, "cannot open the small ERP");
        Ok(Self {
            rm: open(Kind::Rm)?,
            protheus: open(Kind::Protheus)?,
            chance: Chance::new(erp.seed ^ 0xda7),
            some: (erp.filled("FLAN") / 200).clamp(3, 5_000),
            lan: erp.filled("FLAN"),
            mov: erp.filled("TMOV"),
            se1: erp.filled("SE1010"),
            at: 0,
        })
    }

    /// Does the next step; `None` = the day is over. Blocking.
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        let Some(Plan(kind, en, pt, work)) = STEPS.get(self.at) else { return Ok(None) };
        self.at += 1;
        let rows =
            work(self).coded(Code::SourceFailed, format!("the small ERP could not do: {en}"))?;
        let open = !self.rm.is_autocommit() && *kind == Kind::Rm;
        Ok(Some(Step { kind: *kind, words: (en, pt), rows, open }))
    }

    /// The next step is the late transaction's commit.
    pub(crate) fn commits_next(&self) -> bool {
        let next = STEPS.get(self.at).map(|Plan(kind, ..)| *kind);
        next == Some(Kind::Rm) && !self.rm.is_autocommit()
    }

    fn row(&mut self, physical: &str, n: i64) -> Vec<rusqlite::types::Value> {
        let table = TABLES.iter().find(|table| table.physical == physical);
        table.map(|table| (table.row)(n, &mut self.chance)).unwrap_or_default()
    }

    /// Inserts rows of RM with the stamp of now.
    fn add(&mut self, physical: &str, numbers: std::ops::Range<i64>) -> rusqlite::Result<usize> {
        let rows: Vec<_> = numbers.map(|n| self.row(physical, n)).collect();
        let count = rows.len();
        let now: String = self.rm.query_row(&format!("SELECT {NOW}"), [], |row| row.get(0))?;
        for mut row in rows {
            row.pop();
            row.push(now.clone().into());
            insert(&self.rm, physical, row)?;
        }
        Ok(count)
    }

    fn new_movements(&mut self) -> rusqlite::Result<usize> {
        self.rm.execute_batch("BEGIN IMMEDIATE")?;
        let movements = self.add("TMOV", self.mov..self.mov + self.some)?;
        let entries = self.add("FLAN", self.lan..self.lan + self.some)?;
        self.rm.execute_batch("COMMIT")?;
        self.mov += self.some;
        self.lan += self.some;
        Ok(movements + entries)
    }

    fn edits(&mut self) -> rusqlite::Result<usize> {
        let offset = self.chance.below(100);
        let paid = self.rm.execute(
            &format!(
                "UPDATE FLAN SET DATABAIXA = '2024-12-31', STATUSLAN = 1, VALORORIGINAL = VALORORIGINAL + 0.01,
                 HISTORICO = NULL, RECMODIFIEDON = {NOW} WHERE IDLAN % 100 = ?"
            ),
            [offset],
        )?;
        let edited = self.rm.execute(
            &format!(
                "UPDATE FCFO SET EMAIL = CASE WHEN EMAIL IS NULL THEN '' ELSE NULL END, NOME = NOME || ' ✓',
                 RECMODIFIEDON = {NOW} WHERE rowid % 100 = ?"
            ),
            [offset],
        )?;
        Ok(paid + edited)
    }

    fn company(&mut self) -> rusqlite::Result<usize> {
        let logo = self.chance.bytes(5_000);
        self.rm.execute(
            &format!("UPDATE GCOLIGADA SET LOGOTIPO = ?, NOMEFANTASIA = 'Nova Razão', RECMODIFIEDON = {NOW}"),
            [logo],
        )
    }

    fn products(&mut self) -> rusqlite::Result<usize> {
        let sql = "UPDATE TPRODUTO SET PRECO = PRECO * 1.1, FICHA = coalesce(FICHA, '') || 'revisado' WHERE IDPRD % 50 = 1";
        self.rm.execute(sql, [])
    }

    fn deletes(&mut self) -> rusqlite::Result<usize> {
        let mut rows =
            self.rm.execute("DELETE FROM FLAN WHERE IDLAN % 150 = 7 OR IDLAN < 4", [])?;
        rows += self.rm.execute("DELETE FROM TITMMOV WHERE IDMOV % 100 = 3", [])?;
        rows += self.rm.execute("DELETE FROM TPRODUTO WHERE IDPRD % 60 = 2", [])?;
        Ok(rows)
    }

    fn keys_again(&mut self) -> rusqlite::Result<usize> {
        // The first entries of each company were deleted; three come back under their keys with other values.
        self.add("FLAN", 0..3)
    }

    fn new_codes(&mut self) -> rusqlite::Result<usize> {
        // To the cloud a changed key is a delete of the old row and an insert of a new one.
        self.rm.execute(
            &format!(
                "UPDATE FCFO SET CODCFO = 'N' || substr(CODCFO, 2), RECMODIFIEDON = {NOW} WHERE rowid % 90 = 1"
            ),
            [],
        )
    }

    fn titles(&mut self) -> rusqlite::Result<usize> {
        let rows: Vec<_> =
            (self.se1..self.se1 + self.some).map(|n| self.row("SE1010", n)).collect();
        self.protheus.execute_batch("BEGIN IMMEDIATE")?;
        for row in rows {
            insert(&self.protheus, "SE1010", row)?;
        }
        let stamped = self.protheus.execute(
            &format!("UPDATE SE1010 SET S_T_A_M_P_ = {NOW} WHERE R_E_C_N_O_ > ?"),
            [self.se1],
        )?;
        let items = self.protheus.execute(
            &format!("UPDATE SD2010 SET D2_QUANT = D2_QUANT + 1, S_T_A_M_P_ = {NOW} WHERE R_E_C_N_O_ % 70 = 1"),
            [],
        )?;
        self.protheus.execute_batch("COMMIT")?;
        self.se1 += self.some;
        Ok(stamped + items)
    }

    fn settle(&mut self) -> rusqlite::Result<usize> {
        let mut rows = self.protheus.execute(
            &format!(
                "UPDATE SE1010 SET E1_SALDO = 0, E1_HIST = 'BAIXA  ', S_T_A_M_P_ = {NOW} WHERE R_E_C_N_O_ % 80 = 1"
            ),
            [],
        )?;
        rows += self.protheus.execute(
            &format!("UPDATE SA1010 SET A1_LC = A1_LC / 3, A1_OBS = NULL, S_T_A_M_P_ = {NOW} WHERE R_E_C_N_O_ % 60 = 1"),
            [],
        )?;
        Ok(rows)
    }

    fn late_begin(&mut self) -> rusqlite::Result<usize> {
        self.rm.execute_batch("BEGIN IMMEDIATE")?;
        let rows = self.add("FLAN", self.lan..self.lan + self.some)?;
        self.lan += self.some;
        let edited = self.rm.execute(
            &format!("UPDATE FCFO SET LIMITECREDITO = 9999.5, RECMODIFIEDON = {NOW} WHERE rowid % 110 = 3"),
            [],
        )?;
        Ok(rows + edited)
    }

    fn late_commit(&mut self) -> rusqlite::Result<usize> {
        self.rm.execute_batch("COMMIT")?;
        Ok(usize::try_from(self.some).unwrap_or(0))
    }

    fn soft_deletes(&mut self) -> rusqlite::Result<usize> {
        let deleted = self.protheus.execute(
            &format!(
                "UPDATE SE1010 SET D_E_L_E_T_ = '*', R_E_C_D_E_L_ = R_E_C_N_O_, S_T_A_M_P_ = {NOW}
                 WHERE R_E_C_N_O_ % 90 = 2 AND D_E_L_E_T_ = ' '"
            ),
            [],
        )?;
        // Some are typed in again under the same key: the deleted row stays beside the live one (F72).
        let again = self.protheus.execute(
            &format!(
                "INSERT INTO SE1010 SELECT E1_FILIAL, E1_PREFIXO, E1_NUM, E1_PARCELA, E1_TIPO, E1_CLIENTE, E1_EMISSAO,
                 E1_VENCREA, E1_VALOR * 2, E1_SALDO, 'DIGITADO DE NOVO', E1_ANEXO, ' ', R_E_C_N_O_ + 1000000000, 0, {NOW}
                 FROM SE1010 WHERE R_E_C_N_O_ % 180 = 2 AND D_E_L_E_T_ = '*'"
            ),
            [],
        )?;
        Ok(deleted + again)
    }

    /// What a stamp cannot tell: found by comparison with the known rows.
    fn empty_stamps(&mut self) -> rusqlite::Result<usize> {
        let emptied = self.protheus.execute(
            "UPDATE SA1010 SET A1_NOME = 'REENVIO', S_T_A_M_P_ = NULL WHERE R_E_C_N_O_ % 75 = 5 AND D_E_L_E_T_ = ' '",
            [],
        )?;
        let purged = self.protheus.execute("DELETE FROM SD2010 WHERE R_E_C_N_O_ % 130 = 4", [])?;
        Ok(emptied + purged)
    }

    fn first_stamps(&mut self) -> rusqlite::Result<usize> {
        // Rows older than the stamp column get their first stamp when they change.
        self.protheus.execute(
            &format!(
                "UPDATE SA1010 SET A1_NOME = 'RECADASTRADO', S_T_A_M_P_ = {NOW}
                 WHERE S_T_A_M_P_ IS NULL AND R_E_C_N_O_ % 2 = 0"
            ),
            [],
        )
    }

    fn centres(&mut self) -> rusqlite::Result<usize> {
        let mut rows = self
            .protheus
            .execute("UPDATE CTT010 SET CTT_DESC01 = 'REVISTO' WHERE R_E_C_N_O_ % 10 = 1", [])?;
        rows += self.protheus.execute(
            "UPDATE CTT010 SET D_E_L_E_T_ = '*', R_E_C_D_E_L_ = R_E_C_N_O_ WHERE R_E_C_N_O_ % 10 = 2",
            [],
        )?;
        rows += self.protheus.execute("DELETE FROM CTT010 WHERE R_E_C_N_O_ % 15 = 3", [])?;
        Ok(rows)
    }

    fn bulk(&mut self) -> rusqlite::Result<usize> {
        self.rm.execute_batch("BEGIN IMMEDIATE")?;
        let now: String = self.rm.query_row(&format!("SELECT {NOW}"), [], |row| row.get(0))?;
        let mut rows =
            self.rm.execute("UPDATE TMOV SET STATUS = 'F', RECMODIFIEDON = ?", params![now])?;
        rows += self.rm.execute(
            "UPDATE TITMMOV SET QUANTIDADE = 0, RECMODIFIEDON = ? WHERE NSEQITMMOV = 2",
            params![now],
        )?;
        self.rm.execute_batch("COMMIT")?;
        Ok(rows)
    }
}
