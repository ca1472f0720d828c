//! From accepted bytes to typed rows, poison and order included.

use protocol::{
    hash::RowHasher,
    names::ColumnName,
    proto::{
        ingestion::{KeyRange, RangesRequest, RowsRequest},
        totvs::Table,
    },
};

use super::*;
use crate::{
    service::{
        reconcile::Reconcile,
        trial::{
            NOW,
            stage::{Cells, Stage},
        },
    },
    store::staging::Quarantined,
};

mod kinds;
mod many;

const COLUMNS: Cells<'static> =
    &[("ID", "integer"), ("Valor", "decimal"), ("OK", "boolean"), ("B", "base64"), ("S", "string")];

#[tokio::test]
async fn values_are_kept_typed_and_come_back_digit_for_digit() {
    let stage = Stage::new();
    let row: Cells<'_> =
        &[("ID", "-5"), ("Valor", "1234.50"), ("OK", "true"), ("B", "AP8="), ("S", "")];
    stage.send((100, 1), COLUMNS, &[row, &[("ID", "6")]]).await;
    stage.end(100, 1, 2).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=6", "ID=-5 Valor=1234.50 OK=true B=AP8= S="]);
    let (environment, erp, name) = stage.place();
    assert_eq!(stage.staging.count(environment, &erp, &name).await.unwrap(), 2);
    let progress = stage.staging.applied(environment, &erp).await.unwrap();
    assert_eq!(
        progress.applied,
        stage.staging.accepted(&stage.trial.caller.stream()).await.unwrap()
    );
    assert_eq!(progress.complete_batch.0, 100);
    let (kind, kinds) = match stage.trial.is_a_file() {
        true => ("typeof", "integer text integer blob"),
        false => ("pg_typeof", "bigint numeric boolean bytea"),
    };
    let types = ["ID", "Valor", "OK", "B"].map(|name| format!("{kind}(\"{name}\")"));
    let types = types.join(" || ' ' || ");
    assert_eq!(stage.of_space(&format!("SELECT {types} FROM flan WHERE \"ID\" < 0")), kinds);
}

#[tokio::test]
async fn the_last_image_of_a_key_wins_within_a_message_and_between_messages() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    stage.send((100, 1), columns, &[&[("ID", "1"), ("S", "a")], &[("ID", "1"), ("S", "b")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 S=b"]);
    stage.send((100, 2), columns, &[&[("ID", "1")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1"], "a column that is absent is NULL");
}

#[tokio::test]
async fn a_deleted_row_keeps_its_place_and_its_key_alone() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    stage.send((100, 1), columns, &[&[("ID", "1"), ("S", "a")], &[("ID", "2"), ("S", "b")]]).await;
    stage.send((100, 2), columns, &[&[("ID", "1"), ("S", "a"), ("DELETED", "true")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=2 S=b"]);
    let (environment, erp, name) = stage.place();
    let keys = vec![KeyBytes::of(["1"]), KeyBytes::of(["9"])];
    let rows = stage.staging.rows_by_keys(environment, &erp, &name, keys).await.unwrap();
    let tombstone = rows[0].as_ref().unwrap();
    assert!(tombstone.deleted && rows[1].is_none());
    assert_eq!(tombstone.values, [Some("1".to_owned()), None]);
    stage.send((100, 3), columns, &[&[("ID", "1"), ("S", "again"), ("DELETED", "false")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 S=again", "ID=2 S=b"]);
}

#[tokio::test]
async fn applying_the_ledger_again_changes_nothing() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    stage.send((100, 1), columns, &[&[("ID", "1"), ("S", "a")]]).await;
    stage.send((100, 2), columns, &[&[("ID", "1"), ("S", "b")]]).await;
    stage.caught_up().await;
    let (environment, erp, _) = stage.place();
    stage.in_space("UPDATE malote_progress SET applied_seq = 0");
    let first = stage.trial.store.ledger_after(stage.trial.caller.stream(), Standing::default(), 1);
    let Following::Next(messages, _) = first.await.unwrap() else {
        panic!("the ledger is its own")
    };
    assert_eq!(messages.len(), 1);
    let staged = stage.staging.space(environment, &erp).await.unwrap();
    assert_eq!(staged.apply(messages, vec![], NOW).await.unwrap().messages, 1);
    assert_eq!(stage.rows().await, ["ID=1 S=b"], "an older image never comes back");
}

#[tokio::test]
async fn a_poison_row_goes_to_quarantine_and_stops_nothing() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("N", "long")];
    let rows: [Cells<'_>; 3] =
        [&[("ID", "1"), ("N", "1")], &[("ID", "2"), ("N", "1.5")], &[("ID", "3"), ("N", "3")]];
    stage.send((100, 1), columns, &rows).await;
    stage.send((100, 2), columns, &[&[("ID", "4")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 N=1", "ID=3 N=3", "ID=4"]);
    let quarantined = stage.quarantine("", 10).await;
    assert_eq!(quarantined.len(), 1);
    assert_eq!((quarantined[0].row, quarantined[0].code.as_str()), (1, "VALUE_UNFIT"));
    assert_eq!(quarantined[0].reason, "column N is not a 64-bit integer in canonical form");
}

#[tokio::test]
async fn columns_appear_and_a_column_whose_kind_changes_keeps_its_values_as_text() {
    let stage = Stage::new();
    let columns: Cells<'_> =
        &[("ID", "integer"), ("OK", "boolean"), ("B", "base64"), ("N", "long")];
    stage
        .send((100, 1), columns, &[&[("ID", "1"), ("OK", "false"), ("B", "AP8="), ("N", "7")]])
        .await;
    stage.caught_up().await;
    let changed: Cells<'_> = &[
        ("id", "integer"),
        ("ok", "string"),
        ("B", "string"),
        ("N", "decimal"),
        ("New \"x", "date"),
    ];
    let row: Cells<'_> = &[
        ("id", "2"),
        ("ok", "maybe"),
        ("B", "?"),
        ("N", "7.5"),
        ("New \"x", "2026-01-05"),
        ("extra", "e"),
    ];
    stage.send((100, 2), changed, &[row]).await;
    stage.caught_up().await;
    assert_eq!(
        stage.rows().await,
        ["ID=1 OK=false B=AP8= N=7", "ID=2 OK=maybe B=? N=7.5 New \"x=2026-01-05 extra=e"]
    );
}

#[tokio::test]
async fn a_column_named_rowid_does_not_mislead_the_change_of_a_kind() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("ROWID", "string"), ("N", "long")];
    let rows: [Cells<'_>; 2] = [
        &[("ID", "1"), ("ROWID", "same"), ("N", "7")],
        &[("ID", "2"), ("ROWID", "same"), ("N", "8")],
    ];
    stage.send((100, 1), columns, &rows).await;
    stage.caught_up().await;
    let changed: Cells<'_> = &[("ID", "integer"), ("ROWID", "string"), ("N", "string")];
    stage.send((100, 2), changed, &[&[("ID", "3"), ("N", "x")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 ROWID=same N=7", "ID=2 ROWID=same N=8", "ID=3 N=x"]);
}

#[tokio::test]
async fn a_table_named_like_a_word_of_sql_is_updated_like_any_other() {
    let stage = Stage::new();
    stage.trial.run("UPDATE entity SET name_folded = 'excluded' WHERE name_folded = 'flan'");
    let columns: Cells<'_> = &[("ID", "integer"), ("V", "string")];
    for (number, value) in [(1, "old"), (2, "new")] {
        let row: Cells<'_> = &[("ID", "1"), ("V", value)];
        let named = |table: &mut Table| table.table_name = "EXCLUDED".into();
        stage.send_with((100, number), columns, &[row], named).await;
    }
    stage.caught_up().await;
    let (environment, erp, _) = stage.place();
    let name: TableName = "excluded".parse().unwrap();
    let page =
        stage.staging.page(environment, &erp, &name, (KeyBytes::default(), 9)).await.unwrap();
    assert_eq!(page[0].values, [Some("1".to_owned()), Some("new".to_owned())]);
}

#[tokio::test]
async fn a_reload_under_another_key_makes_the_table_anew() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    stage.send((100, 1), columns, &[&[("ID", "1"), ("S", "a")]]).await;
    stage.caught_up().await;
    stage.trial.run("UPDATE entity SET generation = 1, reload_asked_at = 1, rebuild = 1");
    let rekeyed = |table: &mut Table| {
        table.is_base_load = true;
        table.schema.as_mut().unwrap().primary_key.as_mut().unwrap().columns = vec!["S".into()];
    };
    stage.send_with((101, 1), columns, &[&[("ID", "2"), ("S", "b")]], rekeyed).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=2 S=b"]);
}

#[tokio::test]
async fn a_batch_is_shown_as_closed_only_when_its_rows_are_staged() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer")];
    let state = |batch: i64| {
        let at = match stage.trial.is_a_file() {
            true => "completed_at",
            false => "to_char(completed_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
        };
        stage.of_space(&format!(
            "SELECT state || coalesce({at}, '') FROM malote_batches WHERE batch = {batch}"
        ))
    };
    stage.send((100, 1), columns, &[&[("ID", "1")]]).await;
    stage.caught_up().await;
    assert_eq!(state(100), "open");
    stage.send((101, 1), columns, &[&[("ID", "2")]]).await;
    stage.end(101, 1, 1).await;
    stage.caught_up().await;
    assert_eq!(state(100), "abandoned");
    assert_eq!(state(101), format!("complete{}", NOW.to_iso()));
}

#[tokio::test]
async fn sums_and_rows_tell_what_is_staged_and_deleted_rows_do_not_count() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    stage
        .send(
            (100, 1),
            columns,
            &[
                &[("ID", "1"), ("S", "a")],
                &[("ID", "2")],
                &[("ID", "3"), ("DELETED", "true")],
                &[("ID", "4"), ("S", "")],
            ],
        )
        .await;
    stage.end(100, 1, 4).await;
    stage.caught_up().await;
    let names: Vec<ColumnName> = ["S", "id"].map(|name| name.parse().unwrap()).to_vec();
    let hasher = RowHasher::new(&names);
    let hash = |s: Option<&'static str>, id: &'static str| {
        hasher.hash(|at| if at == 0 { s } else { Some(id) })
    };
    let reconcile = Reconcile::new(stage.staging.clone());
    let bounds: Vec<_> = ["2", "4"].map(|key| KeyBytes::of([key]).0).to_vec();
    let request = |bounds| {
        let (erp, table) = ("RM".into(), "FLAN".into());
        RangesRequest { erp, table, bounds, range: None }
    };
    let response = reconcile.ranges(&stage.trial.caller, request(bounds.clone())).await.unwrap();
    let sums: Vec<_> = response.sums.iter().map(|sum| (sum.count, sum.xor128.to_vec())).collect();
    let expected = [hash(Some("a"), "1"), hash(None, "2"), hash(Some(""), "4")];
    assert_eq!(sums, expected.map(|hash| (1, hash.0.to_vec())));
    assert_eq!(response.applied_batch, 100);
    let within = Some(KeyRange { from: bounds[0].clone(), to: bounds[1].clone() });
    let part = RangesRequest { range: within, ..request(bounds.clone()) };
    let part = reconcile.ranges(&stage.trial.caller, part).await.unwrap();
    let counts: Vec<_> = part.sums.iter().map(|sum| sum.count).collect();
    assert_eq!(counts, [0, 1, 0], "what lies outside is not summed");
    assert_eq!(part.sums[1], response.sums[1]);
    let falling = bounds.into_iter().rev().collect();
    let error = reconcile.ranges(&stage.trial.caller, request(falling)).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);

    let range = Some(KeyRange { from: KeyBytes::of(["1"]).0, to: KeyBytes::of(["4"]).0 });
    let after = KeyBytes::of(["1"]).0;
    let request = RowsRequest { erp: "RM".into(), table: "FLAN".into(), range, after };
    let response = reconcile.rows(&stage.trial.caller, request).await.unwrap();
    assert_eq!(response.rows.len(), 1);
    assert_eq!((response.rows[0].hash128.to_vec(), response.more), (expected[1].0.to_vec(), false));
}

#[tokio::test]
async fn what_is_acknowledged_after_the_store_was_restored_is_staged() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
    let send = async |batch, id, text| {
        stage.send((batch, 1), columns, &[&[("ID", id), ("S", text)]]).await;
        stage.end(batch, 1, 1).await;
    };
    // The ledger as a backup had it, which knows nothing of batch 101 and later.
    let restore = || {
        stage.trial.run(
            "DELETE FROM ingest_message WHERE batch > 100; DELETE FROM batch WHERE id > 100;
             UPDATE ingest_stream SET accept_seq = 1, last_batch = 100;",
        );
    };
    send(100, "1", "kept").await;
    send(101, "2", "lost").await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 S=kept", "ID=2 S=lost"]);
    restore();
    // It gets the number of acceptance that the staging file has passed.
    send(102, "3", "new").await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 S=kept", "ID=3 S=new"]);
    restore();
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=1 S=kept"], "also before anything new comes");
    let (environment, erp, _) = stage.place();
    assert_eq!(stage.staging.applied(environment, &erp).await.unwrap().complete_batch.0, 100);
}

#[tokio::test]
async fn a_staging_file_that_notes_no_message_goes_on_where_it_is() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer")];
    stage.send((100, 1), columns, &[&[("ID", "1")]]).await;
    stage.caught_up().await;
    stage.in_space("DELETE FROM malote_applied; UPDATE flan SET \"ID\" = 9;");
    stage.send((100, 2), columns, &[&[("ID", "2")]]).await;
    stage.caught_up().await;
    assert_eq!(stage.rows().await, ["ID=9", "ID=2"], "nothing was applied again");
}

#[tokio::test]
async fn rows_are_paged_by_key_and_by_bytes_and_every_row_comes_once() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("T", "string")];
    let large = "x".repeat(3 * 1024 * 1024);
    for number in 1..=5 {
        let id = number.to_string();
        stage.send((100, number), columns, &[&[("ID", &id), ("T", &large)]]).await;
    }
    stage.caught_up().await;
    let (place, (_, _, name)) = (stage.whole_place(), stage.place());
    let (mut after, mut ids, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = stage.staging.rows(&place, &name, (&after, 100)).await.unwrap();
        ids.extend(page.values.iter().map(|values| values[0].clone().unwrap()));
        pages += 1;
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(
        (ids.as_slice(), pages),
        (["1", "2", "3", "4", "5"].map(String::from).as_slice(), 2)
    );
    let two = stage.staging.rows(&place, &name, ("", 2)).await.unwrap();
    assert_eq!((two.values.len(), two.next.is_some()), (2, true));
    let bad = stage.staging.rows(&place, &name, ("xyz", 2)).await.unwrap_err();
    assert_eq!(bad.code, Code::BadId);
}

#[tokio::test]
async fn quarantine_is_paged_by_the_place_of_a_row() {
    let stage = Stage::new();
    let columns: Cells<'_> = &[("ID", "integer"), ("N", "long")];
    let bad: Cells<'_> = &[("ID", "1"), ("N", "x")];
    stage.send((100, 1), columns, &[bad, bad]).await;
    stage.send((100, 2), columns, &[bad]).await;
    stage.send((101, 1), columns, &[bad]).await;
    stage.caught_up().await;
    let all: Vec<String> = stage.quarantine("", 10).await.iter().map(Quarantined::id).collect();
    assert_eq!(all, ["101.1.0", "100.1.0", "100.1.1", "100.2.0"]);
    for (at, id) in all.iter().enumerate() {
        let behind: Vec<String> =
            stage.quarantine(id, 10).await.iter().map(Quarantined::id).collect();
        assert_eq!(behind, all[at + 1..]);
    }
}
