//! Forms of messages, and values that fit or not.

use proptest::prelude::*;
use prost::Message as _;
use protocol::proto::totvs::{
    Table,
    table::{
        RowColumn, Schema, TableRow,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};

use super::*;

fn row(cells: &[(&str, &str)]) -> TableRow {
    let column =
        |(name, value): &(&str, &str)| RowColumn { name: (*name).into(), value: (*value).into() };
    TableRow { columns: cells.iter().map(column).collect() }
}

fn table(rows: Vec<TableRow>) -> Table {
    let column = |name: &str, kind: &str| SchemaColumn { name: name.into(), r#type: kind.into() };
    Table {
        table_name: "FLAN".into(),
        erp: "RM".into(),
        record_count: i32::try_from(rows.len()).unwrap(),
        rows,
        schema: Some(Schema {
            flexible: false,
            export_data: true,
            columns: vec![column("ID", "integer"), column("VALOR", "decimal")],
            primary_key: Some(SchemaPrimaryKey { name: "FLAN".into(), columns: vec!["id".into()] }),
        }),
        batch_id: 100,
        message_number: 1,
        is_base_load: false,
    }
}

fn judged(table: &Table) -> Result<Checked> {
    check(&TableView::scan(&table.encode_to_vec()).unwrap())
}

fn code(change: impl FnOnce(&mut Table)) -> Code {
    let mut table = table(vec![row(&[("ID", "1"), ("VALOR", "1.5")])]);
    change(&mut table);
    judged(&table).unwrap_err().code
}

#[test]
fn a_good_message_passes_and_a_deleted_row_may_carry_its_key_alone() {
    let rows =
        vec![row(&[("ID", "1"), ("VALOR", "1.5")]), row(&[("id", "2"), ("DELETED", "true")])];
    let checked = judged(&table(rows)).unwrap();
    assert_eq!((checked.table.as_str(), checked.key), ("FLAN", vec!["id".to_owned()]));
}

#[test]
fn every_fault_of_form_has_its_code() {
    let schema =
        |table: &mut Table, change: fn(&mut Schema)| change(table.schema.as_mut().unwrap());
    let invalid = Code::InvalidArgument;
    assert_eq!(code(|t| t.table_name = String::new()), Code::BadName);
    assert_eq!(code(|t| t.table_name = "malote_batches".into()), invalid);
    assert_eq!(code(|t| t.table_name = "SQLITE_x".into()), invalid);
    assert_eq!(code(|t| t.schema = None), invalid);
    assert_eq!(code(|t| schema(t, |s| s.primary_key = None)), invalid);
    assert_eq!(code(|t| schema(t, |s| s.columns.push(s.columns[0].clone()))), invalid);
    assert_eq!(code(|t| schema(t, |s| s.columns[1].name = "Id".into())), invalid);
    assert_eq!(code(|t| schema(t, |s| s.columns[1].name = "_SEQ".into())), invalid);
    assert_eq!(code(|t| schema(t, |s| s.columns[1].name = "deleted".into())), invalid);
    assert_eq!(
        code(|t| schema(t, |s| s.primary_key.as_mut().unwrap().columns.push("X".into()))),
        invalid
    );
    assert_eq!(
        code(|t| schema(t, |s| s.primary_key.as_mut().unwrap().columns.push("ID".into()))),
        invalid
    );
    assert_eq!(code(|t| t.record_count = 2), Code::RecordCountMismatch);
    assert_eq!(code(|t| t.rows[0] = row(&[("VALOR", "1")])), Code::MissingKeyColumn);
    assert_eq!(code(|t| t.rows[0] = row(&[("ID", "1"), ("NEW", "1")])), invalid);
    assert_eq!(code(|t| t.rows[0] = row(&[("ID", "1"), ("id", "1")])), invalid);
    assert_eq!(code(|t| t.rows[0] = row(&[("ID", "1"), ("DELETED", "maybe")])), invalid);
}

#[test]
fn a_flexible_schema_takes_further_columns_but_none_of_malotes_names() {
    let flexible = |name: &str| {
        let mut table = table(vec![row(&[("ID", "1"), (name, "1")])]);
        table.schema.as_mut().unwrap().flexible = true;
        judged(&table).map(|_| ())
    };
    assert!(flexible("NEW").is_ok());
    assert!(flexible("_key").is_err());
    assert!(flexible(" NEW").is_err());
}

#[test]
fn values_that_would_not_come_back_the_same_are_unfit() {
    for bad in ["", "-", "-0", "007", "+1", " 1", "1.0", "9223372036854775808", "1e3"] {
        assert_eq!(fit(Storage::Integer, bad), None, "{bad:?}");
    }
    for bad in ["TRUE", "1", ""] {
        assert_eq!(fit(Storage::Boolean, bad), None, "{bad:?}");
    }
    for bad in ["a", "QQ", "QR==", "é"] {
        assert_eq!(fit(Storage::Base64, bad), None, "{bad:?}");
    }
    assert_eq!(fit(Storage::Integer, "-9223372036854775808"), Some(Fitted::Integer(i64::MIN)));
    assert_eq!(fit(Storage::Base64, ""), Some(Fitted::Blob(vec![])));
    for bad in ["", "-0", "-0.00", "NaN", "1e3", ".5", "1.", "01", "+1", "1.5.0", "1,5"] {
        assert_eq!(fit(Storage::Numeric, bad), None, "{bad:?}");
    }
    for bad in
        ["", "2025-02-29", "0000-01-01", "10000-01-01", "2026-1-05", "-001-01-01", "Infinity"]
    {
        assert_eq!(fit(Storage::Date, bad), None, "{bad:?}");
    }
    let times = [
        "T24:00:00",
        "T23:60:00",
        "T23:59:60",
        "T1:00:00",
        "T10:00",
        "T10:00:00.10",
        "T10:00:00.",
        " 10:00:00",
    ];
    for bad in times.map(|time| format!("2026-01-05{time}")) {
        assert_eq!(fit(Storage::Timestamp, &bad), None, "{bad:?}");
        assert_eq!(fit(Storage::Timestamptz, &format!("{bad}Z")), None, "{bad:?}");
    }
    for (storage, good) in [
        (Storage::Numeric, "-12.340"),
        (Storage::Numeric, "0.00"),
        (Storage::Date, "2024-02-29"),
        (Storage::Timestamp, "0001-01-01T00:00:00"),
        (Storage::Timestamp, "9999-12-31T23:59:59.999999"),
        (Storage::Timestamptz, "2026-01-05T10:00:00.5Z"),
    ] {
        assert_eq!(fit(storage, good), Some(Fitted::Text(good)));
    }
    assert_eq!(fit(Storage::Timestamp, "2026-01-05T10:00:00.123456789"), None, "nanoseconds");
    assert_eq!(fit(Storage::Timestamptz, "2026-01-05T10:00:00-03:00"), None, "an offset is lost");
}

proptest! {
    #[test]
    fn what_fits_comes_back_digit_for_digit(text in "(-?[0-9]{1,20}|true|false|[A-Za-z0-9+/=]{0,9}|.{0,9})") {
        for storage in Storage::ALL {
            let back = match fit(storage, &text) {
                None => continue,
                Some(Fitted::Integer(integer)) => unfit(storage, integer),
                Some(Fitted::Boolean(truth)) => unfit(storage, i64::from(truth)),
                Some(Fitted::Blob(bytes)) => unfit_blob(&bytes),
                Some(Fitted::Text(text)) => text.to_owned(),
            };
            prop_assert_eq!(&back, &text);
        }
    }
}
