//! One page read from PostgreSQL: one statement, streamed, cut where the page is full.
//!
//! Promises: order, equality and comparison are the database's, with its collations (F19).

use std::{fmt::Write as _, pin::pin};

use futures_util::TryStreamExt as _;
use protocol::{
    Code, Error, Result,
    filter::{Filter, Literal},
    key::KeyBytes,
    value::TypeName,
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    super::{
        ColumnSource, From, Page, PageKey, ReadLimit, TableShape, Watermark,
        catalogue::{Found, FoundColumn},
        dialect::{self, Dialect, quoted, quoted_table},
        plan::{Assembler, ReadPlan},
    },
    cell::{self, Raw},
    fault, instant,
    link::Link,
};

const NULL_KEYS_TOLD: usize = 100;
/// Rows of the first page of a table whose width is not known.
const FIRST_ROWS: usize = 500;

pub(super) enum Start<'a> {
    Chunk { after: Option<&'a PageKey>, filter: Option<&'a Filter> },
    Delta { from: &'a From, edge: i64 },
    Keys { after: Option<&'a PageKey> },
    Unstamped { after: Option<&'a PageKey> },
    ByKeys(&'a [KeyBytes]),
}

pub(super) struct Read<'a> {
    pub shape: &'a TableShape,
    pub found: &'a Found,
    pub limit: ReadLimit,
    pub width: Option<usize>,
    pub zone: &'a str,
}

enum Param {
    Text(String),
    List(Vec<String>),
}

/// SQL under way.
struct Query<'a> {
    shape: &'a TableShape,
    found: &'a Found,
    zone: &'a str,
    conditions: Vec<String>,
    params: Vec<Param>,
    order: Vec<String>,
    below: String,
}

impl Read<'_> {
    pub(super) async fn run(&self, link: &Link, start: Start<'_>) -> Result<Page> {
        let plan = match start {
            Start::Keys { .. } => ReadPlan::keys(self.shape, self.found)?,
            _ => ReadPlan::whole(self.shape, self.found)?,
        };
        let mut page = Assembler::new(&plan, self.limit);
        let mut query = self.query();
        let filtered = matches!(start, Start::Chunk { filter: Some(_), .. });
        match start {
            Start::Chunk { after, filter } => {
                if after.is_none() {
                    self.tell_null_keys(link, &mut page).await?;
                }
                query.live_behind(after)?;
                if let Some(filter) = filter {
                    let condition = dialect::render(filter, self.shape, &mut query)?;
                    query.conditions.push(condition);
                }
            }
            Start::Keys { after } => query.live_behind(after)?,
            Start::Unstamped { after } => {
                query.live_behind(after)?;
                query.stamp_is_null();
            }
            Start::Delta { from, edge } => query.changes(from, edge)?,
            Start::ByKeys(keys) => {
                query.live();
                query.keys_in(keys)?;
            }
        }
        let complete = self.stream(link, query, &plan, &mut page).await;
        let complete = complete.map_err(|error| refused_by(error, filtered))?;
        Ok(page.finish(complete))
    }

    fn query(&self) -> Query<'_> {
        let order = self.shape.page_key.iter().map(|name| quoted(name)).collect();
        Query {
            shape: self.shape,
            found: self.found,
            zone: self.zone,
            conditions: Vec::new(),
            params: Vec::new(),
            order,
            below: "false".to_owned(),
        }
    }

    async fn tell_null_keys(&self, link: &Link, page: &mut Assembler<'_>) -> Result<()> {
        let nullable = self.query().nullable_keys();
        if nullable.is_empty() {
            return Ok(());
        }
        let any: Vec<_> = nullable.iter().map(|name| format!("{name} IS NULL")).collect();
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} LIMIT {NULL_KEYS_TOLD}",
            table_of(self.shape),
            any.join(" OR ")
        );
        for _ in link.query(&sql, &[]).await.map_err(fault)? {
            page.poison_outside(
                Code::KeyIsNull,
                format!("NULL in key column {}", nullable.join(" or ")),
            );
        }
        Ok(())
    }

    /// Rows a statement asks for: what the page can hold by the width last seen, and one more to know the end.
    fn fetch(&self) -> usize {
        let by_bytes = match self.width {
            Some(width) => (self.limit.bytes / width.max(1)).saturating_mul(2).saturating_add(16),
            None => FIRST_ROWS,
        };
        self.limit.rows.min(by_bytes).saturating_add(1)
    }

    async fn stream(
        &self,
        link: &Link,
        query: Query<'_>,
        plan: &ReadPlan,
        page: &mut Assembler<'_>,
    ) -> Result<bool> {
        let bounded = self.limit.rows < usize::MAX;
        let fetch = if bounded { self.fetch() } else { usize::MAX };
        let (sql, columns) = query.sql(plan, bounded.then_some(fetch));
        let params = query.params.iter().map(Param::typed);
        let rows = link.query_typed_raw(&sql, params).await.map_err(fault)?;
        let mut rows = pin!(rows);
        let stamp_type = query.stamp_type();
        while let Some(row) = rows.try_next().await.map_err(fault)? {
            if page.is_full() {
                return Ok(false);
            }
            let stamp = stamp_of(&row, columns.len(), stamp_type)?;
            let below: bool = row.try_get(columns.len() + 1).map_err(fault)?;
            page.row(stamp, below, |at, out| {
                let Some((name, type_id, wanted)) = columns.get(at) else {
                    return Err("unreadable".to_owned());
                };
                let place = |why: &str| format!("column {name}: {why}");
                match row.try_get::<_, Option<Raw<'_>>>(at).map_err(|_| place("unreadable"))? {
                    None => Ok(false),
                    Some(Raw(raw)) => {
                        cell::write(out, raw, *type_id, *wanted).map_err(place)?;
                        Ok(true)
                    }
                }
            })?;
        }
        Ok(page.rows() < fetch)
    }
}

/// A literal of a filter that does not fit its column, and two columns that the database has no comparison for, are the
/// filter's fault.
fn refused_by(error: Error, filtered: bool) -> Error {
    let says = |state: &str| error.message.contains(&format!("SQLSTATE {state}"));
    let words = if says("22") {
        "a literal of the filter does not fit its column's type"
    } else if says("42883") || says("42804") {
        "the filter compares columns of types that the database does not compare"
    } else {
        return error;
    };
    if filtered { Error::new(Code::FilterRefused, words) } else { error }
}

fn table_of(shape: &TableShape) -> String {
    quoted_table(shape.physical.0.as_deref(), &shape.physical.1)
}

impl Param {
    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::List(list) => (list, Type::TEXT_ARRAY),
        }
    }
}

impl<'a> Query<'a> {
    fn text(&mut self, text: impl Into<String>) -> String {
        self.params.push(Param::Text(text.into()));
        format!("${}", self.params.len())
    }

    fn list(&mut self, list: Vec<String>) -> String {
        self.params.push(Param::List(list));
        format!("${}", self.params.len())
    }

    fn column(&self, name: &str) -> Result<&'a FoundColumn> {
        let words = || Error::new(Code::SchemaChanged, format!("column {name} is gone"));
        self.found.column(name).ok_or_else(words)
    }

    fn value(&mut self, name: &str, canonical: &str) -> Result<String> {
        let column = self.column(name)?;
        let param = self.text(cell::spelled(canonical, column.native_id));
        Ok(cell::cast(&param, &column.native, column.native_id))
    }

    fn live(&mut self) {
        let Some((name, mark)) = &self.shape.soft_delete else { return };
        let mark = self.text(mark.clone());
        self.conditions
            .push(format!("btrim({}::text) IS DISTINCT FROM {mark}::text", quoted(name)));
    }

    fn live_behind(&mut self, after: Option<&PageKey>) -> Result<()> {
        self.live();
        self.keys_present();
        if let Some(key) = after {
            let right = self.page_key(key)?;
            self.conditions.push(format!("({}) > ({})", self.order.join(", "), right.join(", ")));
        }
        Ok(())
    }

    fn page_key(&mut self, key: &PageKey) -> Result<Vec<String>> {
        if key.0.len() != self.shape.page_key.len() {
            return Err(Error::new(
                Code::SchemaChanged,
                "the key has other columns than the table's",
            ));
        }
        let names = self.shape.page_key.iter().zip(&key.0);
        names.map(|(name, canonical)| self.value(name, canonical)).collect()
    }

    fn stamp_is_null(&mut self) {
        if let Some(stamp) = &self.shape.stamp {
            self.conditions.push(format!("{} IS NULL", quoted(&stamp.column)));
        }
    }

    fn nullable_keys(&self) -> Vec<String> {
        let nullable =
            |name: &&String| self.found.column(name).is_none_or(|column| column.nullable);
        self.shape.page_key.iter().filter(nullable).map(|name| quoted(name)).collect()
    }

    /// A row with NULL in its page key has no place in the order.
    fn keys_present(&mut self) {
        for name in self.nullable_keys() {
            self.conditions.push(format!("{name} IS NOT NULL"));
        }
    }

    fn stamp_type(&self) -> u32 {
        let stamp = self.shape.stamp.as_ref().and_then(|stamp| self.found.column(&stamp.column));
        stamp.map_or(0, |column| column.native_id)
    }

    fn changes(&mut self, from: &From, edge: i64) -> Result<()> {
        let shape = self.shape;
        let Some(stamp) = &shape.stamp else {
            return Err(Error::new(Code::StampUnfit, format!("table {} has no stamp", shape.wire)));
        };
        let column = quoted(&stamp.column);
        let allowance = i64::try_from(stamp.allowance.as_micros()).unwrap_or(i64::MAX);
        self.keys_present();
        match from {
            From::At(Watermark(text)) => {
                let at = self.text(text.clone());
                let less = self.text(format!("{allowance} microseconds"));
                // A bound is an instant; what a cut left is a stamp of the column, which may have no zone.
                let low = if text.ends_with('Z') {
                    self.own_time(&format!("({at}::text::timestamptz - {less}::text::interval)"))
                } else {
                    format!("({at}::text::timestamp - {less}::text::interval)")
                };
                self.conditions.push(format!("{column} >= {low}"));
            }
            From::After(Watermark(text), key) => {
                let mut right = vec![self.value(&stamp.column, text)?];
                right.extend(self.page_key(key)?);
                let left = self.order.join(", ");
                self.conditions.push(format!("({column}, {left}) > ({})", right.join(", ")));
            }
        }
        let edge = self.text(instant(edge.saturating_sub(allowance)));
        let edge = self.own_time(&format!("{edge}::text::timestamptz"));
        self.below = format!("coalesce({column} < {edge}, false)");
        self.order.insert(0, column);
        Ok(())
    }

    /// An instant as the stamp column writes it. Without a zone the wall clock goes back once a year: then what is
    /// written within two hours after the instant may bear a smaller time, so the smaller one is taken (F10).
    fn own_time(&mut self, instant: &str) -> String {
        if self.stamp_type() == 1184 {
            return instant.to_owned();
        }
        let zone = self.text(self.zone);
        let local = format!("({instant} AT TIME ZONE {zone}::text)");
        let later = format!(
            "(({instant} + interval '2 hours') AT TIME ZONE {zone}::text - interval '2 hours')"
        );
        format!("LEAST({local}, {later})")
    }

    fn keys_in(&mut self, keys: &[KeyBytes]) -> Result<()> {
        let shape = self.shape;
        let joined =
            shape.key.first().and_then(|at| shape.columns.get(*at)).map(|column| &column.from);
        if let (Some(ColumnSource::Joined(parts)), 1) = (joined, shape.key.len()) {
            return self.joined_in(parts, keys);
        }
        let mut names = Vec::new();
        for &at in &shape.key {
            match shape.columns.get(at).map(|column| &column.from) {
                Some(ColumnSource::Physical(name)) => names.push(name.clone()),
                _ => {
                    return Err(Error::new(
                        Code::SchemaChanged,
                        "the key's columns are not the table's",
                    ));
                }
            }
        }
        let values: Result<Vec<Vec<&str>>> = keys.iter().map(KeyBytes::values).collect();
        let condition = self.rows_in(&names, &values?)?;
        self.conditions.push(condition);
        Ok(())
    }

    /// `(a, b) IN (…)` with one list per column, each cast to its column's type.
    fn rows_in(&mut self, names: &[String], rows: &[Vec<&str>]) -> Result<String> {
        let (mut lists, mut casts, mut aliases) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name) in names.iter().enumerate() {
            let column = self.column(name)?;
            let mut list = Vec::new();
            for row in rows {
                let text = row.get(at).filter(|_| row.len() == names.len()).ok_or_else(|| {
                    Error::new(Code::SchemaChanged, "the key has other columns than the table's")
                })?;
                list.push(cell::spelled(text, column.native_id));
            }
            let list = self.list(list);
            lists.push(format!("{list}::text[]"));
            casts.push(cell::cast(&format!("m.c{at}"), &column.native, column.native_id));
            aliases.push(format!("c{at}"));
        }
        let left: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        Ok(format!(
            "({}) IN (SELECT {} FROM unnest({}) AS m({}))",
            left.join(", "),
            casts.join(", "),
            lists.join(", "),
            aliases.join(", ")
        ))
    }

    /// Fields joined by `|`: by fields, so that an index serves, where the text has as many parts as there are fields
    /// (then no field holds a `|`); else by the joined text.
    fn joined_in(&mut self, parts: &[usize], keys: &[KeyBytes]) -> Result<()> {
        let mut texts = Vec::new();
        for key in keys {
            texts.extend(key.values()?);
        }
        let shape = self.shape;
        let from = |part: &usize| shape.columns.get(*part).map(|column| &column.from);
        let sources: Vec<_> = parts.iter().filter_map(from).collect();
        let name = |source: &&ColumnSource| match source {
            ColumnSource::Physical(name) => Some(name.clone()),
            _ => None,
        };
        let names: Vec<String> = sources.iter().filter_map(name).collect();
        let (mut rows, mut whole) = (Vec::new(), Vec::new());
        for text in texts {
            let pieces: Vec<&str> = text.split('|').collect();
            if pieces.len() != parts.len() {
                whole.push(text.to_owned());
                continue;
            }
            let paired = || sources.iter().zip(&pieces);
            let ours = paired().all(|(source, piece)| match source {
                ColumnSource::Constant(constant) => constant == piece,
                _ => true,
            });
            if ours {
                let fields =
                    paired().filter(|(source, _)| matches!(source, ColumnSource::Physical(_)));
                rows.push(fields.map(|(_, piece)| *piece).collect());
            }
        }
        let by_fields = self.rows_in(&names, &rows)?;
        if whole.is_empty() {
            self.conditions.push(by_fields);
            return Ok(());
        }
        let mut joined = Vec::new();
        for source in sources {
            match source {
                ColumnSource::Physical(name) => joined.push(quoted(name)),
                ColumnSource::Constant(text) => {
                    joined.push(format!("{}::text", self.text(text.clone())))
                }
                _ => {
                    return Err(Error::new(Code::SchemaChanged, "a key field is not in the table"));
                }
            }
        }
        let whole = self.list(whole);
        // concat keeps the blanks of char(n), which a cast to text would drop.
        let by_text = format!("concat({}) = ANY ({whole}::text[])", joined.join(", '|', "));
        self.conditions.push(format!("({by_fields} OR {by_text})"));
        Ok(())
    }

    fn sql(&self, plan: &ReadPlan, limit: Option<usize>) -> (String, Vec<(String, u32, TypeName)>) {
        let mut sql = "SELECT ".to_owned();
        let mut columns = Vec::new();
        for column in plan.selected.iter().filter_map(|at| self.found.columns.get(*at)) {
            let _ = write!(sql, "{}, ", cell::selected(&quoted(&column.name), column.native_id));
            let wire = self.shape.columns.iter().find(
                |wire| matches!(&wire.from, ColumnSource::Physical(name) if *name == column.name),
            );
            let wanted = wire.map_or(column.type_name, |wire| wire.type_name);
            columns.push((column.name.clone(), column.native_id, wanted));
        }
        let stamp = self
            .shape
            .stamp
            .as_ref()
            .map_or("NULL::text".to_owned(), |stamp| quoted(&stamp.column));
        let _ = write!(sql, "{stamp}, {} FROM {}", self.below, table_of(self.shape));
        if !self.conditions.is_empty() {
            let _ = write!(sql, " WHERE {}", self.conditions.join(" AND "));
        }
        let _ = write!(sql, " ORDER BY {}", self.order.join(", "));
        if let Some(limit) = limit {
            let _ = write!(sql, " LIMIT {limit}");
        }
        (sql, columns)
    }
}

fn stamp_of(row: &Row, at: usize, type_id: u32) -> Result<Option<Watermark>> {
    let Some(Raw(raw)) = row.try_get::<_, Option<Raw<'_>>>(at).map_err(fault)? else {
        return Ok(None);
    };
    let mut text = String::new();
    let plain = TypeName::plain(protocol::value::ColumnType::String);
    cell::write(&mut text, raw, type_id, plain).map_err(|why| Error::new(Code::StampUnfit, why))?;
    Ok(Some(Watermark(text)))
}

impl Dialect for Query<'_> {
    fn bind(&mut self, literal: &Literal, column: Option<&str>) -> Result<String> {
        let param = self.text(literal.as_str());
        let Some(column) = column.map(|name| self.column(name)).transpose()? else {
            return Ok(format!("{param}::text"));
        };
        let whole_number = matches!(column.native_id, 20 | 21 | 23 | 26 | 1700);
        Ok(match literal {
            // A fraction or a number beyond the column's range is compared all the same.
            Literal::Number(_) if whole_number => format!("{param}::text::numeric"),
            _ => cell::cast(&param, &column.native, column.native_id),
        })
    }

    fn like(&mut self, column: &str, pattern: &str) -> String {
        let pattern = self.text(pattern);
        format!("{}::text COLLATE \"C\" LIKE {pattern}::text ESCAPE ''", quoted(column))
    }
}
