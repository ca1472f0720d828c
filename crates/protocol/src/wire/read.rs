//! Borrowed reader of table messages, with the limits of the pre-scan (F64).
//!
//! Promises: one pass checks structure, UTF-8, rows, cells and name lengths, and keeps where each cell lies; another
//! finds each cell's column of the schema. Whoever walks the rows afterwards reads no byte twice.
//! Never: interprets a value, copies one.

use std::collections::HashMap;

use prost::encoding::decode_varint;

use crate::{
    error::{Code, Error, Result},
    limits,
};

/// How far a cell's column is looked for behind the one before: a bound on what hostile names cost.
const AHEAD: usize = 32;

/// A message that passed the pre-scan.
#[derive(Debug, Default)]
pub struct TableView<'a> {
    pub table_name: &'a str,
    pub erp: &'a str,
    pub schema: SchemaView<'a>,
    pub batch_id: i64,
    pub message_number: i32,
    pub record_count: i32,
    pub is_base_load: bool,
    cells: Vec<Cell<'a>>,
    /// Where in `cells` each row ends.
    rows: Vec<usize>,
}

/// One cell of a row, as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell<'a> {
    pub name: &'a str,
    pub value: &'a str,
    /// Which column of the schema has its name in any case; `None` = none has.
    pub column: Option<u16>,
}

/// The message's schema.
#[derive(Debug, Default)]
pub struct SchemaView<'a> {
    pub flexible: bool,
    pub export_data: bool,
    /// (name, type name)
    pub columns: Vec<(&'a str, &'a str)>,
    pub key_name: &'a str,
    pub key: Vec<&'a str>,
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Skipped,
}

impl<'a> TableView<'a> {
    /// Reads and checks a whole message.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` above a limit, `INVALID_ARGUMENT` where the bytes are not a `Table`.
    pub fn scan(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > limits::MESSAGE_BYTES {
            return Err(too_large(
                format!("message has {} bytes", bytes.len()),
                limits::MESSAGE_BYTES,
            ));
        }
        let mut view = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, field) = next_field(&mut rest, "Table")?;
            match (number, field) {
                (1, Field::Bytes(bytes)) => view.table_name = text(bytes, "tableName")?,
                (2, Field::Bytes(bytes)) => view.erp = text(bytes, "erp")?,
                (3, Field::Bytes(bytes)) => view.take_row(bytes)?,
                (4, Field::Bytes(bytes)) => view.schema.merge(bytes)?,
                (6, Field::Number(value)) => view.batch_id = value.cast_signed(),
                (7, Field::Number(value)) => view.message_number = int32(value),
                (8, Field::Number(value)) => view.record_count = int32(value),
                (9, Field::Number(value)) => view.is_base_load = value != 0,
                (1..=4 | 6..=9, _) => {
                    return Err(malformed(format!(
                        "field {number} of Table has the wrong wire type"
                    )));
                }
                _ => {}
            }
        }
        view.find_columns();
        Ok(view)
    }

    /// Rows name columns in the schema's order and leave out those that are NULL, so looking on from the last one
    /// found nearly always finds the next at once; any other name is looked up.
    fn find_columns(&mut self) {
        let columns = &self.schema.columns;
        let mut all: Option<HashMap<String, usize>> = None;
        let mut from = 0;
        for cell in &mut self.cells {
            let mut ahead = columns.iter().skip(from).take(AHEAD);
            let steps = ahead.position(|(name, _)| name.eq_ignore_ascii_case(cell.name));
            let found = steps.map(|steps| from + steps).or_else(|| {
                // The first of equal names counts; there are none in a schema that is taken.
                let numbered = || columns.iter().enumerate().rev();
                let folded = || numbered().map(|(at, (name, _))| (name.to_ascii_lowercase(), at));
                let all = all.get_or_insert_with(|| folded().collect());
                all.get(&cell.name.to_ascii_lowercase()).copied()
            });
            cell.column = found.and_then(|at| u16::try_from(at).ok());
            from = found.map_or(from, |at| at + 1);
        }
    }

    fn take_row(&mut self, row: &'a [u8]) -> Result<()> {
        if self.rows.len() >= limits::MESSAGE_ROWS {
            return Err(too_large("message has more rows".to_owned(), limits::MESSAGE_ROWS));
        }
        let mut rest = row;
        while !rest.is_empty() {
            match next_field(&mut rest, "TableRow")? {
                (1, Field::Bytes(column)) => self.take_cell(column)?,
                (1, _) => {
                    return Err(malformed(
                        "a field of TableRow has the wrong wire type".to_owned(),
                    ));
                }
                _ => {}
            }
        }
        self.rows.push(self.cells.len());
        Ok(())
    }

    fn take_cell(&mut self, column: &'a [u8]) -> Result<()> {
        if self.cells.len() >= limits::MESSAGE_CELLS {
            return Err(too_large("message has more cells".to_owned(), limits::MESSAGE_CELLS));
        }
        let (name, value) = read_column(column)?;
        check_name(name)?;
        self.cells.push(Cell { name, value, column: None });
        Ok(())
    }

    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn cell_count(&self) -> usize {
        self.cells.len()
    }

    /// Cells of each row, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[Cell<'a>]> {
        (0..self.rows.len()).map(|at| self.row(at))
    }

    /// Cells of row `at`; empty beyond the last.
    #[must_use]
    pub fn row(&self, at: usize) -> &[Cell<'a>] {
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.rows.get(before).copied());
        let span = begin.zip(self.rows.get(at).copied());
        span.and_then(|(begin, end)| self.cells.get(begin..end)).unwrap_or_default()
    }
}

impl<'a> SchemaView<'a> {
    /// Proto3 merges a message that comes twice.
    fn merge(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match next_field(&mut rest, "Schema")? {
                (1, Field::Number(value)) => self.flexible = value != 0,
                (2, Field::Number(value)) => self.export_data = value != 0,
                (3, Field::Bytes(column)) => {
                    let (name, type_name) = read_column(column)?;
                    check_name(name)?;
                    if type_name.len() > limits::TYPE_NAME_BYTES {
                        return Err(malformed("type name in schema is too long".to_owned()));
                    }
                    if self.columns.len() >= limits::TABLE_COLUMNS {
                        return Err(too_large(
                            "schema has more columns".to_owned(),
                            limits::TABLE_COLUMNS,
                        ));
                    }
                    self.columns.push((name, type_name));
                }
                (4, Field::Bytes(key)) => self.merge_key(key)?,
                (1..=4, _) => {
                    return Err(malformed("a field of Schema has the wrong wire type".to_owned()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn merge_key(&mut self, bytes: &'a [u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match next_field(&mut rest, "SchemaPrimaryKey")? {
                (1, Field::Bytes(name)) => self.key_name = text(name, "primaryKey.name")?,
                (2, Field::Bytes(column)) => {
                    if self.key.len() >= limits::KEY_COLUMNS {
                        return Err(too_large(
                            "primary key has more columns".to_owned(),
                            limits::KEY_COLUMNS,
                        ));
                    }
                    let name = text(column, "primaryKey.columns")?;
                    check_name(name)?;
                    self.key.push(name);
                }
                (1 | 2, _) => {
                    return Err(malformed(
                        "a field of SchemaPrimaryKey has the wrong wire type".to_owned(),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `RowColumn` and `SchemaColumn` have one shape: two strings.
fn read_column(bytes: &[u8]) -> Result<(&str, &str)> {
    if let Some((name, value)) = usual_column(bytes) {
        return Ok((text(name, "column name")?, text(value, "column value")?));
    }
    let (mut name, mut value) = ("", "");
    let mut rest = bytes;
    while !rest.is_empty() {
        match next_field(&mut rest, "column")? {
            (1, Field::Bytes(bytes)) => name = text(bytes, "column name")?,
            (2, Field::Bytes(bytes)) => value = text(bytes, "column value")?,
            (1 | 2, _) => {
                return Err(malformed("a field of a column has the wrong wire type".to_owned()));
            }
            _ => {}
        }
    }
    Ok((name, value))
}

/// Name and value where a column has the form that every writer gives it, both fields once, in order, below 128 bytes;
/// most of what a message costs is spent here.
fn usual_column(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const SHORT: u8 = 0x80;
    let (&[0x0a, length], rest) = bytes.split_first_chunk()? else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(length)).filter(|_| length < SHORT)?;
    let (&[0x12, length], value) = rest.split_first_chunk()? else { return None };
    (length < SHORT && usize::from(length) == value.len()).then_some((name, value))
}

#[inline]
fn next_field<'a>(rest: &mut &'a [u8], place: &str) -> Result<(u64, Field<'a>)> {
    let cut = |_| malformed(format!("{place} is cut short"));
    let tag = decode_varint(rest).map_err(cut)?;
    let number = tag >> 3;
    if number == 0 || number > 0x1fff_ffff {
        return Err(malformed(format!("{place} has an invalid field number")));
    }
    let field = match tag & 7 {
        0 => Field::Number(decode_varint(rest).map_err(cut)?),
        1 => skip(rest, 8, place)?,
        2 => {
            let length = decode_varint(rest).map_err(cut)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (bytes, tail) = rest
                .split_at_checked(length)
                .ok_or_else(|| malformed(format!("{place} is cut short")))?;
            *rest = tail;
            Field::Bytes(bytes)
        }
        5 => skip(rest, 4, place)?,
        other => return Err(malformed(format!("{place} uses wire type {other}"))),
    };
    Ok((number, field))
}

fn skip<'a>(rest: &mut &'a [u8], bytes: usize, place: &str) -> Result<Field<'a>> {
    let (_, tail) =
        rest.split_at_checked(bytes).ok_or_else(|| malformed(format!("{place} is cut short")))?;
    *rest = tail;
    Ok(Field::Skipped)
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| malformed(format!("{what} is not UTF-8")))
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        Err(malformed("a column has no name".to_owned()))
    } else if name.len() > limits::COLUMN_NAME_BYTES {
        Err(malformed(format!(
            "a column name has {} bytes, at most {} are allowed",
            name.len(),
            limits::COLUMN_NAME_BYTES
        )))
    } else {
        Ok(())
    }
}

/// Proto3 keeps the low 32 bits of an int32.
const fn int32(value: u64) -> i32 {
    value as u32 as i32
}

fn malformed(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

fn too_large(message: String, limit: usize) -> Error {
    Error::new(Code::MessageTooLarge, format!("{message}, the limit is {limit}"))
}
