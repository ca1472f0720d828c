//! Many rows at once, and many servers: what a round writes together ends as if it came row by row.

use super::*;

const TWO: Cells<'static> = &[("ID", "integer"), ("S", "string")];

/// Messages of so many rows each, from an ID on.
async fn load(stage: &Stage, (batch, first): (i64, usize), messages: usize, text: &str) {
    const ROWS: usize = 200;
    for number in 0..messages {
        let from = first + number * ROWS;
        let ids: Vec<String> = (from..from + ROWS).map(|id| id.to_string()).collect();
        let cells: Vec<_> = ids.iter().map(|id| [("ID", &**id), ("S", text)]).collect();
        let rows: Vec<Cells<'_>> = cells.iter().map(<[_; 2]>::as_slice).collect();
        stage.send((batch, i32::try_from(number + 1).unwrap()), TWO, &rows).await;
    }
}

#[tokio::test]
async fn rows_that_are_there_and_rows_that_are_not_are_staged_together() {
    let stage = Stage::new();
    load(&stage, (100, 1_000), 30, "first").await;
    stage.caught_up().await;
    // Half of them are staged, half are behind the last one.
    load(&stage, (101, 4_000), 30, "a\\b\tc\n\"é\r").await;
    // And some before the first one, of which one comes three times.
    let rows: [Cells<'_>; 4] = [
        &[("ID", "7"), ("S", "one")],
        &[("ID", "7"), ("DELETED", "true")],
        &[("ID", "8"), ("S", "other")],
        &[("ID", "7"), ("S", "three")],
    ];
    stage.send((102, 1), TWO, &rows).await;
    stage.caught_up().await;
    let (environment, erp, name) = stage.place();
    assert_eq!(stage.staging.count(environment, &erp, &name).await.unwrap(), 9_002);
    assert_eq!(stage.rows().await[..2], ["ID=7 S=three", "ID=8 S=other"]);
    let keys = ["3999", "4000", "9999"].map(|id| KeyBytes::of([id])).to_vec();
    let found = stage.staging.rows_by_keys(environment, &erp, &name, keys).await.unwrap();
    let texts: Vec<_> =
        found.into_iter().map(|row| row.unwrap().values[1].clone().unwrap()).collect();
    assert_eq!(texts, ["first", "a\\b\tc\n\"é\r", "a\\b\tc\n\"é\r"]);
    // A walk over all of them gives each once.
    let reconcile = Reconcile::new(stage.staging.clone());
    let request = RangesRequest { erp: "RM".into(), table: "FLAN".into(), ..Default::default() };
    let sums = reconcile.ranges(&stage.trial.caller, request).await.unwrap().sums;
    assert_eq!(sums[0].count, 9_002);
    let (mut after, mut walked) = (Vec::new(), 0);
    loop {
        let request = RowsRequest { erp: "RM".into(), table: "FLAN".into(), range: None, after };
        let page = reconcile.rows(&stage.trial.caller, request).await.unwrap();
        walked += page.rows.len();
        let Some(last) = page.rows.last().filter(|_| page.more) else { break };
        after = last.key.to_vec();
    }
    assert_eq!(walked, 9_002);
}

#[tokio::test]
async fn of_many_rows_those_that_the_table_refuses_stand_in_quarantine_by_themselves() {
    let stage = Stage::new();
    load(&stage, (100, 1), 1, "first").await;
    stage.caught_up().await;
    stage.in_space(match stage.trial.is_a_file() {
        true => {
            r#"CREATE TRIGGER refuses BEFORE INSERT ON flan WHEN new."ID" IN (205, 206, 390)
               BEGIN SELECT RAISE(ABORT, 'no'); END"#
        }
        false => r#"ALTER TABLE flan ADD CHECK ("ID" NOT IN (205, 206, 390))"#,
    });
    load(&stage, (101, 101), 2, "second").await;
    stage.caught_up().await;
    let (environment, erp, name) = stage.place();
    assert_eq!(stage.staging.count(environment, &erp, &name).await.unwrap(), 497);
    let quarantined = stage.quarantine("", 9).await;
    let ids: Vec<String> = quarantined.iter().map(Quarantined::id).collect();
    assert_eq!(ids, ["101.1.104", "101.1.105", "101.2.89"]);
    assert!(quarantined.iter().all(|row| row.reason == "the table refused the row"));
    let shown = stage.staging.quarantined_row(&stage.whole_place(), "101.2.89").await.unwrap();
    assert_eq!(shown.key, [("ID".to_owned(), "390".to_owned())]);
    // Those that cannot be there yet are refused alike.
    load(&stage, (102, 205), 1, "third").await;
    stage.caught_up().await;
    assert_eq!(stage.quarantine("", 99).await.len(), 6);
}

#[tokio::test]
async fn servers_that_make_a_space_and_apply_at_once_do_both_once() {
    let stage = Stage::new();
    if stage.trial.is_a_file() {
        // A file has one server.
        return;
    }
    load(&stage, (100, 1), 5, "text").await;
    let stream = stage.trial.caller.stream();
    let servers: Vec<Staging> =
        (0..4).map(|_| Staging::new(stage.trial.another(), &stage.trial.data())).collect();
    let all = servers.iter().map(|server| server.catch_up(&stream, NOW));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    let (environment, erp, name) = stage.place();
    assert_eq!(servers[3].count(environment, &erp, &name).await.unwrap(), 1_000);
    let batch = "SELECT count(*) || state FROM malote_batches GROUP BY state";
    assert_eq!(stage.of_space(batch), "1open");
}

#[tokio::test]
async fn what_works_in_a_space_sees_nothing_of_the_store() {
    let stage = Stage::new();
    if stage.trial.is_a_file() {
        // The store is another file.
        return;
    }
    load(&stage, (100, 1), 1, "text").await;
    stage.caught_up().await;
    let (environment, erp, _) = stage.place();
    let space = stage.staging.space(environment, &erp).await.unwrap();
    assert_eq!(space.sees_of_the_store().await.unwrap(), 0);
    assert_eq!(stage.trial.count("SELECT count(*) FROM malote.tenant"), 1);
}
