//! Rows that share a key within one message (F54), from a foreign sender to the real server process: the last one
//! wins, whatever it is, and what follows is taken as before.

use runtime::clock;
use rusqlite::Connection;

use crate::whole::{
    cloud::Cloud,
    compare,
    sender::{Cells, Sender, Target},
};

const COLUMNS: (Cells<'static>, usize) =
    (&[("ID", "integer"), ("V", "string"), ("N", "integer")], 1);

async fn sender(cloud: &Cloud) -> Sender {
    let (grpc, token) = (cloud.grpc_target(), cloud.token().await);
    Sender::new(Target { grpc, token, erp: cloud.erp.clone(), table: "FLAN".to_owned() })
}

/// Sends one batch of those messages and its Summary, all accepted; gives the batch's number.
async fn accepted(
    sender: &mut Sender,
    batch: i64,
    columns: (Cells<'_>, usize),
    messages: &[&[Cells<'_>]],
) {
    let mut records = 0;
    for (number, rows) in (1..).zip(messages) {
        let message = sender.message((batch, number), columns, rows);
        records += message.record_count;
        let answer = sender.write(&message).await.unwrap();
        assert!(answer.success, "{:?}", answer.errors);
    }
    let messages = i32::try_from(messages.len()).unwrap();
    let answer = sender.summary(batch, messages, records).await.unwrap();
    assert!(answer.success, "{:?}", answer.errors);
}

/// Rows as staged once the batch shows as complete: key, value, deleted.
async fn staged(cloud: &Cloud, batch: i64) -> Vec<(i64, Option<String>, bool)> {
    let complete = format!("SELECT state = 'complete' FROM malote_batches WHERE batch = {batch}");
    cloud
        .staged("the batch", move |staging: &Connection| {
            let done: bool = staging.query_row(&complete, [], |row| row.get(0)).ok()?;
            done.then(|| {
                let mut rows =
                    staging.prepare("SELECT ID, V, _deleted FROM flan ORDER BY ID").unwrap();
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                rows.query_map([], row).unwrap().map(Result::unwrap).collect()
            })
        })
        .await
}

fn quarantined(cloud: &Cloud) -> Vec<(i64, i32, i64)> {
    let staging = compare::staging(&cloud.staging()).unwrap();
    let mut rows = staging.prepare("SELECT batch, message, row_at FROM malote_quarantine").unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    rows.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn live(id: i64, value: &str) -> (i64, Option<String>, bool) {
    (id, Some(value.to_owned()), false)
}

fn gone(id: i64) -> (i64, Option<String>, bool) {
    (id, None, true)
}

#[tokio::test]
async fn f54_of_rows_with_one_key_in_one_message_the_last_one_is_staged() {
    let mut cloud = Cloud::start("RM", &["FLAN"]).await;
    let mut sender = sender(&cloud).await;
    let first = clock::Wall::now().seconds();
    accepted(
        &mut sender,
        first,
        COLUMNS,
        &[
            &[
                &[("ID", "1"), ("V", "a")],
                &[("ID", "1"), ("V", "b")],
                &[("ID", "2"), ("V", "a")],
                &[("ID", "2"), ("V", "a"), ("DELETED", "true")],
                &[("ID", "3"), ("DELETED", "true")],
                &[("ID", "3"), ("V", "back")],
                &[("ID", "4"), ("V", "a")],
                &[("ID", "4"), ("DELETED", "true")],
                &[("ID", "4"), ("V", "c")],
                &[("ID", "5"), ("V", "the same")],
                &[("ID", "5"), ("V", "the same")],
                &[("ID", "6"), ("DELETED", "true")],
                &[("ID", "6"), ("DELETED", "true")],
            ],
            // The next message meets what the one before left, a tombstone among it.
            &[
                &[("ID", "2"), ("V", "older"), ("DELETED", "true")],
                &[("ID", "2"), ("V", "alive")],
                &[("ID", "1"), ("V", "c")],
                &[("ID", "1"), ("DELETED", "true")],
            ],
        ],
    )
    .await;
    let expected =
        [gone(1), live(2, "alive"), live(3, "back"), live(4, "c"), live(5, "the same"), gone(6)];
    assert_eq!(staged(&cloud, first).await, expected);
    // No loop: the server that starts again has nothing to do over, and the next batch goes through.
    cloud.kill();
    cloud.run().await;
    let row: &[Cells<'_>] = &[&[("ID", "7"), ("V", "next")]];
    accepted(&mut sender, first + 1, COLUMNS, &[row]).await;
    let mut expected = expected.to_vec();
    expected.push(live(7, "next"));
    assert_eq!(staged(&cloud, first + 1).await, expected);
    assert_eq!(quarantined(&cloud), []);
}

#[tokio::test]
async fn f54_a_row_that_does_not_fit_is_set_aside_and_leaves_the_others_of_its_key_their_order() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let mut sender = sender(&cloud).await;
    let batch = clock::Wall::now().seconds();
    accepted(
        &mut sender,
        batch,
        COLUMNS,
        &[&[
            &[("ID", "1"), ("V", "a"), ("N", "7")],
            &[("ID", "1"), ("V", "b"), ("N", "no number")],
            &[("ID", "2"), ("V", "a"), ("N", "no number")],
            &[("ID", "2"), ("V", "b"), ("N", "8")],
        ]],
    )
    .await;
    assert_eq!(staged(&cloud, batch).await, [live(1, "a"), live(2, "b")]);
    assert_eq!(quarantined(&cloud), [(batch, 1, 1), (batch, 1, 2)]);
    let row: &[Cells<'_>] = &[&[("ID", "1"), ("V", "c"), ("N", "9")]];
    accepted(&mut sender, batch + 1, COLUMNS, &[row]).await;
    assert_eq!(staged(&cloud, batch + 1).await, [live(1, "c"), live(2, "b")]);
}

#[tokio::test]
async fn f54_keys_are_the_same_where_their_bytes_are_and_only_there() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let mut sender = sender(&cloud).await;
    let batch = clock::Wall::now().seconds();
    let columns: Cells<'_> = &[("A", "string"), ("B", "string"), ("V", "string")];
    let rows: &[Cells<'_>] = &[
        &[("A", "ab"), ("B", "c"), ("V", "1")],
        &[("A", "a"), ("B", "bc"), ("V", "2")],
        &[("A", "AB"), ("B", "c"), ("V", "3")],
        &[("A", "ab "), ("B", "c"), ("V", "4")],
        &[("B", "c"), ("V", "5"), ("A", "ab")],
        &[("A", ""), ("B", ""), ("V", "6")],
        &[("A", ""), ("B", ""), ("DELETED", "true")],
    ];
    accepted(&mut sender, batch, (columns, 2), &[rows]).await;
    let found: Vec<(String, String)> = cloud
        .staged("the rows", |staging: &Connection| {
            let sql = "SELECT A || '|' || B, V FROM flan WHERE _deleted = 0 ORDER BY V";
            let mut rows = staging.prepare(sql).ok()?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            Some(rows.query_map([], row).unwrap().map(Result::unwrap).collect())
        })
        .await;
    let expected = [("a|bc", "2"), ("AB|c", "3"), ("ab |c", "4"), ("ab|c", "5")];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}
