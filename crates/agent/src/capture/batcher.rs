//! Batcher: rows become the numbered table messages of one batch.
//!
//! Promises: numbers 1..n over all tables without gap; rows of a table keep their order; a message holds one table and
//! is all base load or none (F36, F37).
//! Never: writes to the journal, looks at a clock.

use protocol::{
    hash::RowHash,
    ids::{BatchId, MessageNumber},
    key::KeyBytes,
    limits,
    names::{ErpName, TableName},
    proto::totvs::table::Schema,
    wire::{MessageWriter, Pushed},
};
use runtime::mutant;

use crate::journal::SpoolMessage;

/// Room left for the page under way: a batch ends before its limits, never above them.
const PAGE_ROOM_BYTES: usize = 16 * 1024 * 1024;
const PAGE_ROOM_MESSAGES: usize = 250;

/// `max(seconds of the range's start, last + 1)` (`correctness.md` 3 f).
#[must_use]
pub(super) fn batch_id(start_micros: i64, last: BatchId) -> BatchId {
    let seconds = BatchId(start_micros.div_euclid(1_000_000));
    if mutant::is("raw_seconds") {
        return seconds;
    }
    seconds.max(last.next())
}

struct Open {
    table: TableName,
    base_load: bool,
    writer: MessageWriter,
    known: Vec<(KeyBytes, Option<RowHash>)>,
    /// One row a message: the server refused one of this table and it must be found.
    single: bool,
}

/// The batch being gathered.
pub(super) struct Batcher {
    id: BatchId,
    erp: ErpName,
    open: Option<Open>,
    ready: Vec<SpoolMessage>,
    last: MessageNumber,
    records: u32,
    bytes: usize,
}

impl Batcher {
    #[must_use]
    pub(super) fn new(id: BatchId, erp: ErpName) -> Self {
        let last = MessageNumber(0);
        Self { id, erp, open: None, ready: Vec::new(), last, records: 0, bytes: 0 }
    }

    #[must_use]
    pub(super) fn id(&self) -> BatchId {
        self.id
    }

    /// Messages finished so far.
    #[must_use]
    pub(super) fn messages(&self) -> u32 {
        self.last.0.cast_unsigned()
    }

    /// Rows in finished messages.
    #[must_use]
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// No room for one more page.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        let open = self.open.as_ref().map_or(0, |open| open.writer.encoded_len());
        self.bytes + open + PAGE_ROOM_BYTES > limits::BATCH_BYTES
            || self.messages() as usize + PAGE_ROOM_MESSAGES > limits::BATCH_MESSAGES
    }

    /// Turns to a table; rows of another one, or of another kind, are finished first.
    pub(super) fn turn_to(
        &mut self,
        table: &TableName,
        schema: &Schema,
        base_load: bool,
        single: bool,
    ) {
        let fits = |open: &Open| {
            open.table == *table && open.base_load == base_load && open.single == single
        };
        if self.open.as_ref().is_some_and(fits) {
            return;
        }
        self.finish();
        let writer = MessageWriter::new(table, &self.erp, schema);
        self.open =
            Some(Open { table: table.clone(), base_load, writer, known: Vec::new(), single });
    }

    /// Adds a row to the table turned to; false = it alone is above the limit of a message.
    pub(super) fn push<'a>(
        &mut self,
        cell: impl Fn(usize) -> Option<&'a str>,
        deleted: bool,
        known: Option<(KeyBytes, Option<RowHash>)>,
    ) -> bool {
        for _attempt in 0..2 {
            let Some(open) = &mut self.open else { return false };
            match open.writer.push(&cell, deleted) {
                Pushed::Taken => {
                    open.known.extend(known);
                    if open.single {
                        self.finish_message();
                    }
                    return true;
                }
                Pushed::Full => self.finish_message(),
                Pushed::TooLarge => return false,
            }
        }
        false
    }

    /// Finishes the message under way.
    pub(super) fn finish(&mut self) {
        self.finish_message();
        self.open = None;
    }

    /// A message without rows for the table turned to: tells that an empty table was loaded.
    pub(super) fn tell_empty(&mut self) {
        self.close_message();
    }

    fn finish_message(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.writer.rows() > 0) {
            self.close_message();
        }
    }

    fn close_message(&mut self) {
        let Some(open) = &mut self.open else { return };
        let rows = u32::try_from(open.writer.rows()).unwrap_or(u32::MAX);
        self.last = self.last.next();
        let bytes = open.writer.finish(self.id, self.last, open.base_load);
        self.bytes += bytes.len();
        self.records += rows;
        self.ready.push(SpoolMessage {
            number: self.last,
            table: open.table.clone(),
            rows,
            bytes,
            known: std::mem::take(&mut open.known),
        });
    }

    /// Finished messages, for the journal.
    pub(super) fn take(&mut self) -> Vec<SpoolMessage> {
        std::mem::take(&mut self.ready)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use protocol::proto::totvs::{
        Table,
        table::schema::{SchemaColumn, SchemaPrimaryKey},
    };

    use super::*;

    fn schema() -> Schema {
        let column = |name: &str| SchemaColumn { name: name.into(), r#type: "string".into() };
        Schema {
            flexible: true,
            export_data: true,
            columns: vec![column("K"), column("V")],
            primary_key: Some(SchemaPrimaryKey { name: "T".into(), columns: vec!["K".into()] }),
        }
    }

    fn batcher() -> Batcher {
        Batcher::new(BatchId(9), "RM".parse().unwrap())
    }

    fn push(batch: &mut Batcher, key: &str, value: &str) -> bool {
        let cells = [key, value];
        batch.push(|at| cells.get(at).copied(), false, Some((KeyBytes::of([key]), None)))
    }

    fn read(batch: &mut Batcher) -> Vec<Table> {
        batch.finish();
        batch.take().iter().map(|message| Table::decode(message.bytes.clone()).unwrap()).collect()
    }

    #[test]
    fn the_load_of_an_empty_table_is_told_by_a_message_without_rows() {
        let mut batch = batcher();
        batch.turn_to(&"T".parse().unwrap(), &schema(), true, false);
        batch.tell_empty();
        let tables = read(&mut batch);
        assert_eq!(tables.len(), 1);
        assert!(tables[0].rows.is_empty() && tables[0].is_base_load);
        assert_eq!((tables[0].message_number, batch.messages(), batch.records()), (1, 1, 0));
    }

    #[test]
    fn a_batch_id_rises_whatever_the_clock_does() {
        assert_eq!(batch_id(7_900_000, BatchId(3)), BatchId(7));
        assert_eq!(batch_id(7_900_000, BatchId(7)), BatchId(8));
        assert_eq!(batch_id(-1, BatchId(0)), BatchId(1));
    }

    proptest! {
        #[test]
        fn f07_numbers_have_no_gap_and_rows_keep_their_order_over_any_change_of_tables(
            turns in proptest::collection::vec((0usize..3, any::<bool>(), 1usize..500), 1..8)
        ) {
            let mut batch = batcher();
            let mut sent: Vec<(String, bool, String)> = Vec::new();
            for (table, base, rows) in turns {
                let name = format!("T{table}");
                batch.turn_to(&name.parse().unwrap(), &schema(), base, false);
                for _row in 0..rows {
                    let key = sent.len().to_string();
                    prop_assert!(push(&mut batch, &key, "v"));
                    sent.push((name.clone(), base, key));
                }
            }
            let messages = read(&mut batch);
            let numbers: Vec<i32> = messages.iter().map(|message| message.message_number).collect();
            let wanted: Vec<i32> = (1..).take(messages.len()).collect();
            prop_assert_eq!(numbers, wanted);
            prop_assert_eq!(batch.records() as usize, sent.len());
            let got: Vec<_> = messages.iter().flat_map(|message| {
                message.rows.iter().map(|row| {
                    (message.table_name.clone(), message.is_base_load, row.columns[0].value.clone())
                })
            }).collect();
            prop_assert!(messages.iter().all(|message| message.rows.len() <= 200));
            prop_assert_eq!(got, sent);
        }
    }

    #[test]
    fn f36_a_row_above_the_limit_is_told_apart_and_its_neighbours_go() {
        let mut batch = batcher();
        batch.turn_to(&"T".parse().unwrap(), &schema(), false, false);
        let big = "x".repeat(limits::SENDER_MESSAGE_BYTES);
        assert!(push(&mut batch, "1", "a"));
        assert!(!push(&mut batch, "2", &big));
        assert!(push(&mut batch, "3", &big[..limits::SENDER_MESSAGE_BYTES - 500]));
        let messages = read(&mut batch);
        let keys: Vec<_> = messages
            .iter()
            .flat_map(|m| &m.rows)
            .map(|row| row.columns[0].value.as_str())
            .collect();
        assert_eq!(keys, ["1", "3"]);
        assert!(messages.iter().all(|m| m.encoded_len() <= limits::SENDER_MESSAGE_BYTES));
    }

    #[test]
    fn a_suspect_table_goes_one_row_a_message_and_known_rows_stay_with_their_message() {
        let mut batch = batcher();
        batch.turn_to(&"T".parse().unwrap(), &schema(), false, true);
        push(&mut batch, "1", "a");
        push(&mut batch, "2", "b");
        let messages = batch.take();
        let known: Vec<_> = messages.iter().map(|m| (m.rows, m.known[0].0.clone())).collect();
        assert_eq!(known, [(1, KeyBytes::of(["1"])), (1, KeyBytes::of(["2"]))]);
    }

    #[test]
    fn a_batch_is_full_before_it_reaches_its_limits() {
        let mut batch = batcher();
        batch.turn_to(&"T".parse().unwrap(), &schema(), false, true);
        assert!(!push(&mut batcher(), "1", "no table was turned to"));
        while !batch.is_full() {
            push(&mut batch, "1", "a");
        }
        assert!((batch.messages() as usize) < limits::BATCH_MESSAGES);
        let mut batch = batcher();
        batch.turn_to(&"T".parse().unwrap(), &schema(), false, false);
        let big = "x".repeat(4_000_000);
        while !batch.is_full() {
            push(&mut batch, "1", &big);
            batch.take();
        }
        assert!(batch.bytes + PAGE_ROOM_BYTES < limits::BATCH_BYTES + 5_000_000);
    }
}
