use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::ids::Generation;

use super::*;

mod halting;
mod history;
mod orders;
mod verifying;

fn table(name: &str) -> TableName {
    name.parse().unwrap()
}

fn key(text: &str) -> KeyBytes {
    KeyBytes::of([text])
}

fn hash(n: u8) -> RowHash {
    RowHash([n; 16])
}

fn message(number: i32, of: &str, known: &[(&str, Option<u8>)]) -> SpoolMessage {
    SpoolMessage {
        number: MessageNumber(number),
        table: table(of),
        rows: u32::try_from(known.len()).unwrap(),
        bytes: format!("message {number}").into_bytes().into(),
        known: known.iter().map(|(k, h)| (key(k), h.map(hash))).collect(),
    }
}

fn seal_of(messages: u32, cursors: &[(&str, &[u8])]) -> Seal {
    Seal {
        messages,
        records: messages,
        start: Some(1),
        end: 2,
        cursors: cursors.iter().map(|(t, c)| (table(t), c.to_vec())).collect(),
        loads_done: vec![(table("FLAN"), Generation(3))],
        deletes_done: vec![table("SE1")],
        reloads_done: Vec::new(),
    }
}

fn grant_of(epoch: u64, last: i64) -> Grant {
    Grant { epoch: Epoch(epoch), last_batch: BatchId(last), cursors: BTreeMap::new() }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
    async fn open(&self) -> Journal {
        Journal::open(self.folder.path()).await.unwrap().0
    }
}

async fn hashes(journal: &Journal, of: &str, keys: &[&str]) -> Vec<Option<RowHash>> {
    journal.known(&table(of), keys.iter().map(|k| key(k)).collect()).await.unwrap()
}

/// A batch with an upsert and a delete, sealed.
async fn sealed_batch(journal: &Journal, batch: i64) {
    let batch = BatchId(batch);
    let epoch = journal.granted().borrow().clone().unwrap().epoch;
    journal.open_batch(epoch, batch, Wall(0)).await.unwrap();
    let messages = vec![
        message(1, "FLAN", &[("a", Some(1)), ("b", Some(2))]),
        message(2, "TMOV", &[("x", None)]),
    ];
    journal.append(batch, messages).await.unwrap();
    journal.seal(batch, seal_of(2, &[("FLAN", b"c1")])).await.unwrap();
}

#[tokio::test]
async fn a_complete_batch_moves_known_rows_and_cursors_and_leaves_an_empty_spool() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    journal.known_load(&table("TMOV"), vec![(key("x"), hash(9))]).await.unwrap();
    sealed_batch(&journal, 11).await;
    assert_eq!(
        hashes(&journal, "FLAN", &["a"]).await,
        [None],
        "nothing is known before the Summary"
    );
    let mut granted = journal.granted();
    granted.mark_unchanged();
    journal
        .acked(BatchId(11), vec![MessageNumber(2), MessageNumber(1), MessageNumber(1)])
        .await
        .unwrap();
    let state = journal.spool().borrow().clone();
    assert_eq!((state.acked, state.unacked_bytes, state.sealed), (2, 0, true));
    journal.complete(BatchId(11), Wall(0)).await.unwrap();
    assert_eq!(
        hashes(&journal, "flan", &["a", "b", "c"]).await,
        [Some(hash(1)), Some(hash(2)), None]
    );
    assert_eq!(hashes(&journal, "TMOV", &["x"]).await, [None]);
    let state = journal.spool().borrow().clone();
    assert_eq!(state, SpoolState { completed: Some(BatchId(11)), ..SpoolState::default() });
    assert!(!granted.has_changed().unwrap(), "a completed batch is no new grant");
    let grant = granted.borrow().clone().unwrap();
    assert_eq!(
        (grant.cursors[&table("FLAN")].as_slice(), grant.last_batch),
        (b"c1".as_slice(), BatchId(11))
    );
    assert_eq!(journal.cursors().await.unwrap()[&table("FLAN")], b"c1");
}

#[tokio::test]
async fn a_dropped_batch_leaves_its_keys_unsure_and_ends_the_grant() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    journal
        .known_load(&table("TMOV"), vec![(key("x"), hash(9)), (key("y"), hash(8))])
        .await
        .unwrap();
    sealed_batch(&journal, 11).await;
    journal.drop_batch(Code::MessageConflict, "test", Wall(0)).await.unwrap();
    assert_eq!(hashes(&journal, "FLAN", &["a", "b"]).await, [Some(known::ZERO), Some(known::ZERO)]);
    assert_eq!(hashes(&journal, "TMOV", &["x", "y"]).await, [Some(known::ZERO), Some(hash(8))]);
    assert!(journal.granted().borrow().is_none());
    let append = journal.append(BatchId(11), vec![message(3, "FLAN", &[])]).await;
    assert_eq!(append.unwrap_err().code, Code::Fenced);
    assert_eq!(
        journal.open_batch(Epoch(7), BatchId(12), Wall(0)).await.unwrap_err().code,
        Code::Fenced
    );
    assert_eq!(journal.spool().borrow().dropped, 1);
}

#[tokio::test]
async fn a_kill_after_any_step_shows_exactly_what_was_promised_when_the_journal_is_opened_again() {
    let place = Place::new();
    let instance = {
        let journal = place.open().await;
        journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
        journal.open_batch(Epoch(7), BatchId(11), Wall(0)).await.unwrap();
        journal.append(BatchId(11), vec![message(1, "FLAN", &[("a", Some(1))])]).await.unwrap();
        journal.acked(BatchId(11), vec![MessageNumber(1)]).await.unwrap();
        journal.instance()
    };
    {
        let journal = place.open().await;
        assert_eq!(journal.instance(), instance);
        assert_eq!(journal.last_epoch().await.unwrap(), Some(Epoch(7)));
        assert_eq!(journal.last_batch().await.unwrap(), Some(BatchId(11)));
        let state = journal.spool().borrow().clone();
        assert_eq!((state.batch, state.appended, state.acked), (Some(BatchId(11)), 1, 0));
        assert!(journal.granted().borrow().is_none(), "no grant before uplink spoke to the server");
        let again = journal.unacked(BatchId(11), MessageNumber(0), 1 << 20).await.unwrap();
        assert_eq!(again[0].bytes, "message 1".as_bytes());
        // Not sealed: resume drops it, and the key is unsure.
        journal.resume(Epoch(7), Wall(0)).await.unwrap();
        assert_eq!(journal.spool().borrow().batch, None);
        assert_eq!(hashes(&journal, "FLAN", &["a"]).await, [Some(known::ZERO)]);
        sealed_batch(&journal, 12).await;
    }
    {
        let journal = place.open().await;
        journal.resume(Epoch(7), Wall(0)).await.unwrap();
        let grant = journal.granted().borrow().clone().unwrap();
        assert_eq!(
            (grant.last_batch, grant.cursors[&table("FLAN")].as_slice()),
            (BatchId(12), b"c1".as_slice())
        );
        assert!(journal.cursors().await.unwrap().is_empty(), "not committed before the Summary");
        let seal = journal.sealed(BatchId(12)).await.unwrap().unwrap();
        assert_eq!(seal, seal_of(2, &[("FLAN", b"c1")]));
        journal.complete(BatchId(12), Wall(0)).await.unwrap();
    }
    let journal = place.open().await;
    assert_eq!(journal.spool().borrow().batch, None);
    assert_eq!(hashes(&journal, "FLAN", &["a"]).await, [Some(hash(1))]);
    assert_eq!(journal.cursors().await.unwrap()[&table("FLAN")], b"c1");
}

#[tokio::test]
async fn a_damaged_journal_is_moved_aside_and_a_damaged_record_is_told() {
    let place = Place::new();
    let file = place.folder.path().join("journal.sqlite");
    {
        let journal = place.open().await;
        journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
        sealed_batch(&journal, 5).await;
    }
    drop(place.open().await);
    {
        let raw = rusqlite::Connection::open(&file).unwrap();
        raw.execute("UPDATE spool SET bytes = x'00', known = x'00' WHERE number = 2", []).unwrap();
    }
    {
        let journal = place.open().await;
        journal.resume(Epoch(1), Wall(0)).await.unwrap();
        let read = journal.unacked(BatchId(5), MessageNumber(0), 1 << 20).await;
        assert_eq!(read.unwrap_err().code, Code::JournalCorrupt);
        journal.drop_batch(Code::JournalCorrupt, "test", Wall(0)).await.unwrap();
        assert!(
            journal.known_is_foreign(BatchId(5)).await.unwrap(),
            "lost keys make the known rows foreign"
        );
    }
    drop(place.open().await);
    std::fs::write(&file, vec![7u8; 20_000]).unwrap();
    let (journal, recovery) = Journal::open(place.folder.path()).await.unwrap();
    assert_eq!(recovery, Recovery::Replaced);
    assert_eq!(journal.last_epoch().await.unwrap(), None);
    assert!(place.folder.path().join("journal.damaged-1").exists());
}

/// A journal with a sealed batch, changed in its file while nobody has it open.
async fn changed(sql: &str) -> (Place, Journal) {
    let place = Place::new();
    {
        let journal = place.open().await;
        let cursors = BTreeMap::from([(table("FLAN"), b"c0".to_vec())]);
        journal.grant(Grant { cursors, ..grant_of(1, 0) }, Wall(0)).await.unwrap();
        sealed_batch(&journal, 5).await;
    }
    // Waits until the thread of the first one has closed the file.
    drop(place.open().await);
    let file = place.folder.path().join("journal.sqlite");
    rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    let journal = place.open().await;
    (place, journal)
}

#[tokio::test]
async fn f63_a_message_that_changed_its_number_table_or_rows_is_told_as_damaged() {
    for sql in [
        "UPDATE spool SET number = 3 WHERE number = 2",
        "UPDATE spool SET table_id = 1 WHERE number = 2",
        "UPDATE spool SET row_count = 9 WHERE number = 2",
        "UPDATE spool SET bytes = x'00' WHERE number = 2",
    ] {
        let (_place, journal) = changed(sql).await;
        journal.resume(Epoch(1), Wall(0)).await.unwrap();
        let read = journal.unacked(BatchId(5), MessageNumber(0), 1 << 20).await;
        assert_eq!(read.unwrap_err().code, Code::JournalCorrupt, "{sql}");
        journal.drop_batch(Code::JournalCorrupt, "test", Wall(0)).await.unwrap();
    }
}

#[tokio::test]
async fn f63_a_damaged_seal_is_told_and_a_damaged_cursor_entry_is_left_out() {
    for sql in [
        "UPDATE batch SET seal = replace(seal, '\"end\":2', '\"end\":3')",
        "UPDATE batch SET id = 6, seal = seal",
        "UPDATE batch SET seal = CAST(x'ff' AS TEXT)",
        "DELETE FROM spool WHERE number = 2",
    ] {
        let (_place, journal) = changed(sql).await;
        let resumed = journal.resume(Epoch(1), Wall(0)).await;
        assert_eq!(resumed.unwrap_err().code, Code::JournalCorrupt, "{sql}");
        journal.revoke(Code::JournalCorrupt, "test", Wall(0)).await.unwrap();
        assert_eq!(journal.spool().borrow().batch, None);
        journal.grant(grant_of(2, 9), Wall(0)).await.unwrap();
        sealed_batch(&journal, 10).await;
        journal.complete(BatchId(10), Wall(0)).await.unwrap();
    }
    let (_place, journal) = changed("UPDATE cursor SET value = x'63ff'").await;
    assert!(journal.cursors().await.unwrap().is_empty());
    let (_place, journal) = changed("SELECT 1").await;
    assert_eq!(journal.cursors().await.unwrap().len(), 1);
}

#[tokio::test]
async fn f63_a_journal_with_a_record_of_another_kind_is_moved_aside_and_the_agent_starts() {
    for sql in [
        "UPDATE fact SET value = 'x' WHERE name = 'granted_batch'",
        "INSERT INTO fact VALUES ('epoch', x'ff') ON CONFLICT DO UPDATE SET value = excluded.value",
        "UPDATE named SET name = CAST(x'ff' AS TEXT)",
        "UPDATE named SET name = ''",
        "UPDATE named SET name = 'TMOW' WHERE name = 'TMOV'",
        "INSERT INTO halt VALUES (0, CAST(x'ff' AS TEXT), '', 0)",
        "DROP TABLE spool",
        "DELETE FROM batch",
        "ALTER TABLE batch RENAME COLUMN opened_micros TO opened_nicros",
    ] {
        let (_place, journal) = changed(sql).await;
        assert_eq!(journal.last_epoch().await.unwrap(), None, "{sql}");
        assert_eq!(journal.spool().borrow().batch, None);
    }
}

#[tokio::test]
async fn f63_damage_that_a_write_meets_ends_the_process_once_and_the_next_start_begins_anew() {
    // The table of known rows begins at a page that is not there; the next use of the schema meets it.
    let hide = "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 999999 WHERE name = 'known';
                PRAGMA schema_version = 1000";
    let place = Place::new();
    drop(place.open().await);
    drop(place.open().await);
    let file = place.folder.path().join("journal.sqlite");
    let journal = place.open().await;
    journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
    // Behind the journal's back, while it is open.
    rusqlite::Connection::open(&file).unwrap().execute_batch(hide).unwrap();
    let failed = journal.known_load(&table("T"), vec![(key("a"), hash(1))]).await.unwrap_err();
    assert_eq!(failed.code, Code::JournalFailed, "{failed:?}");
    assert!(damage::mark_of(&file).exists(), "{failed:?}");
    drop(journal);
    let (journal, recovery) = Journal::open(place.folder.path()).await.unwrap();
    assert_eq!((recovery, damage::mark_of(&file).exists()), (Recovery::Replaced, false));
    journal.known_load(&table("T"), vec![(key("a"), hash(1))]).await.unwrap();
}

#[tokio::test]
async fn a_second_process_and_a_newer_journal_are_refused() {
    let place = Place::new();
    let (journal, recovery) = Journal::open(place.folder.path()).await.unwrap();
    assert_eq!(recovery, Recovery::Fresh);
    assert_eq!(Journal::open(place.folder.path()).await.unwrap_err().code, Code::StoreBusy);
    drop(journal);
    drop(place.open().await);
    let file = place.folder.path().join("journal.sqlite");
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert_eq!(Journal::open(place.folder.path()).await.unwrap_err().code, Code::StoreVersion);
}

#[tokio::test]
async fn unacked_messages_come_in_order_within_the_bytes_and_come_again_after_a_gap() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
    let batch = BatchId(1);
    journal.open_batch(Epoch(1), batch, Wall(0)).await.unwrap();
    let messages = (1..=5).map(|n| message(n, "FLAN", &[("a", Some(1))])).collect();
    journal.append(batch, messages).await.unwrap();
    let numbers = async |after: i32, bytes: usize| -> Vec<i32> {
        let found = journal.unacked(batch, MessageNumber(after), bytes).await.unwrap();
        found.iter().map(|message| message.number.0).collect()
    };
    assert_eq!(numbers(0, 1).await, [1]);
    assert_eq!(numbers(0, 18).await, [1, 2]);
    journal.acked(batch, [1, 2, 4].map(MessageNumber).to_vec()).await.unwrap();
    assert_eq!(numbers(0, 1000).await, [3, 5]);
    journal.unack(batch, MessageNumber(2)).await.unwrap();
    assert_eq!(numbers(0, 1000).await, [2, 3, 4, 5]);
    let state = journal.spool().borrow().clone();
    assert_eq!((state.acked, state.unacked_bytes), (1, 36));
    let skipped = journal.append(batch, vec![message(7, "FLAN", &[])]).await;
    assert_eq!(skipped.unwrap_err().code, Code::Internal);
    assert_eq!(journal.spool().borrow().appended, 5);
}

#[tokio::test]
async fn known_rows_are_foreign_only_where_another_sender_was_last() {
    let place = Place::new();
    let journal = place.open().await;
    assert!(!journal.known_is_foreign(BatchId(0)).await.unwrap(), "both none");
    assert!(journal.known_is_foreign(BatchId(9)).await.unwrap());
    journal.grant(grant_of(1, 9), Wall(0)).await.unwrap();
    journal.open_batch(Epoch(1), BatchId(10), Wall(0)).await.unwrap();
    journal.drop_batch(Code::Fenced, "test", Wall(0)).await.unwrap();
    for (last, foreign) in [(9, false), (10, false), (11, true), (8, true)] {
        assert_eq!(journal.known_is_foreign(BatchId(last)).await.unwrap(), foreign, "{last}");
    }
    journal.grant(grant_of(2, 9), Wall(0)).await.unwrap();
    assert!(
        journal.known_is_foreign(BatchId(10)).await.unwrap(),
        "an id never accepted is another's now"
    );
}

#[tokio::test]
async fn a_server_of_an_older_copy_is_told_by_its_epoch_its_last_batch_or_its_cursors() {
    let place = Place::new();
    let journal = place.open().await;
    let grant = |epoch: u64, last: i64, cursor: &[u8]| {
        let cursors = [(table("FLAN"), cursor.to_vec())].into();
        Grant { epoch: Epoch(epoch), last_batch: BatchId(last), cursors }
    };
    assert!(!journal.is_set_back(&grant(1 << 40, 9, b"a")).await.unwrap(), "nothing is known yet");
    journal.grant(grant(1, 9, b"a"), Wall(0)).await.unwrap();
    for (offered, back, why) in [
        (grant(2, 9, b"a"), false, "as it was"),
        (grant(2, 11, b"b"), false, "another sender went on"),
        (grant(1 + protocol::limits::RESTORE_EPOCHS, 99, b"a"), true, "the step of a restore"),
        (grant(2, 8, b"a"), true, "a batch is gone"),
        (grant(2, 9, b"b"), true, "the last batch is known, and not what it committed"),
        (Grant { cursors: BTreeMap::new(), ..grant(2, 9, b"") }, true, "an entry is gone"),
    ] {
        assert_eq!(journal.is_set_back(&offered).await.unwrap(), back, "{why}");
    }
    // Of a batch whose end this journal never learned the server may have committed the entries.
    journal.open_batch(Epoch(1), BatchId(10), Wall(0)).await.unwrap();
    assert!(!journal.is_set_back(&grant(2, 10, b"b")).await.unwrap());
}

#[tokio::test]
async fn a_scan_finds_known_keys_that_were_not_seen() {
    let place = Place::new();
    let journal = place.open().await;
    let of = table("FLAN");
    let rows = ["a", "b", "c", "d"].map(|k| (key(k), hash(1))).to_vec();
    journal.known_load(&of, rows).await.unwrap();
    journal.scan_begin(&of).await.unwrap();
    journal.scan_seen(&of, vec![key("b"), key("z")]).await.unwrap();
    assert_eq!(journal.scan_missing(&of, None, 2).await.unwrap(), [key("a"), key("c")]);
    assert_eq!(journal.scan_missing(&of, Some(key("c")), 2).await.unwrap(), [key("d")]);
    journal.scan_begin(&of).await.unwrap();
    assert_eq!(journal.scan_missing(&of, None, 9).await.unwrap().len(), 4);
    assert_eq!(journal.known_count(&of).await.unwrap(), 4);
    journal.known_clear(&of).await.unwrap();
    assert_eq!(journal.known_count(&of).await.unwrap(), 0);
}

#[tokio::test]
async fn people_see_incidents_and_their_reloads_are_numbered_upwards() {
    let place = Place::new();
    let journal = place.open().await;
    let incident = |words: &str| Incident {
        table: Some(table("SE1")),
        key_hash: None,
        code: Code::PrimaryKeyChanged,
        words: words.to_owned(),
        at_micros: 1,
    };
    journal.incident(incident("first")).await.unwrap();
    let parked = apart::Parked {
        code: Code::PrimaryKeyChanged,
        words: "second".to_owned(),
        retry: None,
        schema: None,
    };
    journal.park(&table("SE1"), parked, runtime::clock::Wall(1)).await.unwrap();
    assert_eq!(journal.incidents(1).await.unwrap(), [incident("second")]);
    assert_eq!(journal.parked()[&table("se1")].code, Code::PrimaryKeyChanged);
    assert_eq!(journal.request_reload(None).await.unwrap_err().code, Code::NotFound);
    journal.request_reload(Some(table("SE1"))).await.unwrap();
    assert!(journal.parked().is_empty(), "a reload lifts the parking");
    let first = journal.reload_requests().await.unwrap()[&table("SE1")];
    journal.request_reload(Some(table("SE1"))).await.unwrap();
    assert!(journal.reload_requests().await.unwrap()[&table("SE1")] > first);
}

#[tokio::test]
async fn a_plan_is_told_only_where_it_differs() {
    let place = Place::new();
    let journal = place.open().await;
    let mut changed = journal.plan_changed();
    let plan: Entities = serde_json::from_str(
        r#"{"uploadVersion":2,"queries":[{"table":"SE1","filter":null,"forceReload":false}]}"#,
    )
    .unwrap();
    journal.save_plan(plan.clone()).await.unwrap();
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    journal.save_plan(plan.clone()).await.unwrap();
    assert!(!changed.has_changed().unwrap());
    assert_eq!(journal.plan().await.unwrap(), Some(plan));
}

#[tokio::test]
async fn a_suspect_is_cleared_once_as_many_rows_went_through() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
    sealed_batch(&journal, 1).await;
    journal.suspect(&table("FLAN"), Code::InvalidArgument, "test").await.unwrap();
    assert_eq!(journal.suspects()[&table("FLAN")].rows_left, 2);
    journal.drop_batch(Code::InvalidArgument, "test", Wall(0)).await.unwrap();
    journal.grant(grant_of(2, 0), Wall(0)).await.unwrap();
    sealed_batch(&journal, 2).await;
    journal.complete(BatchId(2), Wall(0)).await.unwrap();
    assert!(journal.suspects().is_empty());
    let row = Poisoned {
        table: table("FLAN"),
        key: key("a"),
        hash: hash(1),
        code: Code::InvalidArgument,
        words: "test".into(),
        at_micros: 5,
    };
    journal.quarantine(row, "00".into(), 0).await.unwrap();
    assert_eq!(
        journal.quarantined(&table("FLAN")).await.unwrap(),
        BTreeMap::from([(key("a"), hash(1))])
    );
    assert_eq!(journal.incidents(9).await.unwrap().len(), 1);
    journal.forgive(&table("FLAN"), vec![key("a")]).await.unwrap();
    assert!(journal.quarantined(&table("FLAN")).await.unwrap().is_empty());
}

type Rows = Vec<(u8, Option<u8>)>;

#[derive(Clone, Debug)]
enum Step {
    Send(Rows),
    Complete,
    Drop,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let rows = proptest::collection::vec((0..12u8, proptest::option::of(1..9u8)), 1..6);
    prop_oneof![
        4 => rows.prop_map(Step::Send),
        2 => Just(Step::Complete),
        1 => Just(Step::Drop),
        1 => Just(Step::Kill),
    ]
}

#[derive(Default)]
struct Model {
    known: BTreeMap<u8, u8>,
    open: Option<Vec<Rows>>,
    last: i64,
    epoch: u64,
}

impl Model {
    fn lose(&mut self) {
        for (key, _) in self.open.take().into_iter().flatten().flatten() {
            self.known.insert(key, 0);
        }
    }
}

async fn play(place: &Place, mut journal: Journal, model: &mut Model, step: Step) -> Journal {
    match step {
        Step::Send(rows) => {
            if model.open.is_none() {
                model.last += 1;
                journal.open_batch(Epoch(model.epoch), BatchId(model.last), Wall(0)).await.unwrap();
                model.open = Some(Vec::new());
            }
            let open = model.open.as_mut().unwrap();
            open.push(rows.clone());
            let texts: Vec<_> = rows.iter().map(|(k, h)| (k.to_string(), *h)).collect();
            let known: Vec<_> = texts.iter().map(|(k, h)| (k.as_str(), *h)).collect();
            let number = i32::try_from(open.len()).unwrap();
            journal.append(BatchId(model.last), vec![message(number, "T", &known)]).await.unwrap();
        }
        Step::Complete => {
            if let Some(open) = model.open.take() {
                let messages = u32::try_from(open.len()).unwrap();
                journal.seal(BatchId(model.last), seal_of(messages, &[])).await.unwrap();
                journal.complete(BatchId(model.last), Wall(0)).await.unwrap();
                for (key, hash) in open.into_iter().flatten() {
                    match hash {
                        Some(hash) => model.known.insert(key, hash),
                        None => model.known.remove(&key),
                    };
                }
            }
        }
        Step::Drop => {
            journal.drop_batch(Code::SequenceGap, "test", Wall(0)).await.unwrap();
            model.lose();
            model.epoch += 1;
            journal.grant(grant_of(model.epoch, model.last), Wall(0)).await.unwrap();
        }
        Step::Kill => {
            drop(journal);
            journal = place.open().await;
            journal.resume(Epoch(model.epoch), Wall(0)).await.unwrap();
            model.lose();
        }
    }
    journal
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn known_rows_follow_the_model_through_drops_and_kills(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let mut journal = place.open().await;
            let mut model = Model { epoch: 1, ..Model::default() };
            journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
            for step in steps {
                journal = play(&place, journal, &mut model, step).await;
                let keys: Vec<u8> = (0..12).collect();
                let asked = keys.iter().map(|k| key(&k.to_string())).collect();
                let found = journal.known(&table("T"), asked).await.unwrap();
                let wanted: Vec<_> = keys.iter().map(|k| model.known.get(k).map(|h| hash(*h))).collect();
                assert_eq!(found, wanted);
            }
        });
    }
}

#[tokio::test]
async fn refused_rows_are_counted_in_a_row_and_in_all_until_a_batch_of_their_table_is_accepted() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    let refused = async |taken: u64| {
        let row = Poisoned {
            table: table("FLAN"),
            key: key("a"),
            hash: hash(1),
            code: Code::InvalidArgument,
            words: "w".to_owned(),
            at_micros: 1,
        };
        let refusals = journal.quarantine(row, "00".into(), taken).await.unwrap();
        (refusals.in_a_row, refusals.all)
    };
    assert_eq!(
        [refused(2).await, refused(2).await],
        [(1, 1), (2, 2)],
        "two rows that follow each other"
    );
    assert_eq!(refused(3).await, (1, 3), "a row between them was taken");
    assert_eq!(refused(3).await, (2, 4));
    sealed_batch(&journal, 11).await;
    journal.complete(BatchId(11), Wall(0)).await.unwrap();
    assert_eq!(refused(3).await, (1, 1), "a batch was accepted");
}

#[tokio::test]
async fn an_answer_to_deletes_holds_for_its_number_or_fewer_and_outlives_the_process() {
    let place = Place::new();
    let journal = place.open().await;
    let of = table("FLAN");
    let count = async |journal: &Journal, gone: u64| {
        let counted = Counted { gone, known: 1_000, cap: 500 };
        journal.count_deletes(&of, counted, runtime::clock::Wall(gone.cast_signed())).await.unwrap()
    };
    let say = async |journal: &Journal, answer: Answer| {
        let verdict = Verdict { table: table("flan"), answer, rows: None, dry_run: false };
        journal.answer_deletes(verdict).await
    };
    assert_eq!(say(&journal, Answer::Confirmed).await.unwrap_err().code, Code::NotFound);
    for gone in [700, 650, 700] {
        assert_eq!(count(&journal, gone).await, Answer::Waiting);
    }
    assert_eq!(journal.capped()[&of].since_micros, 700, "since the first count");
    assert_eq!(journal.incidents(9).await.unwrap().len(), 1);
    let mut changed = journal.plan_changed();
    changed.mark_unchanged();
    say(&journal, Answer::Refused).await.unwrap();
    assert!(changed.has_changed().unwrap(), "capture is woken");
    assert!(journal.incidents(9).await.unwrap().is_empty());
    for gone in [700, 600] {
        assert_eq!(count(&journal, gone).await, Answer::Refused);
    }
    assert_eq!(count(&journal, 701).await, Answer::Waiting, "more than was refused");
    say(&journal, Answer::Confirmed).await.unwrap();
    drop(journal);
    let journal = place.open().await;
    assert_eq!(count(&journal, 700).await, Answer::Confirmed);
    assert_eq!(count(&journal, 702).await, Answer::Waiting, "more than was confirmed");
    journal.settle_deletes(&of).await.unwrap();
    assert!(journal.capped().is_empty() && journal.incidents(9).await.unwrap().is_empty());
    drop(journal);
    assert!(place.open().await.capped().is_empty());
}

#[tokio::test]
async fn a_batch_above_the_spool_s_budget_is_refused_whole_and_the_batch_before_it_is_kept() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(1, 0), Wall(0)).await.unwrap();
    let batch = BatchId(1);
    journal.open_batch(Epoch(1), batch, Wall(0)).await.unwrap();
    let large = |number: i32| SpoolMessage {
        bytes: vec![0u8; 64 * 1024 * 1024].into(),
        ..message(number, "FLAN", &[])
    };
    for number in 1..=4 {
        journal.append(batch, vec![large(number)]).await.unwrap();
    }
    let over = journal.append(batch, vec![message(5, "FLAN", &[("a", Some(1))])]).await;
    assert_eq!(over.unwrap_err().code, Code::DiskFull, "256 MB are used up");
    let state = journal.spool().borrow().clone();
    assert_eq!((state.batch, state.appended), (Some(batch), 4));
    journal.drop_batch(Code::DiskFull, "test", Wall(0)).await.unwrap();
    journal.grant(grant_of(2, 1), Wall(0)).await.unwrap();
    journal.open_batch(Epoch(2), BatchId(2), Wall(0)).await.unwrap();
    journal.append(BatchId(2), vec![message(1, "FLAN", &[("a", Some(1))])]).await.unwrap();
}

#[tokio::test]
async fn rows_that_are_told_push_out_nothing_that_was_told_of_a_table() {
    let place = Place::new();
    let journal = place.open().await;
    let of = |key_hash: Option<&str>, words: &str| Incident {
        table: Some(table("SE1")),
        key_hash: key_hash.map(str::to_owned),
        code: Code::DeletesCapped,
        words: words.to_owned(),
        at_micros: 1,
    };
    for told in [of(None, "older"), of(None, "table"), of(Some("aa"), "old row")] {
        journal.incident(told).await.unwrap();
    }
    // As if ten thousand rows had come since.
    let many = "UPDATE sqlite_sequence SET seq = seq + 10000 WHERE name = 'incident'";
    let path = place.folder.path().join("journal.sqlite");
    rusqlite::Connection::open(path).unwrap().execute_batch(many).unwrap();
    journal.incident(of(Some("bb"), "new row")).await.unwrap();
    let words: Vec<String> =
        journal.incidents(9).await.unwrap().into_iter().map(|told| told.words).collect();
    assert_eq!(words, ["new row", "table"]);
}
