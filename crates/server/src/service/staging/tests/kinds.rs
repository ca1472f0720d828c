//! Kinds of columns and names: both engines give back what they were given, whatever they keep it as.

use super::*;

const KINDS: Cells<'static> = &[
    ("ID", "integer"),
    ("Valor", "decimal"),
    ("Data", "date"),
    ("Quando", "timestamp"),
    ("Instante", "timestamptz"),
];

/// One row per message, each with its values of [`KINDS`].
async fn send(stage: &Stage, batch: i64, rows: &[[&str; 5]]) {
    for (number, values) in (1..).zip(rows) {
        let cells: Vec<(&str, &str)> =
            KINDS.iter().map(|(name, _)| *name).zip(values.iter().copied()).collect();
        stage.send((batch, number), KINDS, &[&cells]).await;
    }
    stage.caught_up().await;
}

async fn storages(stage: &Stage) -> Vec<&'static str> {
    let (environment, erp, name) = stage.place();
    let table = stage.staging.table(environment, &erp, &name).await.unwrap();
    table.columns.iter().map(|column| column.storage.as_str()).collect()
}

fn shown(values: &[&str; 5]) -> String {
    let cells = KINDS.iter().zip(values).map(|((name, _), value)| format!("{name}={value}"));
    cells.collect::<Vec<_>>().join(" ")
}

const FITTING: [[&str; 5]; 3] = [
    ["1", "1234.50", "2024-02-29", "2026-01-05T10:00:00.5", "2026-01-05T10:00:00.123456Z"],
    ["2", "-0.00000042", "0001-01-01", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z"],
    [
        "3",
        "99999999999999999999999999999999999999.000",
        "9999-12-31",
        "9999-12-31T23:59:59.999999",
        "9999-12-31T23:59:59.999999Z",
    ],
];

#[tokio::test]
async fn decimals_days_and_instants_come_back_digit_for_digit() {
    let stage = Stage::new();
    send(&stage, 100, &FITTING).await;
    assert_eq!(stage.rows().await, FITTING.each_ref().map(shown));
    let typed = ["integer", "numeric", "date", "timestamp", "timestamptz"];
    let text = ["integer", "text", "text", "text", "text"];
    let kept = if stage.trial.is_a_file() { text } else { typed };
    assert_eq!(storages(&stage).await, kept);
}

#[tokio::test]
async fn a_value_that_a_type_would_not_give_back_makes_a_text_of_its_column_and_loses_nothing() {
    let columns = KINDS.iter().enumerate().skip(1);
    let misfits: [&[&str]; 5] = [
        &[],
        &["NaN", "-0", "1E5", ""],
        &["Infinity", "-0043-03-15", "+10000-01-01", "?"],
        &["2026-01-05T10:00:00.123456789", "2026-01-05 10:00:00", "2026-01-05T24:00:00"],
        &["2026-01-05T10:00:00-03:00", "2026-01-05T10:00:00", "Infinity"],
    ];
    for (place, (name, _)) in columns {
        for misfit in misfits[place] {
            let stage = Stage::new();
            send(&stage, 100, &FITTING).await;
            let mut other =
                ["4", "1.0", "2026-01-05", "2026-01-05T10:00:00", "2026-01-05T10:00:00Z"];
            other[place] = misfit;
            send(&stage, 101, &[other]).await;
            let mut expected: Vec<String> = FITTING.iter().map(shown).collect();
            expected.push(shown(&other));
            assert_eq!(stage.rows().await, expected, "{name}: {misfit:?}");
            assert!(stage.quarantine("", 9).await.is_empty());
            let kept = storages(&stage).await;
            assert_eq!(kept[place], "text", "{name}: {misfit:?}");
            let typed = kept.iter().filter(|kept| **kept != "text").count();
            assert_eq!(typed, if stage.trial.is_a_file() { 1 } else { 4 }, "the others stay");
            // Values of the type still come, and a deleted row too.
            let (name, value) = (KINDS[place].0, FITTING[0][place]);
            let row: Cells<'_> = &[("ID", "5"), (name, value)];
            let gone: Cells<'_> = &[("ID", "4"), (name, misfit), ("DELETED", "true")];
            stage.send((102, 1), KINDS, &[row, gone]).await;
            stage.caught_up().await;
            let rows = stage.rows().await;
            assert_eq!(rows.last().unwrap(), &format!("ID=5 {name}={value}"));
            assert_eq!(rows.len(), 4);
        }
    }
}

#[tokio::test]
async fn a_row_of_quarantine_that_is_tried_again_finds_its_column_wide_enough() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("N", "long"), ("Valor", "decimal")];
    let unfit: Cells<'_> = &[("ID", "1"), ("N", "x"), ("Valor", "NaN")];
    stage.send((100, 1), columns, &[unfit, &[("ID", "2"), ("Valor", "1.5")]]).await;
    let wider: Cells<'_> = &[("ID", "integer"), ("N", "string"), ("Valor", "decimal")];
    stage.send((100, 2), wider, &[&[("ID", "3"), ("Valor", "2.50")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.quarantine("", 9).await.len(), 1);
    let tried = stage.staging.retry(&stage.whole_place(), Which::All, ("", false), NOW).await;
    assert_eq!(tried.unwrap().rows[0].outcome, Outcome::Applied);
    assert_eq!(stage.rows().await, ["ID=1 N=x Valor=NaN", "ID=2 Valor=1.5", "ID=3 Valor=2.50"]);
}

#[tokio::test]
async fn names_that_a_database_has_or_would_cut_are_columns_like_any_other() {
    let stage = Stage::new();
    let long = "x".repeat(110);
    let (one, two) = (format!("{long}1"), format!("{long}2"));
    let columns: Vec<(&str, &str)> =
        ["ID", "xmin", "ctid", "oid", "user", "a\"b", "malote_held", &one, &two]
            .map(|name| (name, "string"))
            .to_vec();
    let row: Vec<(&str, &str)> =
        columns.iter().enumerate().map(|(at, (name, _))| (*name, ["1", "v"][at.min(1)])).collect();
    let columns: &[(&str, &str)] = &columns;
    for number in 1..=2 {
        stage.send((100, number), columns, &[&row]).await;
        stage.caught_up().await;
    }
    let expected: Vec<String> = row.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(stage.rows().await, [expected.join(" ")]);
    assert!(stage.quarantine("", 9).await.is_empty());
}

#[tokio::test]
async fn tables_named_like_those_of_a_database_stand_beside_them() {
    for name in ["pg_class", "information_schema", "user", "a.b", &"t".repeat(100)] {
        let stage = Stage::new();
        stage.trial.run(&format!(
            "UPDATE entity SET name_folded = '{name}', name = '{name}' WHERE name_folded = 'flan'"
        ));
        for (number, value) in [(1, "old"), (2, "new")] {
            let row: Cells<'_> = &[("ID", "1"), ("S", value)];
            let named = |table: &mut Table| table.table_name = name.to_owned();
            let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
            stage.send_with((100, number), columns, &[row], named).await;
            stage.caught_up().await;
        }
        let (environment, erp, _) = stage.place();
        let (table, from): (TableName, _) = (name.parse().unwrap(), (KeyBytes::default(), 9));
        let page = stage.staging.page(environment, &erp, &table, from).await.unwrap();
        assert_eq!(page[0].values, [Some("1".to_owned()), Some("new".to_owned())], "{name}");
    }
}

#[tokio::test]
async fn what_postgresql_cannot_keep_stands_in_quarantine_and_says_why() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "string"), ("S", "string")];
    let (long, nul) = ("k".repeat(3_000), "a\0b");
    let rows: [Cells<'_>; 3] =
        [&[("ID", "1"), ("S", nul)], &[("ID", &long)], &[("ID", "2"), ("S", "good")]];
    stage.send((100, 1), columns, &rows).await;
    stage.caught_up().await;
    let quarantined = stage.quarantine("", 9).await;
    if stage.trial.is_a_file() {
        assert_eq!((stage.rows().await.len(), quarantined.len()), (3, 0));
        return;
    }
    assert_eq!(stage.rows().await, ["ID=2 S=good"]);
    let reasons: Vec<&str> = quarantined.iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "column S holds the character U+0000, which PostgreSQL does not take; its sender can give the column ;enc=b64",
            "the key has 3004 bytes, of 2600 at most"
        ]
    );
}
