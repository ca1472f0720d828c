//! One page read from SQLite.
//!
//! Promises: order and comparison are SQLite's own, with the columns' collations and affinities.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{
    Code, Error, Result,
    filter::{Filter, Literal},
    key::KeyBytes,
    value::{ColumnType, TypeName},
};
use rusqlite::{
    Connection, Row, params_from_iter,
    types::{Value, ValueRef},
};

use super::{
    super::{
        ColumnSource, Concern, Finding, From, Page, PageKey, ReadLimit, StampShape, TableShape,
        Watermark,
        catalogue::Found,
        dialect::{self, Dialect, quoted},
        plan::{Assembler, ReadPlan},
    },
    cell, fault,
    stamp::{self, Style},
};

/// Rows with NULL in their key that one page tells of.
const NULL_KEYS_TOLD: usize = 100;

pub(super) enum Start {
    Chunk { after: Option<PageKey>, filter: Option<Filter> },
    Delta { from: From, edge: i64 },
    Keys { after: Option<PageKey> },
    Unstamped { after: Option<PageKey> },
    ByKeys(Vec<KeyBytes>),
}

pub(super) struct Read {
    shape: TableShape,
    start: Start,
    limit: ReadLimit,
}

/// SQL under way.
struct Query<'a> {
    shape: &'a TableShape,
    found: &'a Found,
    conditions: Vec<String>,
    params: Vec<Value>,
    order: Vec<String>,
    /// Expression that tells whether a row lies below the edge.
    below: String,
}

impl Read {
    pub(super) fn new(shape: &TableShape, start: Start, limit: ReadLimit) -> Self {
        Self { shape: shape.clone(), start, limit }
    }

    pub(super) fn shape(&self) -> &TableShape {
        &self.shape
    }

    pub(super) fn run(self, connection: &Connection, found: &Found) -> Result<Page> {
        let Self { shape, start, limit } = self;
        let plan = match start {
            Start::Keys { .. } => ReadPlan::keys(&shape, found)?,
            _ => ReadPlan::whole(&shape, found)?,
        };
        let mut page = Assembler::new(&plan, limit);
        let mut query = Query::new(&shape, found);
        match &start {
            Start::Chunk { after, filter } => {
                if after.is_none() {
                    query.tell_null_keys(connection, &mut page)?;
                }
                query.live_behind(after.as_ref())?;
                if let Some(filter) = filter {
                    let condition = dialect::render(filter, &shape, &mut query)?;
                    query.conditions.push(condition);
                }
            }
            Start::Keys { after } => query.live_behind(after.as_ref())?,
            Start::Unstamped { after } => {
                query.live_behind(after.as_ref())?;
                query.apart_from_stamps(connection)?;
            }
            Start::Delta { from, edge } => query.changes(connection, from, *edge)?,
            Start::ByKeys(keys) => {
                let mut complete = true;
                for some in keys.chunks(100) {
                    let mut query = Query::new(&shape, found);
                    query.live();
                    query.keys_in(some)?;
                    complete &= query.run(connection, &plan, &mut page, None)?;
                }
                return Ok(page.finish(complete));
            }
        }
        let complete = query.run(connection, &plan, &mut page, Some(limit.rows))?;
        Ok(page.finish(complete))
    }
}

impl<'a> Query<'a> {
    fn new(shape: &'a TableShape, found: &'a Found) -> Self {
        let order = shape.page_key.iter().map(|name| quoted(name)).collect();
        Self { shape, found, conditions: Vec::new(), params: Vec::new(), order, below: "0".into() }
    }

    fn param(&mut self, value: Value) -> String {
        self.params.push(value);
        format!("?{}", self.params.len())
    }

    /// Not soft-deleted.
    fn live(&mut self) {
        let Some((name, mark)) = &self.shape.soft_delete else { return };
        let boolean =
            self.found.column(name).map(|c| c.type_name.column_type) == Some(ColumnType::Boolean);
        let mark = match mark.as_str() {
            "true" if boolean => "1",
            "false" if boolean => "0",
            other => other,
        };
        let mark = self.param(Value::Text(mark.to_owned()));
        self.conditions.push(format!("trim(CAST({} AS TEXT)) IS NOT {mark}", quoted(name)));
    }

    fn live_behind(&mut self, after: Option<&PageKey>) -> Result<()> {
        self.live();
        self.keys_present();
        if let Some(PageKey(key)) = after {
            let key =
                self.key_params(&self.shape.page_key.clone(), key.iter().map(String::as_str))?;
            let left = self.order.join(", ");
            self.conditions.push(format!("({left}) > ({})", key.join(", ")));
        }
        Ok(())
    }

    fn apart_from_stamps(&mut self, connection: &Connection) -> Result<()> {
        if let Some(stamp) = &self.shape.stamp {
            let style = stamp::known(connection, self.shape, stamp)?;
            self.conditions.push(stamp::apart(&quoted(&stamp.column), style));
        }
        Ok(())
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

    fn tell_null_keys(&self, connection: &Connection, page: &mut Assembler<'_>) -> Result<()> {
        let nullable = self.nullable_keys();
        if nullable.is_empty() {
            return Ok(());
        }
        let any: Vec<_> = nullable.iter().map(|name| format!("{name} IS NULL")).collect();
        let sql = format!(
            "SELECT 1 FROM {} WHERE {} LIMIT {NULL_KEYS_TOLD}",
            quoted(&self.shape.physical.1),
            any.join(" OR ")
        );
        let mut statement = connection.prepare(&sql).map_err(fault)?;
        let mut rows = statement.query([]).map_err(fault)?;
        while rows.next().map_err(fault)?.is_some() {
            page.poison_outside(
                Code::KeyIsNull,
                format!("NULL in key column {}", nullable.join(" or ")),
            );
        }
        Ok(())
    }

    fn key_params<'k>(
        &mut self,
        names: &[String],
        key: impl Iterator<Item = &'k str>,
    ) -> Result<Vec<String>> {
        let mut params = Vec::new();
        for (name, text) in names.iter().zip(key) {
            let column_type = self.found.column(name).map(|column| column.type_name.column_type);
            let value = key_value(column_type.unwrap_or(ColumnType::String), text)?;
            params.push(self.param(value));
        }
        if params.len() == names.len() {
            Ok(params)
        } else {
            Err(Error::new(Code::SchemaChanged, "the key has other columns than the table's"))
        }
    }

    fn changes(&mut self, connection: &Connection, from: &From, edge: i64) -> Result<()> {
        let Some(stamp) = self.shape.stamp.clone() else {
            return Err(Error::new(
                Code::StampUnfit,
                format!("table {} has no stamp", self.shape.wire),
            ));
        };
        let style = stamp::known(connection, self.shape, &stamp)?;
        let column = quoted(&stamp.column);
        let allowance = i64::try_from(stamp.allowance.as_micros()).unwrap_or(i64::MAX);
        self.keys_present();
        match from {
            From::At(watermark) => {
                let low = stamp::instant(watermark, style)?.saturating_sub(allowance);
                let low = self.stamp_param(low, style);
                self.conditions.push(format!("{column} >= {low}"));
            }
            From::After(Watermark(text), PageKey(key)) => {
                let value = match style {
                    Style::Text { .. } => Value::Text(text.clone()),
                    Style::Epoch { .. } => Value::Integer(text.parse().map_err(|_| {
                        Error::new(Code::StampUnfit, "the watermark is not an epoch")
                    })?),
                };
                let mut right = vec![self.param(value)];
                right.extend(
                    self.key_params(&self.shape.page_key.clone(), key.iter().map(String::as_str))?,
                );
                let left = self.order.join(", ");
                self.conditions.push(format!("({column}, {left}) > ({})", right.join(", ")));
            }
        }
        let edge = edge.saturating_sub(allowance);
        self.below = format!("{column} < {}", self.stamp_param(edge, style));
        if let Style::Text { sign } = style {
            // The others sort by day first and would stand in the wrong place; the scan compares them.
            self.conditions.push(format!("substr({column}, 11, 1) = '{sign}'"));
        }
        self.order.insert(0, column);
        Ok(())
    }

    /// An instant as the table writes its stamps, rounded down.
    fn stamp_param(&mut self, micros: i64, style: Style) -> String {
        self.param(match style {
            Style::Text { sign } => Value::Text(stamp::text_form(micros, sign)),
            Style::Epoch { per_second } => {
                Value::Integer(micros.div_euclid(1_000_000 / per_second))
            }
        })
    }

    fn keys_in(&mut self, keys: &[KeyBytes]) -> Result<()> {
        let mut any = Vec::new();
        for key in keys {
            let values = key.values()?;
            let condition = self.key_is(&values)?;
            any.push(format!("({condition})"));
        }
        self.conditions.push(if any.is_empty() {
            "0".into()
        } else {
            format!("({})", any.join(" OR "))
        });
        Ok(())
    }

    fn key_is(&mut self, values: &[&str]) -> Result<String> {
        if values.len() != self.shape.key.len() {
            return Err(Error::new(
                Code::SchemaChanged,
                "the key has other columns than the table's",
            ));
        }
        let mut conditions = Vec::new();
        for (&at, value) in self.shape.key.iter().zip(values) {
            match self.shape.columns.get(at).map(|column| &column.from) {
                Some(ColumnSource::Physical(name)) => {
                    let param =
                        self.key_params(std::slice::from_ref(name), std::iter::once(*value))?;
                    conditions.push(format!("{} = {}", quoted(name), param.join("")));
                }
                Some(ColumnSource::Joined(parts)) => conditions.push(self.joined_is(parts, value)?),
                Some(_) | None => {
                    return Err(Error::new(
                        Code::SchemaChanged,
                        "the key's columns are not the table's",
                    ));
                }
            }
        }
        Ok(conditions.join(" AND "))
    }

    /// Fields joined by `|` equal a text: field by field, so that an index serves, where the text has as many parts as
    /// there are fields (then no field holds a `|`); else by the joined text.
    fn joined_is(&mut self, parts: &[usize], value: &str) -> Result<String> {
        let pieces: Vec<&str> = value.split('|').collect();
        let split = pieces.len() == parts.len();
        let mut conditions = Vec::new();
        let mut joined = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let from = self.shape.columns.get(*part).map(|column| &column.from);
            match from {
                Some(ColumnSource::Constant(text)) => {
                    let text = self.param(Value::Text(text.clone()));
                    if split {
                        let piece = pieces.get(at).copied().unwrap_or_default().to_owned();
                        let piece = self.param(Value::Text(piece));
                        conditions.push(format!("{text} = {piece}"));
                    }
                    joined.push(text);
                }
                Some(ColumnSource::Physical(name)) => {
                    if split {
                        let piece = pieces.get(at).copied().unwrap_or_default();
                        let param =
                            self.key_params(std::slice::from_ref(name), std::iter::once(piece))?;
                        conditions.push(format!("{} = {}", quoted(name), param.join("")));
                    }
                    joined.push(format!("CAST({} AS TEXT)", quoted(name)));
                }
                _ => {
                    return Err(Error::new(Code::SchemaChanged, "a key field is not in the table"));
                }
            }
        }
        if split {
            return Ok(conditions.join(" AND "));
        }
        let whole = self.param(Value::Text(value.to_owned()));
        Ok(format!("{} = {whole}", joined.join(" || '|' || ")))
    }

    fn run(
        self,
        connection: &Connection,
        plan: &ReadPlan,
        page: &mut Assembler<'_>,
        limit: Option<usize>,
    ) -> Result<bool> {
        let sql = self.sql(plan, limit);
        let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
        let mut rows = statement.query(params_from_iter(self.params.iter())).map_err(fault)?;
        let types = self.types(plan);
        let first = plan.selected.len();
        while !page.is_full() {
            let Some(row) = rows.next().map_err(fault)? else { return Ok(true) };
            let stamp = stamp_of(row, first)?;
            let below: bool =
                row.get::<_, Option<bool>>(first + 1).map_err(fault)?.unwrap_or(false);
            page.row(stamp, below, |at, out| {
                let cell = row.get_ref(at).map_err(|_| "unreadable".to_owned())?;
                let (name, wanted) = types.get(at).ok_or_else(|| "unreadable".to_owned())?;
                cell::write(out, cell, *wanted).map_err(|why| format!("column {name}: {why}"))
            })?;
        }
        Ok(rows.next().map_err(fault)?.is_none())
    }

    fn sql(&self, plan: &ReadPlan, limit: Option<usize>) -> String {
        let mut sql = "SELECT ".to_owned();
        for &at in &plan.selected {
            let name = self.found.columns.get(at).map_or("", |column| column.name.as_str());
            let _ = write!(sql, "{}, ", quoted(name));
        }
        let stamp =
            self.shape.stamp.as_ref().map_or("NULL".to_owned(), |stamp| quoted(&stamp.column));
        let _ = write!(sql, "{stamp}, {} FROM {}", self.below, quoted(&self.shape.physical.1));
        if !self.conditions.is_empty() {
            let _ = write!(sql, " WHERE {}", self.conditions.join(" AND "));
        }
        let _ = write!(sql, " ORDER BY {}", self.order.join(", "));
        if let Some(limit) = limit {
            let _ = write!(sql, " LIMIT {}", limit.saturating_add(1).min(1 << 40));
        }
        sql
    }

    /// Name and type of each selected column: the declared type where the configuration has one.
    fn types(&self, plan: &ReadPlan) -> Vec<(String, TypeName)> {
        let of = |at: &usize| {
            let column = self.found.columns.get(*at)?;
            let wire = self.shape.columns.iter().find(
                |wire| matches!(&wire.from, ColumnSource::Physical(name) if *name == column.name),
            );
            Some((column.name.clone(), wire.map_or(column.type_name, |wire| wire.type_name)))
        };
        plan.selected.iter().filter_map(of).collect()
    }
}

impl Dialect for Query<'_> {
    fn bind(&mut self, literal: &Literal, _column: Option<&str>) -> Result<String> {
        // The column's affinity turns the value into what the column holds.
        let value = match literal {
            Literal::Text(text) => Value::Text(text.clone()),
            Literal::Number(text) => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => Value::Integer(number),
                (_, Ok(number)) => Value::Real(number),
                _ => {
                    return Err(Error::new(
                        Code::FilterRefused,
                        "a number that SQLite cannot hold",
                    ));
                }
            },
        };
        Ok(self.param(value))
    }

    fn like(&mut self, column: &str, pattern: &str) -> String {
        format!("{} LIKE {}", quoted(column), self.param(Value::Text(pattern.to_owned())))
    }
}

fn key_value(column_type: ColumnType, text: &str) -> Result<Value> {
    let unfit = || Error::new(Code::SchemaChanged, "a key that does not fit its column's type");
    Ok(match column_type {
        ColumnType::Long | ColumnType::Integer => {
            Value::Integer(text.parse().map_err(|_| unfit())?)
        }
        ColumnType::Boolean => Value::Integer(i64::from(text == "true")),
        ColumnType::Base64 => Value::Blob(STANDARD.decode(text).map_err(|_| unfit())?),
        _ => Value::Text(text.to_owned()),
    })
}

fn stamp_of(row: &Row<'_>, at: usize) -> Result<Option<Watermark>> {
    Ok(match row.get_ref(at).map_err(fault)? {
        ValueRef::Text(text) if text.len() <= 64 => {
            std::str::from_utf8(text).ok().map(|text| Watermark(text.to_owned()))
        }
        ValueRef::Integer(number) => Some(Watermark(number.to_string())),
        _ => None,
    })
}

/// Rows of a table, counted.
pub(super) fn row_count(connection: &Connection, shape: &TableShape) -> Result<Option<u64>> {
    let sql = format!("SELECT count(*) FROM {}", quoted(&shape.physical.1));
    let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).map_err(fault)?;
    Ok(u64::try_from(count).ok())
}

/// Pre-flight of one table.
pub(super) fn findings(
    connection: &Connection,
    shape: &TableShape,
    found: &Found,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let mut tell = |code: Option<Code>, concern: Option<Concern>, words: String| {
        findings.push(Finding { table: Some(shape.wire.clone()), code, words, concern });
    };
    let table = quoted(&shape.physical.1);
    let exists = |sql: &str| -> Result<bool> {
        connection.prepare(sql).and_then(|mut statement| statement.exists([])).map_err(fault)
    };
    for name in &shape.page_key {
        if found.column(name).is_none_or(|column| column.nullable)
            && exists(&format!("SELECT 1 FROM {table} WHERE {} IS NULL LIMIT 1", quoted(name)))?
        {
            let words = format!("rows with NULL in key column {name} cannot travel");
            tell(Some(Code::KeyIsNull), None, words);
        }
    }
    if found.primary != shape.page_key && !super::super::plan::is_unique(found, &shape.page_key) {
        let key: Vec<_> = shape.page_key.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "SELECT 1 FROM {table} GROUP BY {} HAVING count(*) > 1 LIMIT 1",
            key.join(", ")
        );
        if exists(&sql)? {
            let words = format!("rows share the key {}", shape.page_key.join(", "));
            tell(Some(Code::KeyNotUnique), None, words);
        }
    }
    for (concern, words) in of_stamp(connection, shape)? {
        tell(None, concern, words);
    }
    Ok(findings)
}

/// What is to say of a table's stamp, or of none.
fn of_stamp(connection: &Connection, shape: &TableShape) -> Result<Vec<(Option<Concern>, String)>> {
    let Some(stamp @ StampShape { column, .. }) = &shape.stamp else {
        let words = "no stamp column: changes are found by complete scans".to_owned();
        return Ok(vec![(Some(Concern::NoStamp), words)]);
    };
    let (table, name) = (quoted(&shape.physical.1), quoted(column));
    let sql = format!(
        "EXPLAIN QUERY PLAN SELECT {name} FROM {table} WHERE {name} >= '' ORDER BY {name} LIMIT 1"
    );
    let mut statement = connection.prepare(&sql).map_err(fault)?;
    let plan: rusqlite::Result<Vec<String>> =
        statement.query_map([], |row| row.get(3)).map_err(fault)?.collect();
    let mut about = if plan.map_err(fault)?.iter().any(|step| step.contains("INDEX")) {
        vec![(None, format!("stamp column {column} has an index"))]
    } else {
        let words = format!("stamp column {column} has no index: each cycle reads the whole table");
        vec![(Some(Concern::NoStampIndex(column.clone())), words)]
    };
    let apart = stamp::apart(&name, stamp::known(connection, shape, stamp)?);
    let sql = format!("SELECT 1 FROM {table} WHERE {apart} LIMIT 1");
    if connection.prepare(&sql).and_then(|mut any| any.exists([])).map_err(fault)? {
        let words = format!(
            "rows with NULL in {column}, or with what is no such stamp, are compared at each key scan"
        );
        about.push((Some(Concern::StampNull(column.clone())), words));
    }
    Ok(about)
}
