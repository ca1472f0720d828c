//! Source: an ERP database as the agent reads it.
//!
//! Promises: read-only, SELECT rights suffice; ordering and comparison are the database's own (F19); every value is
//! canonical text (`contracts.md` 5.4) or its row is told as poison; a page is one short statement.
//! Promises: of a masked column a page holds the mask alone, so that nothing behind it ever sees the value.
//! Never: takes SQL text from outside, uses NOLOCK or read uncommitted (F13), keeps a transaction between pages (F15).

use std::{fmt, future::Future, time::Duration};

use protocol::{
    Code, Result,
    key::KeyBytes,
    names::{ColumnName, TableName},
    value::TypeName,
};

mod any;
mod catalogue;
mod dialect;
mod disclosure;
mod image;
mod mask;
mod pace;
mod page;
mod plan;
mod postgres;
pub mod profile;
mod sqlite;

pub use any::{AnySource, SourceOptions, connect};
pub use mask::{Disclosure, Mask, MaskKey, MaskRule};
pub use pace::{LEAST_ROWS, PAGE_ROWS, Pace};
pub use page::{Page, PageBuilder, Place, Poison};
pub use postgres::{PostgresSource, SAFE_BOUND_SQL};
pub use profile::{BranchLayout, Profile};
pub use sqlite::SqliteSource;

/// What the plan and the configuration say of one table, before the catalogue is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSpec {
    /// Name on the wire, as Entities gives it (`SE1`, `FLAN`).
    pub wire: TableName,
    /// Key declared in the configuration; else the catalogue's.
    pub key: Option<Vec<ColumnName>>,
    /// Stamp declared in the configuration; else the profile's column where the table has it.
    pub stamp: Option<ColumnName>,
    /// `Some(false)` in the configuration: treat the table as one without stamp.
    pub no_stamp: bool,
    /// Soft-delete column and the text (canonical, blanks trimmed) that marks a deleted row.
    pub soft_delete: Option<(ColumnName, String)>,
    /// Declared column types, over the catalogue's.
    pub types: Vec<(ColumnName, TypeName)>,
    /// What a clock may err for this table's stamps; else the profile's.
    pub allowance: Option<Duration>,
    /// Columns that stay in the building, and those of which a mask leaves it.
    pub disclosure: Disclosure,
}

impl TableSpec {
    /// A table of which nothing is declared.
    #[must_use]
    pub fn of(wire: TableName) -> Self {
        Self {
            wire,
            key: None,
            stamp: None,
            no_stamp: false,
            soft_delete: None,
            types: Vec::new(),
            allowance: None,
            disclosure: Disclosure::default(),
        }
    }
}

/// A table as the catalogue and the profile show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableShape {
    pub wire: TableName,
    /// Schema (where the database has them) and table as the database spells them; quoted by the dialect when rendered.
    pub physical: (Option<String>, String),
    /// Wire columns, in order; `DELETED` is not among them.
    pub columns: Vec<ColumnShape>,
    /// Positions of the wire key in `columns`.
    pub key: Vec<usize>,
    /// Physical columns that order pages (the database's own key; `R_E_C_N_O_` in Protheus).
    pub page_key: Vec<String>,
    pub stamp: Option<StampShape>,
    /// A deleted row is found by this column: an ordinary change (`correctness.md` d 1).
    pub soft_delete: Option<(String, String)>,
    /// Protheus: a deleted and a live row may share the wire key, so deletes need a look (F72).
    pub shared_key: bool,
    /// Hash of what the catalogue says of the table; another one means `SCHEMA_CHANGED` (F30).
    pub fingerprint: [u8; 16],
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnShape {
    pub name: ColumnName,
    /// Of the value as it is read.
    pub type_name: TypeName,
    pub from: ColumnSource,
    /// What of the value a page holds; `None` = the value.
    pub mask: Option<Mask>,
}

impl ColumnShape {
    /// The type on the wire.
    #[must_use]
    pub fn wire_type(&self) -> TypeName {
        self.mask.as_ref().and_then(Mask::type_name).unwrap_or(self.type_name)
    }
}

/// Where a wire column's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ColumnSource {
    /// A physical column, by the database's spelling.
    Physical(String),
    /// The same text in every row (`company_group`).
    Constant(String),
    /// Parts joined by `|` (`protheus_pk`): positions of wire columns, in order.
    Joined(Vec<usize>),
    /// Characters `from..to` of wire column `of` (`company`, `unity`, `branch`), blanks trimmed at the end.
    Slice { of: usize, from: usize, to: usize },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StampShape {
    /// Physical column, by the database's spelling.
    pub column: String,
    /// `e` of `correctness.md` 3 a.
    pub allowance: Duration,
    /// How the values are written where the column's type does not tell (SQLite); empty = it does, or there is none yet.
    pub form: String,
    /// Rows may have NULL here (F11): they are compared with the known rows at each key scan.
    pub nullable: bool,
}

/// A stamp in the column's own type, as text that the source alone reads and that fits a cursor (at most 64 bytes).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub String);

/// Page key of one row: canonical texts of `page_key`, as key bytes. Compared by the database alone.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PageKey(pub Vec<String>);

/// The safe upper edge, taken before a read (`correctness.md` 3 a).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// `b`: the database's clock, microseconds since 1970 UTC.
    pub at_micros: i64,
    /// `B`: start of the oldest transaction that may still commit, at most `b`; where it cannot be known,
    /// `b` less the overlap window.
    pub micros: i64,
    /// Why the promise is weaker than the design's; `None` = it is not.
    pub degraded: Option<String>,
    /// Who holds the bound back, in words (a session, never a row's value).
    pub held_by: Option<String>,
    /// What was committed when it was taken, opaque, looked at no earlier than `b`. Equal at two bounds = nothing was
    /// committed between them; `None` = not known.
    pub committed: Option<String>,
    /// A transaction is open that began later than `b`: the clock was set back while it ran.
    pub from_before_a_step: bool,
}

impl Bound {
    /// Where the database's clock shows that, and nothing is open or known beside it.
    #[must_use]
    pub const fn at(micros: i64) -> Self {
        Self {
            at_micros: micros,
            micros,
            degraded: None,
            held_by: None,
            committed: None,
            from_before_a_step: false,
        }
    }
}

/// Where a delta read starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// `stamp >= W - e`.
    At(Watermark),
    /// `(stamp, page key) > (W, key)`, nothing taken off.
    After(Watermark, PageKey),
}

/// What one page may hold. A page ends at whichever comes first; a single row above `bytes` still comes alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimit {
    pub rows: usize,
    /// Canonical text of the page, bytes.
    pub bytes: usize,
}

/// Canonical text of a page of rows asked for by their keys.
const LOOK_UP_BYTES: usize = 4 * 1024 * 1024;

/// The database's identity, sent with `Open` (`contracts.md` 5.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub kind: &'static str,
    pub facts: Vec<(String, String)>,
    /// Log position, unsigned, big end first; empty = none.
    pub position: Vec<u8>,
    /// Version of the database, for people.
    pub version: String,
}

/// One finding of the pre-flight (`malote agent check`).
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Finding {
    /// `None` = all tables.
    pub table: Option<TableName>,
    /// `None` = good news.
    #[serde(serialize_with = "code_text")]
    pub code: Option<Code>,
    pub words: String,
    /// What it is about, where it is neither a fault nor plainly good.
    #[serde(skip)]
    pub concern: Option<Concern>,
}

/// What works and yet is worth a person's while.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Concern {
    /// The table has no row.
    Empty,
    /// Changes are found by scans alone.
    NoStamp,
    /// Each cycle reads the whole table to find what that column says is new.
    NoStampIndex(String),
    /// That column is NULL in rows.
    StampNull(String),
    /// That trigger of the table is switched off; if it sets the stamp, changes carry an old one (F12).
    TriggerOff(String),
    /// The login may change rows.
    MayWrite,
}

fn code_text<S: serde::Serializer>(code: &Option<Code>, to: S) -> Result<S::Ok, S::Error> {
    match code {
        Some(code) => to.serialize_some(code.as_str()),
        None => to.serialize_none(),
    }
}

/// An ERP database. Every call is one short statement or transaction with a time-out (pages 5 s, probes 30 s);
/// errors carry the codes `SOURCE_*`, `TABLE_*`, `KEY_*`, `STAMP_UNFIT`, `SCHEMA_CHANGED`, `FILTER_REFUSED`.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Facts and position for the session; refuses a standby (`SOURCE_STANDBY`).
    fn identity(&self) -> impl Future<Output = Result<Identity>> + Send;

    /// The log position seen last, as in [`Identity`]; asks nothing. `None` where the database has none, or none was seen.
    fn position(&self) -> Option<Vec<u8>> {
        None
    }

    /// All tables the login can see, by wire name; for `check` and for `demo --source`.
    fn tables(&self) -> impl Future<Output = Result<Vec<TableName>>> + Send;

    /// Learns a table from the catalogue, the profile and the declaration.
    fn describe(&self, spec: &TableSpec) -> impl Future<Output = Result<TableShape>> + Send;

    /// `b` and `B`, in a transaction of its own, before the read.
    fn bound(&self) -> impl Future<Output = Result<Bound>> + Send;

    /// Asks for nothing, so that the time it takes is the database's own; `false` where that time says nothing.
    fn probe(&self) -> impl Future<Output = Result<bool>> + Send {
        std::future::ready(Ok(false))
    }

    /// `B` in the form of the table's stamp column. Only for tables with a stamp.
    fn watermark(&self, shape: &TableShape, bound: &Bound) -> Result<Watermark>;

    /// Live rows in page-key order behind `after`; base loads and full scans. The filter was parsed against this shape.
    fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        filter: Option<&protocol::filter::Filter>,
        limit: ReadLimit,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// Rows in (stamp, page key) order from `from`, deleted ones included and marked; no upper limit but `limit`.
    /// Each row tells whether its stamp lies below `bound - allowance` ([`Page::below_edge`]).
    fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// Key columns alone of all live rows, in page-key order (columns outside the key are NULL in the page).
    fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// Live rows whose stamp is NULL or (SQLite) of another form than the table's, whole, in page-key order behind
    /// `after`: no delta meets them, also where the ERP empties a stamp to have a row sent again. Only for tables with
    /// a stamp.
    fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// Live rows with these wire keys, whole, in a fresh snapshot; at most 1,000 keys a call. A page that is not complete
    /// holds some of them, in no order that could be gone on from: ask for fewer keys.
    fn by_keys(
        &self,
        shape: &TableShape,
        keys: &[KeyBytes],
    ) -> impl Future<Output = Result<Page>> + Send;

    /// About how many rows a table has; `None` = that cannot be told within the time of a probe.
    fn row_count(&self, shape: &TableShape) -> impl Future<Output = Result<Option<u64>>> + Send {
        let _ = shape;
        async { Ok(None) }
    }

    /// What stands in the way or weakens a promise: rights, bound, stamp index, NULL stamps, keys.
    fn findings(&self, shapes: &[TableShape]) -> impl Future<Output = Result<Vec<Finding>>> + Send;
}
