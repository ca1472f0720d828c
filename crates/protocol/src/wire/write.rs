//! Writer of table messages.
//!
//! Promises: never makes a message above the sender's limits; the caller learns when a row does not fit.
//! Never: numbers a message before it is finished.

use bytes::Bytes;
use prost::{Message as _, encoding::encode_varint};

use crate::{
    ids::{BatchId, MessageNumber},
    limits,
    names::{DELETED, ErpName, TableName},
    proto::totvs::table::Schema,
};

/// Header fields after the rows (batch, number, count, base-load mark): tags and varints at their longest
/// (a negative int32 takes ten bytes).
const TAIL_BYTES: usize = 4 + 10 + 10 + 10 + 1;

/// What became of a row given to [`MessageWriter::push`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// The row is in the message.
    Taken,
    /// The row is not in the message: finish it first, then push the row again.
    Full,
    /// The row alone is above the limit and can never be sent (F36).
    TooLarge,
}

/// Gathers rows of one table into messages of at most 200 rows and 5,000,000 bytes.
pub struct MessageWriter {
    /// `tableName` and `erp`, encoded.
    head: Vec<u8>,
    /// `schema`, encoded with its tag.
    schema: Vec<u8>,
    /// `RowColumn.name` of each column, encoded.
    names: Vec<Vec<u8>>,
    deleted: Vec<u8>,
    rows: Vec<u8>,
    scratch: Vec<u8>,
    count: usize,
    max_rows: usize,
}

impl MessageWriter {
    #[must_use]
    pub fn new(table: &TableName, erp: &ErpName, schema: &Schema) -> Self {
        let mut head = Vec::new();
        push_field(&mut head, 1, table.as_str().as_bytes());
        push_field(&mut head, 2, erp.as_str().as_bytes());
        let mut encoded = Vec::new();
        push_field(&mut encoded, 4, &schema.encode_to_vec());
        let name = |name: &str| {
            let mut field = Vec::new();
            push_field(&mut field, 1, name.as_bytes());
            field
        };
        let names: Vec<_> = schema.columns.iter().map(|column| name(&column.name)).collect();
        let cells = names.len().max(1) + 1;
        Self {
            head,
            schema: encoded,
            names,
            deleted: name(DELETED),
            rows: Vec::new(),
            scratch: Vec::new(),
            count: 0,
            max_rows: limits::SENDER_MESSAGE_ROWS.min(limits::MESSAGE_CELLS / cells).max(1),
        }
    }

    /// Adds a row; `cell(i)` is the canonical text of schema column `i`, `None` where NULL.
    pub fn push<'a>(&mut self, cell: impl Fn(usize) -> Option<&'a str>, deleted: bool) -> Pushed {
        if self.count >= self.max_rows {
            return Pushed::Full;
        }
        self.scratch.clear();
        for (at, name) in self.names.iter().enumerate() {
            if let Some(value) = cell(at) {
                push_column(&mut self.scratch, name, value);
            }
        }
        if deleted {
            push_column(&mut self.scratch, &self.deleted, "true");
        }
        let fixed = self.head.len() + self.schema.len() + TAIL_BYTES;
        let row = 1 + varint_len(self.scratch.len()) + self.scratch.len();
        if fixed + row > limits::SENDER_MESSAGE_BYTES {
            return Pushed::TooLarge;
        }
        if fixed + self.rows.len() + row > limits::SENDER_MESSAGE_BYTES {
            return Pushed::Full;
        }
        push_field(&mut self.rows, 3, &self.scratch);
        self.count += 1;
        Pushed::Taken
    }

    /// Rows gathered so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.count
    }

    /// Encoded bytes of the message if it were finished now, at most.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.head.len() + self.schema.len() + TAIL_BYTES + self.rows.len()
    }

    /// The encoded message; the writer is empty again.
    pub fn finish(&mut self, batch: BatchId, number: MessageNumber, base_load: bool) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend_from_slice(&self.head);
        out.append(&mut self.rows);
        out.extend_from_slice(&self.schema);
        push_number(&mut out, 6, batch.0);
        push_number(&mut out, 7, i64::from(number.0));
        push_number(&mut out, 8, i64::try_from(self.count).unwrap_or(i64::MAX));
        push_number(&mut out, 9, i64::from(base_load));
        self.count = 0;
        Bytes::from(out)
    }
}

fn push_column(out: &mut Vec<u8>, name: &[u8], value: &str) {
    // An empty string is proto3's default: it is present in the row by its name alone.
    let value_len = if value.is_empty() { 0 } else { 1 + varint_len(value.len()) + value.len() };
    out.push(0x0a);
    encode_varint((name.len() + value_len) as u64, out);
    out.extend_from_slice(name);
    if !value.is_empty() {
        push_field(out, 2, value.as_bytes());
    }
}

fn push_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Zero is proto3's default and is left out.
fn push_number(out: &mut Vec<u8>, number: u8, value: i64) {
    if value != 0 {
        out.push(number << 3);
        encode_varint(value.cast_unsigned(), out);
    }
}

fn varint_len(value: usize) -> usize {
    prost::encoding::encoded_len_varint(value as u64)
}
