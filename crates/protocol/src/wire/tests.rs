//! The writer and the reader against prost, and hostile bytes.

use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use super::*;
use crate::{
    error::Code,
    ids::{BatchId, MessageNumber},
    limits,
    proto::totvs::{
        Table,
        table::{
            RowColumn, Schema, TableRow,
            schema::{SchemaColumn, SchemaPrimaryKey},
        },
    },
};

fn schema(columns: usize) -> Schema {
    Schema {
        flexible: true,
        export_data: true,
        columns: (0..columns)
            .map(|at| SchemaColumn { name: format!("C{at}"), r#type: "string".into() })
            .collect(),
        primary_key: Some(SchemaPrimaryKey { name: "FLAN".into(), columns: vec!["C0".into()] }),
    }
}

fn writer(columns: usize) -> MessageWriter {
    MessageWriter::new(&"FLAN".parse().unwrap(), &"RM".parse().unwrap(), &schema(columns))
}

type Rows = Vec<(Vec<Option<String>>, bool)>;

fn rows(columns: usize) -> impl Strategy<Value = Rows> {
    vec((vec(option::of(".{0,12}"), columns..=columns), any::<bool>()), 0..20)
}

proptest! {
    #[test]
    fn what_the_writer_writes_prost_reads_and_the_view_reads_alike(rows in rows(4), batch: i64, number: i32, base: bool) {
        let mut writer = writer(4);
        for (cells, deleted) in &rows {
            prop_assert_eq!(writer.push(|at| cells[at].as_deref(), *deleted), Pushed::Taken);
        }
        let longest = writer.encoded_len();
        let bytes = writer.finish(BatchId(batch), MessageNumber(number), base);
        prop_assert!(bytes.len() <= longest);
        let table = Table::decode(bytes.clone()).unwrap();
        prop_assert_eq!(&table.table_name, "FLAN");
        prop_assert_eq!(table.batch_id, batch);
        prop_assert_eq!(table.message_number, number);
        prop_assert_eq!(table.record_count as usize, rows.len());
        prop_assert_eq!(table.is_base_load, base);
        prop_assert_eq!(table.schema.as_ref(), Some(&schema(4)));
        let expected: Vec<TableRow> = rows.iter().map(|(cells, deleted)| {
            let column = |name: String, value: &str| RowColumn { name, value: value.to_owned() };
            let mut columns: Vec<_> = cells.iter().enumerate()
                .filter_map(|(at, cell)| cell.as_ref().map(|value| column(format!("C{at}"), value))).collect();
            if *deleted { columns.push(column("DELETED".into(), "true")); }
            TableRow { columns }
        }).collect();
        prop_assert_eq!(&table.rows, &expected);
        let view = TableView::scan(&bytes).unwrap();
        prop_assert_eq!((view.batch_id, view.message_number, view.is_base_load), (batch, number, base));
        let seen: Vec<Vec<(&str, &str)>> = view.rows().map(|row| row.iter().map(|cell| (cell.name, cell.value)).collect()).collect();
        let wanted: Vec<Vec<(&str, &str)>> = expected.iter()
            .map(|row| row.columns.iter().map(|c| (c.name.as_str(), c.value.as_str())).collect()).collect();
        prop_assert_eq!(seen, wanted);
        for cell in view.rows().flatten() {
            let named = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case(cell.name);
            let wanted = view.schema.columns.iter().position(named);
            prop_assert_eq!(cell.column.map(usize::from), wanted);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic_and_accepted_only_where_prost_accepts(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(view) = TableView::scan(&bytes) {
            let table = Table::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(view.table_name, table.table_name);
            prop_assert_eq!(view.row_count(), table.rows.len());
        }
    }

    #[test]
    fn a_message_cut_anywhere_or_with_a_flipped_bit_never_panics(rows in rows(3), at: prop::sample::Index, bit in 0u8..8, cut: bool) {
        let mut writer = writer(3);
        for (cells, deleted) in &rows { writer.push(|at| cells[at].as_deref(), *deleted); }
        let mut bytes = writer.finish(BatchId(7), MessageNumber(1), false).to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at); } else { bytes[at] ^= 1 << bit; }
        if let Ok(view) = TableView::scan(&bytes) {
            let cells: usize = view.rows().map(<[_]>::len).sum();
            prop_assert_eq!(cells, view.cell_count());
        }
    }
}

#[test]
fn a_cells_column_is_found_in_any_order_and_case_and_the_first_of_equal_names_counts() {
    let column = |name: &str| RowColumn { name: name.into(), value: String::new() };
    let names = |row: &[&str]| TableRow { columns: row.iter().map(|name| column(name)).collect() };
    let named = |at: usize| format!("C{at}");
    let mut columns: Vec<SchemaColumn> =
        (0..100).map(|at| SchemaColumn { name: named(at), r#type: "string".into() }).collect();
    columns.push(SchemaColumn { name: "c7".into(), r#type: "string".into() });
    let schema = Some(Schema { columns, ..Schema::default() });
    let row = names(&["C0", "c99", "C3", "nowhere", "C4", "C7", "C98"]);
    let bytes = Table { rows: vec![row], schema, ..Table::default() }.encode_to_vec();
    let view = TableView::scan(&bytes).unwrap();
    let found: Vec<_> = view.row(0).iter().map(|cell| cell.column).collect();
    assert_eq!(found, [Some(0), Some(99), Some(3), None, Some(4), Some(7), Some(98)]);
    assert!(view.row(1).is_empty());
}

#[test]
fn a_message_is_full_at_200_rows_and_starts_again_when_finished() {
    let mut writer = writer(1);
    for _ in 0..limits::SENDER_MESSAGE_ROWS {
        assert_eq!(writer.push(|_| Some("x"), false), Pushed::Taken);
    }
    assert_eq!(writer.push(|_| Some("x"), false), Pushed::Full);
    writer.finish(BatchId(1), MessageNumber(1), false);
    assert_eq!(writer.rows(), 0);
    assert_eq!(writer.push(|_| Some("x"), false), Pushed::Taken);
}

#[test]
fn rows_are_cut_by_bytes_and_one_row_above_the_limit_is_told() {
    let mut writer = writer(1);
    let half = "x".repeat(limits::SENDER_MESSAGE_BYTES / 2);
    assert_eq!(writer.push(|_| Some(&half), false), Pushed::Taken);
    assert_eq!(writer.push(|_| Some(&half), false), Pushed::Full);
    let fixed = writer.encoded_len() - half.len();
    writer.finish(BatchId(1), MessageNumber(1), false);
    // F36: one byte above the limit, then one below it, then at it.
    for (bytes, expected) in [(2, Pushed::TooLarge), (0, Pushed::Taken), (1, Pushed::Taken)] {
        let row = "y".repeat(limits::SENDER_MESSAGE_BYTES - fixed - 1 + bytes);
        assert_eq!(writer.push(|_| Some(&row), false), expected, "{bytes}");
        if bytes == 0 {
            writer.finish(BatchId(1), MessageNumber(1), false);
        }
    }
    let encoded = writer.finish(BatchId(i64::MAX), MessageNumber(i32::MAX), true);
    assert!(encoded.len() <= limits::SENDER_MESSAGE_BYTES, "{}", encoded.len());
}

#[test]
fn the_pre_scan_refuses_too_many_rows_cells_bytes_and_long_names() {
    let column = |name: &str| RowColumn { name: name.into(), value: String::new() };
    let table = |rows: Vec<TableRow>| Table { rows, ..Table::default() }.encode_to_vec();
    let row = |cells: usize| TableRow { columns: vec![column("c"); cells] };
    let code = |bytes: &[u8]| TableView::scan(bytes).unwrap_err().code;
    assert!(TableView::scan(&table(vec![row(0); limits::MESSAGE_ROWS])).is_ok());
    assert_eq!(code(&table(vec![row(0); limits::MESSAGE_ROWS + 1])), Code::MessageTooLarge);
    assert!(TableView::scan(&table(vec![row(limits::MESSAGE_CELLS)])).is_ok());
    assert_eq!(code(&table(vec![row(limits::MESSAGE_CELLS + 1)])), Code::MessageTooLarge);
    assert_eq!(code(&vec![0; limits::MESSAGE_BYTES + 1]), Code::MessageTooLarge);
    let long = "n".repeat(limits::COLUMN_NAME_BYTES + 1);
    assert_eq!(
        code(&table(vec![TableRow { columns: vec![column(&long)] }])),
        Code::InvalidArgument
    );
    assert_eq!(code(&table(vec![TableRow { columns: vec![column("")] }])), Code::InvalidArgument);
}

#[test]
fn a_schema_that_comes_twice_is_merged_as_proto3_says() {
    let mut bytes = Table { schema: Some(schema(1)), ..Table::default() }.encode_to_vec();
    bytes.extend(Table { schema: Some(schema(2)), ..Table::default() }.encode_to_vec());
    let view = TableView::scan(&bytes).unwrap();
    let merged = Table::decode(bytes.as_slice()).unwrap().schema.unwrap();
    assert_eq!(view.schema.columns.len(), merged.columns.len());
    assert_eq!(view.schema.key.len(), merged.primary_key.unwrap().columns.len());
}

#[test]
fn a_row_whose_only_field_is_no_column_is_refused_as_prost_refuses_it() {
    // Field 3 of Table: a row whose field 1 is a number.
    let bytes = [0x1a, 2, 0x08, 5];
    assert!(Table::decode(bytes.as_slice()).is_err());
    assert_eq!(TableView::scan(&bytes).unwrap_err().code, Code::InvalidArgument);
}
