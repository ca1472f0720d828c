//! Every row of the contract's table of answers (`contracts.md` 5.5), end to end: what a server says, and what the sender
//! does about it. One test a row, by its name.
//!
//! Promises: each answer comes to the second of three messages, or to the call that the row names.

use tonic::Code as Grpc;

use super::*;

/// A stage whose first batch meets the fault; and the batch, written.
async fn met(fault: Fault) -> (Stage, Grant, BatchId) {
    let double = Double::start().await;
    double.script(2, fault);
    written(double).await
}

async fn written(double: Double) -> (Stage, Grant, BatchId) {
    let stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 3).await;
    (stage, grant, batch)
}

impl Stage {
    /// How often a message was written.
    fn times_written(&self, batch: BatchId, number: i32) -> usize {
        self.double.seen().writes.iter().filter(|at| **at == (batch.0, number)).count()
    }

    fn dropped(&self) -> u64 {
        self.journal.spool().borrow().dropped
    }

    /// The batch goes through although an answer came between, and nothing was stored twice.
    async fn goes_through(mut self, batch: BatchId) -> Self {
        self.complete(batch).await;
        let seen = self.double.look();
        assert_eq!((seen.stored[&batch.0].len(), seen.conflicts), (3, 0));
        assert_eq!(self.dropped(), 0);
        self.stop().await.unwrap();
        self
    }

    /// The batch is dropped: Release, Open, and a batch with a higher id goes through.
    async fn drops(&self, grant: &Grant, batch: BatchId) {
        let next = self.grant(grant.epoch.0).await;
        assert_eq!(self.dropped(), 1);
        assert!(next.epoch > grant.epoch);
        assert_eq!(self.double.seen().released, [grant.epoch.0], "Release comes before Open");
        let again = self.write(&next, 3).await;
        assert!(again > batch);
        self.complete(again).await;
    }

    async fn told(&self, code: Code) -> usize {
        let incidents = self.journal.incidents(50).await.unwrap();
        incidents.iter().filter(|incident| incident.code == code).count()
    }

    /// The table of the refused message is parked with that code, people are told, the batch is dropped.
    async fn parks(&self, grant: &Grant, code: Code) {
        self.grant(grant.epoch.0).await;
        assert_eq!(self.journal.parked()[&table_name("FLAN")].code, code);
        assert_eq!((self.dropped(), self.told(code).await), (1, 1));
    }
}

#[tokio::test]
async fn row_unauthenticated_renews_the_token_and_repeats_the_same_message() {
    let fault = Fault::Status(Grpc::Unauthenticated, "UNAUTHENTICATED: expired", None);
    let (stage, _, batch) = met(fault).await;
    let stage = stage.goes_through(batch).await;
    assert_eq!(stage.double.seen().tokens, 2);
    assert_eq!(stage.times_written(batch, 2), 2);
}

#[tokio::test]
async fn row_permission_denied_parks_the_table_reads_entities_again_tells_and_drops() {
    let fault = Fault::Status(Grpc::PermissionDenied, "PERMISSION_DENIED: no", None);
    let (mut stage, grant, _) = met(fault).await;
    stage.parks(&grant, Code::PermissionDenied).await;
    let read = stage.double.seen().entities;
    within(stage.double.until(move |seen| seen.entities > read)).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_permission_denied_to_the_summary_reads_entities_again_tells_and_drops() {
    let double = Double::start().await;
    let fault = Fault::Status(Grpc::PermissionDenied, "PERMISSION_DENIED: no", None);
    double.seen().summary_script.push_back(fault);
    // Read again long before its time.
    let mut stage = Stage::reading(double, Duration::from_secs(3_600)).await;
    let grant = stage.grant(0).await;
    let read = stage.double.seen().entities;
    let batch = stage.write(&grant, 3).await;
    stage.drops(&grant, batch).await;
    assert_eq!(stage.told(Code::PermissionDenied).await, 1);
    within(stage.double.until(move |seen| seen.entities > read)).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_invalid_argument_is_not_repeated_but_narrowed_down_to_the_row_and_drops() {
    let fault = Fault::Status(Grpc::InvalidArgument, "INVALID_ARGUMENT: x", None);
    let (mut stage, grant, batch) = met(fault).await;
    let next = stage.grant(grant.epoch.0).await;
    assert_eq!(stage.times_written(batch, 2), 1, "not repeated");
    assert_eq!(stage.dropped(), 1);
    // It was alone in its message: quarantined, and told.
    assert_eq!(stage.journal.quarantined(&table_name("FLAN")).await.unwrap().len(), 1);
    assert_eq!(stage.told(Code::InvalidArgument).await, 1);
    // One of several is sought first.
    stage.double.script(1, fault);
    let batch = next.last_batch.next();
    stage.journal.open_batch(next.epoch, batch, runtime::clock::Wall(0)).await.unwrap();
    stage.journal.append(batch, vec![message(batch, 1, "TMOV", &["a", "b"])]).await.unwrap();
    stage.grant(next.epoch.0).await;
    assert_eq!(stage.journal.suspects()[&table_name("TMOV")].rows_left, 2);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_out_of_range_or_resource_exhausted_without_retry_info_splits_or_quarantines_and_drops()
{
    for (status, words) in [
        (Grpc::OutOfRange, "message length too large"),
        (Grpc::ResourceExhausted, "MESSAGE_TOO_LARGE: 6 MB"),
        (Grpc::ResourceExhausted, "BODY_TOO_LARGE: 6 MB"),
        (Grpc::ResourceExhausted, "ROW_TOO_LARGE: 6 MB"),
        (Grpc::ResourceExhausted, "a foreign server's words"),
    ] {
        let (mut stage, grant, batch) = met(Fault::Status(status, words, None)).await;
        stage.grant(grant.epoch.0).await;
        assert_eq!((stage.dropped(), stage.times_written(batch, 2)), (1, 1), "{words}");
        let refused = stage.journal.quarantined(&table_name("FLAN")).await.unwrap();
        assert_eq!(refused.len(), 1, "{words}");
        assert_eq!(stage.told(Code::MessageTooLarge).await, 1, "{words}");
        stage.stop().await.unwrap();
    }
}

#[tokio::test]
async fn row_resource_exhausted_with_retry_info_waits_the_time_given_and_repeats_the_same_bytes() {
    for words in ["RATE_LIMITED: x", "DISK_FULL: x", "a foreign server's words"] {
        let begun = runtime::clock::Mono::now();
        let (stage, _, batch) = met(Fault::Status(Grpc::ResourceExhausted, words, Some(2))).await;
        let stage = stage.goes_through(batch).await;
        assert!(begun.elapsed() >= Duration::from_secs(2), "{words}");
        assert_eq!(stage.times_written(batch, 2), 2, "{words}");
    }
}

#[tokio::test]
async fn row_resource_exhausted_with_retry_info_holds_for_prepare_and_summary_too() {
    for (prepare, summary) in [(true, false), (false, true)] {
        let double = Double::start().await;
        let fault = Fault::Status(Grpc::ResourceExhausted, "a foreign server's words", Some(2));
        double.seen().prepare_script.extend(prepare.then_some(fault));
        double.seen().summary_script.extend(summary.then_some(fault));
        let begun = runtime::clock::Mono::now();
        let (stage, _, batch) = written(double).await;
        stage.goes_through(batch).await;
        assert!(begun.elapsed() >= Duration::from_secs(2), "{prepare} {summary}");
    }
}

#[tokio::test]
async fn row_unauthenticated_of_a_write_and_of_the_prepare_beside_it_renews_once_and_goes_on() {
    let double = Double::start().await;
    double.script(2, Fault::Unauthenticated);
    let refused = Fault::Status(Grpc::Unauthenticated, "UNAUTHENTICATED: for a test", None);
    double.seen().prepare_script.push_back(refused);
    let (stage, _, batch) = written(double).await;
    let stage = stage.goes_through(batch).await;
    assert_eq!(stage.times_written(batch, 2), 2);
}

#[tokio::test]
async fn row_unavailable_deadline_exceeded_or_aborted_repeats_the_same_bytes() {
    for status in [Grpc::Unavailable, Grpc::DeadlineExceeded, Grpc::Aborted] {
        let (stage, _, batch) = met(Fault::Status(status, "x", None)).await;
        let stage = stage.goes_through(batch).await;
        assert_eq!(stage.times_written(batch, 2), 2, "{status:?}");
    }
}

#[tokio::test]
async fn row_failed_precondition_drops_stands_by_and_opens_with_back_off() {
    for words in ["FENCED: a newer epoch", "EPOCH_REQUIRED: none was sent"] {
        let double = Double::start().await;
        double.script(2, Fault::Status(Grpc::FailedPrecondition, words, None));
        let mut stage = Stage::start(double).await;
        let grant = stage.grant(0).await;
        stage.double.hold(true);
        stage.write(&grant, 3).await;
        let link = stage.phase(LinkPhase::Standby).await;
        assert!(link.next_try.is_some(), "{words}");
        until(|| stage.dropped() == 1).await;
        assert!(stage.journal.granted().borrow().is_none(), "{words}: it sends nothing");
        assert!(stage.double.seen().released.is_empty(), "{words}: there is nothing to give back");
        stage.double.hold(false);
        let next = stage.grant(grant.epoch.0).await;
        let batch = stage.write(&next, 3).await;
        stage.complete(batch).await;
        stage.stop().await.unwrap();
    }
}

#[tokio::test]
async fn row_sequence_gap_resends_from_the_number_named_once_and_without_progress_drops() {
    let gap = "SEQUENCE_GAP: batch 17 of RM expects message 2, got 3";
    let double = Double::start().await;
    double.script(3, Fault::Says(gap));
    let (stage, _, batch) = written(double).await;
    let stage = stage.goes_through(batch).await;
    assert_eq!(stage.times_written(batch, 3), 2);

    let double = Double::start().await;
    double.script(3, Fault::Says(gap));
    double.script(3, Fault::Says(gap));
    let (mut stage, grant, batch) = written(double).await;
    stage.drops(&grant, batch).await;
    assert_eq!(stage.told(Code::SequenceGap).await, 0, "it happens, nobody has to act");
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_sequence_gap_to_the_summary_resends_once_and_then_drops() {
    let gap = Fault::Says("SEQUENCE_GAP: batch 17 of RM expects message 2, got 4");
    let double = Double::start().await;
    double.seen().summary_script.extend([gap; 4]);
    let (mut stage, grant, batch) = written(double).await;
    let next = stage.grant(grant.epoch.0).await;
    assert_eq!((stage.dropped(), stage.times_written(batch, 2)), (1, 2));
    assert!(next.epoch > grant.epoch);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_message_conflict_drops_and_never_overwrites() {
    let (mut stage, grant, batch) = met(Fault::Says("MESSAGE_CONFLICT: x")).await;
    stage.drops(&grant, batch).await;
    assert_eq!(stage.times_written(batch, 2), 1);
    stage.stop().await.unwrap();
    let double = Double::start().await;
    double.seen().summary_script.push_back(Fault::Says("MESSAGE_CONFLICT: another summary"));
    let (mut stage, grant, batch) = written(double).await;
    stage.drops(&grant, batch).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_record_count_mismatch_drops_and_tells() {
    let (mut stage, grant, batch) = met(Fault::Says("RECORD_COUNT_MISMATCH: x")).await;
    stage.drops(&grant, batch).await;
    assert_eq!(stage.told(Code::RecordCountMismatch).await, 1);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_missing_key_column_parks_tells_and_drops() {
    let (mut stage, grant, _) = met(Fault::Says("MISSING_KEY_COLUMN: x")).await;
    stage.parks(&grant, Code::MissingKeyColumn).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_primary_key_changed_parks_tells_and_drops() {
    let (mut stage, grant, _) = met(Fault::Says("PRIMARY_KEY_CHANGED: x")).await;
    stage.parks(&grant, Code::PrimaryKeyChanged).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_batch_closed_drops() {
    let (mut stage, grant, batch) = met(Fault::Says("BATCH_CLOSED: x")).await;
    stage.drops(&grant, batch).await;
    stage.stop().await.unwrap();
    // Where it cannot travel in errors[] it comes as a status; it fences nobody.
    let double = Double::start().await;
    let fault = Fault::Status(Grpc::FailedPrecondition, "BATCH_CLOSED: abandoned", None);
    double.seen().prepare_script.push_back(fault);
    let (mut stage, grant, batch) = written(double).await;
    stage.drops(&grant, batch).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_batch_unknown_drops() {
    let (mut stage, grant, batch) = met(Fault::Says("BATCH_UNKNOWN: x")).await;
    stage.drops(&grant, batch).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_clock_ahead_drops_and_batch_ids_follow_the_last_one() {
    let (mut stage, grant, batch) = met(Fault::Says("CLOCK_AHEAD: x")).await;
    stage.drops(&grant, batch).await;
    assert!(stage.journal.is_clock_ahead(), "capture numbers by the last id, not by the clock");
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn row_summary_mismatch_or_messages_missing_sends_the_tail_and_the_summary_once_more() {
    for (words, again) in [
        ("MESSAGES_MISSING: batch 17 of RM lacks messages 2 to 3", [1, 2, 2]),
        ("SUMMARY_MISMATCH: batch 17 of RM has 2 messages", [2, 2, 2]),
    ] {
        let double = Double::start().await;
        double.seen().summary_script.push_back(Fault::Says(words));
        let (stage, _, batch) = written(double).await;
        let stage = stage.goes_through(batch).await;
        assert_eq!([1, 2, 3].map(|number| stage.times_written(batch, number)), again, "{words}");

        let double = Double::start().await;
        double.seen().summary_script.extend([Fault::Says(words); 2]);
        let (mut stage, grant, batch) = written(double).await;
        stage.drops(&grant, batch).await;
        stage.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_summary_s_answer_to_a_write_is_heeded_once_and_then_drops() {
    let double = Double::start().await;
    for _ in 0..4 {
        double.script(2, Fault::Says("SUMMARY_MISMATCH: nonsense here"));
    }
    let (mut stage, grant, batch) = written(double).await;
    stage.grant(grant.epoch.0).await;
    assert_eq!((stage.dropped(), stage.times_written(batch, 2)), (1, 2));
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn of_several_errors_the_first_with_a_code_decides() {
    let words = "words of another program\nMISSING_KEY_COLUMN: row 3";
    let (mut stage, grant, _) = met(Fault::Says(words)).await;
    stage.parks(&grant, Code::MissingKeyColumn).await;
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_repeated_for_long_is_shown_until_something_goes_through() {
    let double = Double::start().await;
    for _ in 0..5 {
        double.script(2, Fault::Status(Grpc::Internal, "INTERNAL: broken", None));
    }
    let stage = Stage::start(double).await;
    let mut link = stage.journal.link();
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 3).await;
    let shown = within(link.wait_for(|state| state.code.as_deref() == Some("INTERNAL"))).await;
    let shown = shown.unwrap().clone();
    assert_eq!(shown.phase, LinkPhase::Sending, "the lease is kept");
    assert_eq!(shown.words.as_deref(), Some("broken"));
    within(link.wait_for(|state| state.code.is_none())).await.unwrap();
    stage.goes_through(batch).await;
}
