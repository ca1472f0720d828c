//! Exchange: lists of entities as files, what one would change, and what to say of a filter.
//!
//! Promises: what is written reads back alike; the difference between what is shared and what a file wants is complete
//! before anything is changed.
//! Never: changes anything, reads a clock.

use std::{collections::BTreeSet, fmt, str::FromStr};

use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use protocol::{
    Code, Error, Result,
    filter::{Comparison, Expr, Filter, Literal, Operand},
    names::TableName,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::catalog::{At, Entity};

/// The platform works with at most this many years back (`contracts.md` 4.1).
pub const YEARS: i64 = 2;

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `[[table]]` with `name`, `filter`, `custom`.
    Toml,
    /// A head line `table,filter,custom`, then a line per table.
    Csv,
}

impl FromStr for Format {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "toml" => Ok(Self::Toml),
            "csv" => Ok(Self::Csv),
            _ => Err(Error::new(Code::BadRequest, "a list of tables is toml or csv")),
        }
    }
}

/// A table of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    #[schema(value_type = String)]
    pub table: TableName,
    pub filter: Option<String>,
    pub is_custom: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    table: Vec<Row>,
}

/// A table as either format has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(alias = "table")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    #[serde(default)]
    custom: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    table: String,
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    custom: Option<bool>,
}

/// Writes a list.
///
/// # Errors
/// `INTERNAL` where the library cannot.
pub fn write(list: &[Listed], format: Format) -> Result<String> {
    let failed = |cause: &dyn fmt::Display| Error::new(Code::Internal, cause.to_string());
    match format {
        Format::Toml => {
            let row = |listed: &Listed| Row {
                name: listed.table.to_string(),
                filter: listed.filter.clone(),
                custom: listed.is_custom,
            };
            let tables = Tables { table: list.iter().map(row).collect() };
            toml::to_string(&tables).map_err(|cause| failed(&cause))
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["table", "filter", "custom"]).map_err(|cause| failed(&cause))?;
            for listed in list {
                let custom = if listed.is_custom { "true" } else { "false" };
                let filter = listed.filter.as_deref().unwrap_or_default();
                let line = [listed.table.as_str(), filter, custom];
                writer.write_record(line).map_err(|cause| failed(&cause))?;
            }
            let bytes = writer.into_inner().map_err(|cause| failed(&cause))?;
            String::from_utf8(bytes).map_err(|cause| failed(&cause))
        }
    }
}

/// A list that cannot be read, in the words of what read it.
fn bad(cause: &dyn fmt::Display) -> Error {
    Error::new(Code::BadRequest, cause.to_string())
}

/// Reads a list; an empty filter is none.
///
/// # Errors
/// `BAD_REQUEST` where it is malformed or names a table twice, `BAD_NAME`.
pub fn read(text: &str, format: Format) -> Result<Vec<Listed>> {
    // Spreadsheets put a mark before the first letter.
    let text = text.trim_start_matches('\u{feff}');
    let rows: Vec<Row> = match format {
        Format::Toml => toml::from_str::<Tables>(text).map_err(|cause| bad(&cause))?.table,
        Format::Csv => read_csv(text)?,
    };
    let mut seen = BTreeSet::new();
    let mut list = Vec::with_capacity(rows.len());
    for (at, Row { name, filter, custom }) in rows.into_iter().enumerate() {
        let entry = |error: Error| error.at(format!("table {} of the list", at + 1));
        let table: TableName = name.parse().map_err(entry)?;
        if !seen.insert(table.clone()) {
            return Err(bad(&format!("table {table} stands twice in the list")));
        }
        let filter = filter.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        list.push(Listed { table, filter, is_custom: custom });
    }
    Ok(list)
}

/// The lines of a CSV text, separated by commas or, as spreadsheets in Portuguese write it, by semicolons.
fn read_csv(text: &str) -> Result<Vec<Row>> {
    let head = text.lines().next().unwrap_or_default();
    let delimiter = if head.contains(';') && !head.contains(',') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let names = reader.headers().map_err(|cause| bad(&cause))?;
    let odd = names.iter().find(|name| !["table", "filter", "custom"].contains(name));
    if odd.is_some() || !names.iter().any(|name| name == "table") {
        let found = if head.trim().is_empty() { "nothing" } else { head.trim() };
        let words = format!(
            "line 1 names the columns: table, and filter and custom if wanted; it holds {found:?}"
        );
        return Err(Error::new(Code::BadRequest, words));
    }
    // The library takes the end of the text for the end of the field: half a file would pass for a whole one.
    if text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err(Error::new(Code::BadRequest, "a quotation mark is opened and never closed"));
    }
    let lines = reader.deserialize::<Line>();
    lines
        .map(|line| {
            let Line { table, filter, custom } = line.map_err(|cause| bad(&cause))?;
            Ok(Row { name: table, filter, custom: custom.unwrap_or(false) })
        })
        .collect()
}

/// One difference between what is shared and what a list wants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(tag = "change", rename_all = "camelCase")]
pub enum Change {
    /// Is not shared, and shall be.
    Add(Listed),
    /// Is shared otherwise.
    Alter {
        /// As it is shared.
        before: Listed,
        /// As it shall be.
        after: Listed,
    },
    /// Is shared, and shall not be; its staged rows stay.
    Withdraw(Listed),
}

/// What must change for `shared` to become `wanted`; what `wanted` does not name stays unless `withdraw`.
#[must_use]
pub fn difference(shared: &[Listed], wanted: &[Listed], withdraw: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for new in wanted {
        match shared.iter().find(|old| old.table == new.table) {
            None => changes.push(Change::Add(new.clone())),
            Some(old) if old.filter == new.filter && old.is_custom == new.is_custom => {}
            Some(old) => {
                changes.push(Change::Alter { before: old.clone(), after: new.clone() });
            }
        }
    }
    let gone = |old: &&Listed| withdraw && !wanted.iter().any(|new| new.table == old.table);
    changes.extend(shared.iter().filter(gone).cloned().map(Change::Withdraw));
    changes
}

impl From<&Entity> for Listed {
    fn from(entity: &Entity) -> Self {
        Self {
            table: entity.table.clone(),
            filter: entity.filter.clone(),
            is_custom: entity.is_custom,
        }
    }
}

/// What a person should know of a table's filter before its base load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The base load takes every row.
    NoFilter,
    /// The filter names a day, and lets rows through however old they are.
    NoLowerBound,
    /// The filter lets rows from this day on through, more than [`YEARS`] ago.
    ReachesBack(Date),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFilter => f.write_str("no filter: the base load takes every row of the table"),
            Self::NoLowerBound => f.write_str(
                "the filter names a day but none that rows must not be older than; the base load takes the oldest too",
            ),
            Self::ReachesBack(from) => write!(
                f,
                "the filter reaches back to {from}, more than {YEARS} years; the base load takes all of it"
            ),
        }
    }
}

/// `None` where there is nothing to say. A filter that names no date is taken as it is.
#[must_use]
pub fn warning(filter: Option<&Filter>, now: At) -> Option<Warning> {
    let Some(filter) = filter else { return Some(Warning::NoFilter) };
    let today = TimeZone::UTC.to_datetime(Timestamp::from_microsecond(now.0).ok()?).date();
    let limit = today.checked_sub(Span::new().years(YEARS)).ok()?;
    match earliest(filter.root()) {
        Some(from) => (from < limit).then_some(Warning::ReachesBack(from)),
        None => names_a_day(filter.root()).then_some(Warning::NoLowerBound),
    }
}

/// Whether any literal of the predicate is a day.
fn names_a_day(expr: &Expr) -> bool {
    let is_day =
        |operand: &Operand| matches!(operand, Operand::Literal(literal) if day(literal).is_some());
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(names_a_day),
        Expr::Not(inner) => names_a_day(inner),
        Expr::Compare { left, right, .. } => is_day(left) || is_day(right),
        Expr::Between { low, high, .. } => is_day(low) || is_day(high),
        Expr::In { list, .. } => list.iter().any(|literal| day(literal).is_some()),
        _ => false,
    }
}

/// The day before which the predicate lets nothing through, where it says so.
fn earliest(expr: &Expr) -> Option<Date> {
    match expr {
        Expr::And(parts) => parts.iter().filter_map(earliest).max(),
        Expr::Or(parts) => {
            parts.iter().map(earliest).collect::<Option<Vec<_>>>()?.into_iter().min()
        }
        Expr::Compare { left: Operand::Column(_), op, right: Operand::Literal(literal) } => {
            let bounds =
                matches!(op, Comparison::Greater | Comparison::GreaterOrEqual | Comparison::Equal);
            day(literal).filter(|_| bounds)
        }
        Expr::Compare { left: Operand::Literal(literal), op, right: Operand::Column(_) } => {
            let bounds =
                matches!(op, Comparison::Less | Comparison::LessOrEqual | Comparison::Equal);
            day(literal).filter(|_| bounds)
        }
        Expr::Between { negated: false, low: Operand::Literal(low), .. } => day(low),
        Expr::In { negated: false, list, .. } => {
            list.iter().map(day).collect::<Option<Vec<_>>>()?.into_iter().min()
        }
        _ => None,
    }
}

/// The day of a text such as `2024-01-31`, `2024-01-31 12:00` or `20240131`.
fn day(literal: &Literal) -> Option<Date> {
    let Literal::Text(text) = literal else { return None };
    let text = text.trim();
    let date = |year: &str, month: &str, day: &str| {
        Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
    };
    if text.len() == 8 && text.bytes().all(|sign| sign.is_ascii_digit()) {
        return date(text.get(..4)?, text.get(4..6)?, text.get(6..)?);
    }
    let head = text.get(..10)?;
    let mut parts = head.splitn(3, '-');
    date(parts.next()?, parts.next()?, parts.next()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(table: &str, filter: Option<&str>, is_custom: bool) -> Listed {
        Listed { table: table.parse().unwrap(), filter: filter.map(str::to_owned), is_custom }
    }

    fn said(filter: &str) -> Option<Warning> {
        let table = "T".parse().unwrap();
        let columns = ["A".parse().unwrap(), "B".parse().unwrap()];
        let filter = Filter::parse(filter, &table, &columns).unwrap();
        warning(Some(&filter), At::read("2026-11-25").unwrap())
    }

    #[test]
    fn a_filter_that_is_missing_or_reaches_back_over_two_years_is_warned_of() {
        assert!(warning(None, At(0)).is_some());
        for far in [
            "A > '2024-11-24'",
            "A >= '20200101'",
            "'2020-01-01 10:00' < A",
            "A BETWEEN '2001-01-01' AND '2026-01-01'",
            "A > '2026-01-01' OR A = '1999-12-31'",
            "A IN ('2026-01-01', '2012-05-05')",
            "A > '2020-01-01' AND B > 5",
            "A < '2026-01-01'",
            "A <> '2026-01-01'",
            "A > '2026-01-01' OR B = 1",
            "NOT A > '2001-01-01'",
        ] {
            assert!(said(far).is_some(), "{far}");
        }
        for near in [
            "A > '2024-11-25'",
            "A > 1000",
            "A > '2020-01-01' AND A > '2026-01-01'",
            "A < '2001-01-01' AND A > '2026-01-01'",
            "A > 1000 OR B = 1",
            "A = '99999999'",
        ] {
            assert!(said(near).is_none(), "{near}");
        }
    }

    #[test]
    fn a_list_is_read_as_people_and_spreadsheets_write_it_and_odd_ones_are_refused() {
        let csv = "\u{feff}table,filter,custom\r\nFLAN,\"FLAN.A > 'x,\"\"y'\",\r\n ZZZ ,,true\r\n";
        let expected = [listed("FLAN", Some("FLAN.A > 'x,\"y'"), false), listed("ZZZ", None, true)];
        assert_eq!(read(csv, Format::Csv).unwrap(), expected);
        let toml =
            "[[table]]\nname = 'FLAN'\nfilter = 'FLAN.A > 1'\n[[table]]\nname='ZZZ'\ncustom=true";
        assert_eq!(read(toml, Format::Toml).unwrap().len(), 2);
        assert_eq!(read("table\nFLAN\n", Format::Csv).unwrap(), [listed("FLAN", None, false)]);
        let of_a_spreadsheet =
            "table;filter;custom\r\nFLAN;\"FLAN.A > 'x,\"\"y'\";\r\nZZZ;;true\r\n";
        assert_eq!(read(of_a_spreadsheet, Format::Csv).unwrap(), expected);
        for (text, format) in [
            ("table,filter\nA,1,2\n", Format::Csv),
            ("name,filter\nA,\n", Format::Csv),
            ("table,custom\nA,perhaps\n", Format::Csv),
            ("", Format::Csv),
            ("filter\nx\n", Format::Csv),
            ("table\nCUSTOMER\n\"CUST\n", Format::Csv),
            ("table\nA\na\n", Format::Csv),
            ("[[table]]\nnam='A'", Format::Toml),
            ("[[table]]\nname='A'\nextra=1", Format::Toml),
            ("[[table]", Format::Toml),
        ] {
            assert_eq!(read(text, format).unwrap_err().code, Code::BadRequest, "{text}");
        }
        assert_eq!(read("table\n\"\"\n", Format::Csv).unwrap_err().code, Code::BadName);
    }

    #[test]
    fn the_difference_adds_alters_and_withdraws_only_when_told() {
        let shared = [listed("A", None, false), listed("B", Some("x"), false)];
        let wanted = [listed("a", None, false), listed("C", None, true), listed("B", None, false)];
        let added = Change::Add(wanted[1].clone());
        assert_eq!(difference(&shared, &wanted[..2], false), std::slice::from_ref(&added));
        let withdrawn = Change::Withdraw(shared[1].clone());
        assert_eq!(difference(&shared, &wanted[..2], true), [added, withdrawn]);
        let altered = Change::Alter { before: shared[1].clone(), after: wanted[2].clone() };
        assert_eq!(difference(&shared, &wanted, true)[1], altered);
        assert!(difference(&shared, &shared, true).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_alike(
            filters in proptest::collection::vec((proptest::option::of("[ -~]{1,30}"), any::<bool>()), 0..8)
        ) {
            let list: Vec<Listed> = filters
                .into_iter()
                .enumerate()
                .map(|(at, (filter, custom))| {
                    let filter = filter.map(|f| f.trim().to_owned()).filter(|f| !f.is_empty());
                    listed(&format!("T{at}"), filter.as_deref(), custom)
                })
                .collect();
            for format in [Format::Toml, Format::Csv] {
                let text = write(&list, format).unwrap();
                prop_assert_eq!(&read(&text, format).unwrap(), &list, "{}", text);
            }
        }
    }
}
