use protocol::proto::totvs::Table;

use super::*;
use crate::service::trial::{
    at,
    stage::{Cells, Stage},
};

const LONG: Cells<'_> = &[("ID", "integer"), ("N", "long")];
const TEXT: Cells<'_> = &[("ID", "integer"), ("N", "string")];

/// A stage with rows 1 and 2 of message 100.1 in quarantine: their N is no number.
async fn stage() -> Stage {
    let stage = Stage::new();
    let rows: [Cells<'_>; 3] =
        [&[("ID", "1"), ("N", "x")], &[("N", "y"), ("ID", "2")], &[("ID", "3"), ("N", "3")]];
    stage.send((100, 1), LONG, &rows).await;
    stage.caught_up().await;
    stage
}

async fn retry(stage: &Stage, which: Which, dry_run: bool) -> Vec<(String, &'static str)> {
    let place = stage.whole_place();
    let staging = stage.staging.by("ana");
    let done = staging.retry(&place, which, ("", dry_run), at(2)).await.unwrap();
    assert_eq!((done.applied, done.next), (!dry_run, None));
    done.rows.into_iter().map(|row| (row.id, row.outcome.as_str())).collect()
}

fn told(rows: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    rows.iter().map(|(id, outcome)| ((*id).to_owned(), *outcome)).collect()
}

fn ids(rows: &[Quarantined]) -> Vec<String> {
    rows.iter().map(Quarantined::id).collect()
}

#[tokio::test]
async fn a_row_is_shown_with_its_key_and_columns_as_they_came_and_debug_shows_none_of_it() {
    let stage = stage().await;
    let shown = stage.staging.quarantined_row(&stage.whole_place(), "100.1.1").await.unwrap();
    let cell = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(shown.key, [cell("ID", "2")]);
    assert_eq!(shown.columns, [cell("N", "y"), cell("ID", "2")]);
    assert_eq!(shown.key_hash.clone().unwrap(), hex(&Sha256::digest(KeyBytes::of(["2"]).0)));
    assert_eq!((shown.row.code.as_str(), shown.row.row), ("VALUE_UNFIT", 1));
    assert_eq!(format!("{shown:?}"), "Shown(100.1.1)");
    for (id, code) in [("100.1.2", Code::NotFound), ("100", Code::BadId)] {
        let error = stage.staging.quarantined_row(&stage.whole_place(), id).await.unwrap_err();
        assert_eq!(error.code, code, "{id}");
    }
}

#[tokio::test]
async fn rows_are_staged_once_the_table_can_take_them_and_stay_until_then() {
    let stage = stage().await;
    let all = ["100.1.0", "100.1.1"];
    let still = told(&all.map(|id| (id, "refused")));
    assert_eq!(retry(&stage, Which::All, false).await, still);
    assert_eq!(ids(&stage.quarantine("", 9).await), all);
    stage.send((100, 2), TEXT, &[&[("ID", "4"), ("N", "z")]]).await;
    stage.caught_up().await;
    let fits = told(&all.map(|id| (id, "applied")));
    assert_eq!(retry(&stage, Which::All, true).await, fits);
    assert_eq!(stage.rows().await, ["ID=3 N=3", "ID=4 N=z"], "a dry run changes nothing");
    assert_eq!(ids(&stage.quarantine("", 9).await), all);
    let one = Which::One(RowAt::read("100.1.1").unwrap());
    assert_eq!(retry(&stage, one, false).await, told(&[("100.1.1", "applied")]));
    assert_eq!(ids(&stage.quarantine("", 9).await), ["100.1.0"]);
    let other = Which::Table("tmov".parse().unwrap());
    assert_eq!(retry(&stage, other, false).await, []);
    let flan = Which::Table("FLAN".parse().unwrap());
    assert_eq!(retry(&stage, flan, false).await, told(&[("100.1.0", "applied")]));
    assert_eq!(stage.rows().await, ["ID=1 N=x", "ID=2 N=y", "ID=3 N=3", "ID=4 N=z"]);
    let who = "SELECT count(*) FROM audit WHERE action = 'quarantine.retry' AND who = 'ana'";
    assert_eq!(stage.trial.count(who), 3, "dry runs and empty ones are not noted");
}

#[tokio::test]
async fn an_older_row_never_replaces_a_newer_image_a_delete_or_a_table_made_anew() {
    let stage = stage().await;
    // 1 comes again with a good value, 2 is deleted.
    let newer: [Cells<'_>; 2] = [&[("ID", "1"), ("N", "new")], &[("ID", "2"), ("DELETED", "true")]];
    stage.send((100, 2), TEXT, &newer).await;
    stage.caught_up().await;
    let expected = told(&[("100.1.0", "superseded"), ("100.1.1", "superseded")]);
    assert_eq!(retry(&stage, Which::All, true).await, expected);
    assert_eq!(retry(&stage, Which::All, false).await, expected);
    assert_eq!(stage.rows().await, ["ID=1 N=new", "ID=3 N=3"]);
    assert!(stage.quarantine("", 9).await.is_empty(), "nothing is lacking");

    let wider: Cells<'_> = &[("ID", "integer"), ("B", "boolean")];
    stage.send((100, 3), wider, &[&[("ID", "5"), ("B", "maybe")]]).await;
    stage.caught_up().await;
    stage.trial.run("UPDATE entity SET generation = 1, reload_asked_at = 1, rebuild = 1");
    let rekeyed = |table: &mut Table| {
        table.is_base_load = true;
        table.schema.as_mut().unwrap().primary_key.as_mut().unwrap().columns = vec!["S".into()];
    };
    let columns: Cells<'_> = &[("ID", "integer"), ("S", "string"), ("B", "string")];
    stage.send_with((101, 1), columns, &[&[("ID", "6"), ("S", "b")]], rekeyed).await;
    stage.caught_up().await;
    assert_eq!(retry(&stage, Which::All, false).await, told(&[("100.3.0", "superseded")]));
    assert_eq!(stage.rows().await, ["ID=6 S=b"], "5 may be gone from the source since");
}

#[tokio::test]
async fn rows_are_tried_in_the_order_of_acceptance_and_the_newest_image_wins() {
    let stage = stage().await;
    stage.send((101, 1), LONG, &[&[("ID", "1"), ("N", "later")]]).await;
    stage.send((101, 2), TEXT, &[&[("ID", "9")]]).await;
    stage.caught_up().await;
    let later = Which::One(RowAt::read("101.1.0").unwrap());
    assert_eq!(retry(&stage, later, false).await, told(&[("101.1.0", "applied")]));
    let expected = told(&[("100.1.0", "superseded"), ("100.1.1", "applied")]);
    assert_eq!(retry(&stage, Which::All, false).await, expected);
    assert_eq!(stage.rows().await, ["ID=1 N=later", "ID=2 N=y", "ID=3 N=3", "ID=9"]);
}

#[tokio::test]
async fn a_retry_leaves_the_types_of_staged_columns_and_adds_those_that_lack() {
    let stage = stage().await;
    stage.send((100, 2), TEXT, &[&[("ID", "4")]]).await;
    stage.caught_up().await;
    let (environment, erp, name) = stage.place();
    let cells = r#"{"ID":"1","N":"x","Late":"l"}"#;
    stage.in_space(&format!("UPDATE malote_quarantine SET cells = '{cells}' WHERE row_at = 0"));
    // As an older program left it, and after its body was removed.
    stage.in_space("UPDATE malote_quarantine SET accept_seq = NULL");
    stage.trial.run("UPDATE ingest_message SET body = NULL WHERE accept_seq = 1");
    assert_eq!(retry(&stage, Which::All, false).await.len(), 2);
    assert_eq!(stage.rows().await, ["ID=1 N=x Late=l", "ID=2 N=y", "ID=3 N=3", "ID=4"]);
    let table = stage.staging.table(environment, &erp, &name).await.unwrap();
    let kinds: Vec<String> = table.columns.iter().map(|c| c.type_name.to_string()).collect();
    assert_eq!(kinds, ["integer", "string", "string"]);
}

#[tokio::test]
async fn a_whole_message_is_tried_from_its_body_and_stays_without_it() {
    let stage = stage().await;
    let lost = "DELETE FROM flan; DELETE FROM malote_quarantine;
         INSERT INTO malote_quarantine (batch, message, row_at, table_folded, code, reason, cells, at, accept_seq)
         VALUES (100, 1, -1, 'flan', 'INVALID_ARGUMENT', 'r', '{}', 1, 1);";
    stage.in_space(lost);
    assert_eq!(retry(&stage, Which::All, true).await, told(&[("100.1.-1", "applied")]));
    assert_eq!(retry(&stage, Which::All, false).await, told(&[("100.1.-1", "applied")]));
    assert_eq!(stage.rows().await, ["ID=3 N=3"]);
    assert_eq!(ids(&stage.quarantine("", 9).await), ["100.1.0", "100.1.1"], "rows by themselves");
    stage.in_space(lost);
    stage.trial.run("UPDATE ingest_message SET body = NULL");
    assert_eq!(retry(&stage, Which::All, false).await, told(&[("100.1.-1", "refused")]));
    assert_eq!(stage.quarantine("", 9).await[0].code, "BODY_REMOVED");
}

#[tokio::test]
async fn a_row_that_is_given_up_goes_and_its_reason_stays() {
    let stage = stage().await;
    let (staging, place) = (stage.staging.by("ana"), stage.whole_place());
    let give_up = async |id: &str, reason: &str, dry_run| {
        staging.discard(&place, id, (reason, dry_run)).await.map(|row| row.id())
    };
    for (id, reason, code) in [
        ("100.1.0", " ", Code::BadRequest),
        ("100.1.0", "a\nb", Code::BadRequest),
        ("100.1.0", &*"x".repeat(501), Code::BadRequest),
        ("100.1.7", "known", Code::NotFound),
        ("100", "known", Code::BadId),
    ] {
        assert_eq!(give_up(id, reason, false).await.unwrap_err().code, code, "{id} {reason:?}");
    }
    assert_eq!(give_up("100.1.0", "a test row", true).await.unwrap(), "100.1.0");
    assert_eq!(stage.quarantine("", 9).await.len(), 2);
    let noted = "SELECT count(*) FROM audit WHERE action = 'quarantine.discard'";
    assert_eq!(stage.trial.count(noted), 0);
    give_up("100.1.0", "a test row", false).await.unwrap();
    assert_eq!(ids(&stage.quarantine("", 9).await), ["100.1.1"]);
    assert_eq!(give_up("100.1.0", "twice", false).await.unwrap_err().code, Code::NotFound);
    let noted = "SELECT count(*) FROM audit WHERE action = 'quarantine.discard' AND who = 'ana'
                    AND target LIKE '%row 100.1.0' AND detail = 'table flan: a test row'";
    assert_eq!(stage.trial.count(noted), 1);
}

#[tokio::test]
async fn a_file_of_an_older_program_is_taken_over() {
    let stage = stage().await;
    if !stage.trial.is_a_file() {
        // No older program made a schema.
        return;
    }
    stage.in_space(
        r#"DROP TABLE malote_tables;
           CREATE TABLE malote_tables (name_folded TEXT PRIMARY KEY, name TEXT NOT NULL, key_columns TEXT NOT NULL)
           STRICT, WITHOUT ROWID;
           INSERT INTO malote_tables VALUES ('flan', 'FLAN', '["id"]');
           CREATE TABLE older AS SELECT batch, message, row_at, table_folded, code, reason, cells, at
                            FROM malote_quarantine;
           DROP TABLE malote_quarantine;
           ALTER TABLE older RENAME TO malote_quarantine;"#,
    );
    let staging = Staging::new(stage.trial.store.clone(), &stage.trial.data());
    let stage = Stage { staging, ..stage };
    let newer: [Cells<'_>; 1] = [&[("ID", "1"), ("N", "new")]];
    stage.send((100, 2), TEXT, &newer).await;
    stage.caught_up().await;
    let expected = told(&[("100.1.0", "superseded"), ("100.1.1", "applied")]);
    assert_eq!(retry(&stage, Which::All, false).await, expected);
}
