//! Borrowed reader of table messages, with the limits of the pre-scan (F64).
//!
//! Promises: one pass checks structure, UTF-8, rows, cells and name lengths; nothing is stored but row offsets.
//! Never: interprets a value.

use prost::encoding::decode_varint;

use crate::{
    error::{Code, Error, Result},
    limits,
};

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
    rows: Vec<&'a [u8]>,
    cells: usize,
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
        Ok(view)
    }

    fn take_row(&mut self, row: &'a [u8]) -> Result<()> {
        if self.rows.len() >= limits::MESSAGE_ROWS {
            return Err(too_large("message has more rows".to_owned(), limits::MESSAGE_ROWS));
        }
        let mut rest = row;
        while !rest.is_empty() {
            if let (1, Field::Bytes(column)) = next_field(&mut rest, "TableRow")? {
                self.cells += 1;
                if self.cells > limits::MESSAGE_CELLS {
                    return Err(too_large(
                        "message has more cells".to_owned(),
                        limits::MESSAGE_CELLS,
                    ));
                }
                let (name, _) = read_column(column)?;
                check_name(name)?;
            }
        }
        self.rows.push(row);
        Ok(())
    }

    #[must_use]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn cell_count(&self) -> usize {
        self.cells
    }

    /// Cells of each row, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Cells<'a>> + '_ {
        self.rows.iter().map(|row| Cells { rest: row })
    }

    /// Cells of row `at`; empty beyond the last.
    #[must_use]
    pub fn row(&self, at: usize) -> Cells<'a> {
        Cells { rest: self.rows.get(at).copied().unwrap_or_default() }
    }
}

/// (column name, value) of one row, as sent.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Cells<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            // The scan has walked these bytes already, so an error cannot come; it would end the row.
            if let (1, Field::Bytes(column)) = next_field(&mut self.rest, "TableRow").ok()? {
                return read_column(column).ok();
            }
        }
        None
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
