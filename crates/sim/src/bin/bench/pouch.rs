//! Pouch: table messages of the documented contract, made by the generated messages alone.
//!
//! Promises: every message has rows of its own keys; what differs between two messages is written over digits of the
//! first, so that making one costs next to nothing beside sending it.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use protocol::proto::totvs::{
    Table,
    table::{
        RowColumn, Schema, TableRow,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};

/// Rows of a message.
pub(crate) const ROWS: u64 = 200;
/// Keys have ten digits, all of them.
const FIRST_KEY: u64 = 1_000_000_000;

/// Names, types, and values of the first row.
const COLUMNS: [(&str, &str, &str); 23] = [
    ("id", "long", ""),
    ("codcoligada", "integer", "1"),
    ("codfilial", "integer", "12"),
    ("codtipo", "string", "2.1.17"),
    ("numero", "string", "000123456"),
    ("serie", "string", "NF3"),
    ("descricao", "string", "Item de movimento 481 do deposito central"),
    (
        "historico",
        "string",
        "Lancamento automatico do dia 17, conferido pela contabilidade geral 01",
    ),
    ("codusuario", "string", "usuario42"),
    ("status", "string", "A"),
    ("codcliente", "string", "C012345"),
    ("valor1", "decimal", "812.44"),
    ("valor2", "decimal", "93.71"),
    ("valor3", "decimal", "17.3391"),
    ("desconto", "decimal", "15"),
    ("juros", "decimal", "0"),
    ("emissao", "date", "2024-05-17"),
    ("vencimento", "date", "2024-06-17"),
    ("baixa", "date", "2024-07-17"),
    ("criado", "timestamp", "2024-01-04T11:22:33"),
    ("ativo", "boolean", "true"),
    ("hash", "string", "9e107d9d372bb6826bd81d3542a419d6"),
    ("changed_at", "timestamptz", "2026-01-04T11:22:33.123456Z"),
];

/// Messages of one stream and table.
pub(crate) struct Pouch {
    /// A message without batch and number, which follow it.
    first: Bytes,
    /// Where the digits of its keys are.
    keys: Vec<usize>,
}

impl Pouch {
    pub(crate) fn new(erp: &str, table: &str) -> Self {
        let row = |number: u64| {
            let key = (FIRST_KEY + number).to_string();
            let cell = |(name, _, value): &(&str, &str, &str)| {
                let value = if value.is_empty() { key.clone() } else { (*value).to_owned() };
                RowColumn { name: (*name).into(), value }
            };
            TableRow { columns: COLUMNS.iter().map(cell).collect() }
        };
        let column = |(name, kind, _): &(&str, &str, &str)| SchemaColumn {
            name: (*name).into(),
            r#type: (*kind).into(),
        };
        let table = Table {
            table_name: table.into(),
            erp: erp.into(),
            rows: (0..ROWS).map(row).collect(),
            schema: Some(Schema {
                flexible: true,
                export_data: true,
                columns: COLUMNS.iter().map(column).collect(),
                primary_key: Some(SchemaPrimaryKey {
                    name: table.into(),
                    columns: vec!["id".into()],
                }),
            }),
            batch_id: 0,
            message_number: 0,
            record_count: i32::try_from(ROWS).unwrap_or_default(),
            is_base_load: false,
        };
        let first = table.encode_to_vec();
        let keys = (0..ROWS).filter_map(|number| {
            let digits = (FIRST_KEY + number).to_string();
            first.windows(digits.len()).position(|bytes| bytes == digits.as_bytes())
        });
        let keys = keys.collect();
        Self { first: first.into(), keys }
    }

    /// The message of those numbers, with the keys that follow `taken`.
    pub(crate) fn message(&self, (batch, number): (i64, i32), taken: u64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.first.len() + 32);
        bytes.put_slice(&self.first);
        for (key, at) in (FIRST_KEY + taken..).zip(&self.keys) {
            let digits = key.to_string();
            if let Some(place) = bytes.get_mut(*at..at + digits.len()) {
                place.copy_from_slice(digits.as_bytes());
            }
        }
        encode_key(6, WireType::Varint, &mut bytes);
        encode_varint(batch.cast_unsigned(), &mut bytes);
        encode_key(7, WireType::Varint, &mut bytes);
        encode_varint(u64::from(number.cast_unsigned()), &mut bytes);
        bytes.freeze()
    }

    /// Text of values in a row.
    pub(crate) fn row_text() -> usize {
        COLUMNS.iter().map(|(_, _, value)| value.len()).sum::<usize>() + 10
    }
}
