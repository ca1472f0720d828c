//! Random commands: what senders right and wrong may send, told relative to where the stream stands.

use proptest::{collection::vec, option, prelude::*};

/// An epoch relative to the stream's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Epoch {
    None,
    Current,
    Older,
    Newer,
}

/// A batch relative to the stream's last one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Batch {
    Last,
    Next,
    Later(i64),
    /// Known or not, below the last one.
    Earlier(i64),
    /// Seconds of the clock.
    Clock,
    Ahead,
}

/// A number relative to the batch's next one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Next,
    First,
    Again(u8),
    Skip(i32),
    Wrong(i32),
}

/// What is wrong with a message's form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    RecordCount,
    MissingKey,
    UnlistedTable,
    OtherErp,
    OtherKey,
}

/// Rows of a message: key, value, deleted.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) table: u8,
    pub(crate) rows: Vec<(u8, Option<u8>, bool)>,
    pub(crate) base_load: bool,
    pub(crate) fault: Fault,
}

#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) epoch: Epoch,
    pub(crate) batch: Batch,
    pub(crate) number: Number,
    /// A number that is stored is sent again with its own bytes.
    pub(crate) same: bool,
    pub(crate) content: Content,
}

/// A generation relative to the newest that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Generation {
    Newest,
    Older,
    Beyond,
}

#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) epoch: Epoch,
    pub(crate) batch: Batch,
    pub(crate) messages: i32,
    pub(crate) records: i32,
    /// 0: range of the batch; 1: no start; 2: other range; 3: backwards.
    pub(crate) range: u8,
    /// Loads told as done, by table.
    pub(crate) loads: Vec<(u8, Generation)>,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Open {
        instance: u8,
        nonce: u8,
        facts: u8,
        position: u64,
    },
    Renew {
        epoch: Epoch,
        nonce: u8,
    },
    Release {
        epoch: Epoch,
    },
    Prepare {
        epoch: Epoch,
        batch: Batch,
        entries: Vec<(u8, u8)>,
    },
    AcceptDatabase,
    /// A person asks for a load of a table.
    Reload {
        table: u8,
        rebuild: bool,
        times: u8,
        /// A moment passes before anything else happens.
        apart: bool,
    },
    Write(Sending),
    Summary(Closing),
    Wait {
        seconds: i64,
    },
    /// The process dies and starts again on the same store.
    Crash,
}

/// A sender without sessions names no epoch.
fn epoch(legacy: bool) -> impl Strategy<Value = Epoch> {
    let (current, none) = if legacy { (1, 20) } else { (20, 3) };
    prop_oneof![current => Just(Epoch::Current), none => Just(Epoch::None), 1 => Just(Epoch::Older), 1 => Just(Epoch::Newer)]
}

fn batch() -> impl Strategy<Value = Batch> {
    prop_oneof![
        16 => Just(Batch::Last),
        4 => Just(Batch::Next),
        2 => (2i64..5).prop_map(Batch::Later),
        2 => (1i64..5).prop_map(Batch::Earlier),
        1 => Just(Batch::Clock),
        1 => Just(Batch::Ahead),
    ]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        16 => Just(Number::Next),
        4 => Just(Number::First),
        4 => (0u8..4).prop_map(Number::Again),
        2 => (1i32..3).prop_map(Number::Skip),
        1 => (-1i32..1).prop_map(Number::Wrong),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        30 => Just(Fault::None),
        1 => Just(Fault::RecordCount),
        1 => Just(Fault::MissingKey),
        1 => Just(Fault::UnlistedTable),
        1 => Just(Fault::OtherErp),
        4 => Just(Fault::OtherKey),
    ]
}

pub(crate) fn content() -> impl Strategy<Value = Content> {
    let rows = vec(
        (0u8..6, option::weighted(0.8, 0u8..5), any::<bool>().prop_map(|deleted| deleted)),
        1..6,
    );
    (0u8..2, rows, any::<bool>(), fault()).prop_map(|(table, rows, base_load, fault)| Content {
        table,
        rows,
        base_load,
        fault,
    })
}

fn sending(legacy: bool) -> impl Strategy<Value = Sending> {
    (epoch(legacy), batch(), number(), prop::bool::weighted(0.7), content()).prop_map(
        |(epoch, batch, number, same, content)| Sending { epoch, batch, number, same, content },
    )
}

fn closing(legacy: bool) -> impl Strategy<Value = Closing> {
    let counts = prop_oneof![6 => Just((0, 0)), 1 => Just((1, 0)), 1 => Just((-1, 0)), 1 => Just((0, 1)), 1 => Just((0, -1))];
    let range = prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let generation = prop_oneof![2 => Just(Generation::Newest), 3 => Just(Generation::Older), 1 => Just(Generation::Beyond)];
    let silent = if legacy { 5 } else { 1 };
    let loads = prop_oneof![silent => Just(Vec::new()), 1 => vec((0u8..3, generation), 1..3)];
    let batch = prop_oneof![3 => Just(Batch::Last), 1 => batch()];
    (epoch(legacy), batch, counts, range, loads).prop_map(
        |(epoch, batch, (messages, records), range, loads)| Closing {
            epoch,
            batch,
            messages,
            records,
            range,
            loads,
        },
    )
}

fn command(legacy: bool) -> impl Strategy<Value = Command> {
    let opens = if legacy { 0 } else { 3 };
    let facts = prop_oneof![12 => Just(0u8), 1 => Just(1)];
    let seconds = prop_oneof![6 => 1i64..8, 2 => 25i64..40, 1 => 590i64..620];
    prop_oneof![
        opens => (0u8..2, 0u8..3, facts, 5u64..8)
            .prop_map(|(instance, nonce, facts, position)| Command::Open { instance, nonce, facts, position }),
        2 => (epoch(legacy), 0u8..3).prop_map(|(epoch, nonce)| Command::Renew { epoch, nonce }),
        1 => epoch(legacy).prop_map(|epoch| Command::Release { epoch }),
        2 => (epoch(legacy), batch(), vec((0u8..3, any::<u8>()), 0..4))
            .prop_map(|(epoch, batch, entries)| Command::Prepare { epoch, batch, entries }),
        1 => Just(Command::AcceptDatabase),
        4 => (0u8..2, any::<bool>(), 1u8..4, any::<bool>()).prop_map(
            |(table, rebuild, times, apart)| Command::Reload { table, rebuild, times, apart }
        ),
        18 => sending(legacy).prop_map(Command::Write),
        6 => closing(legacy).prop_map(Command::Summary),
        2 => seconds.prop_map(|seconds| Command::Wait { seconds }),
        1 => Just(Command::Crash),
    ]
}

pub(crate) fn commands() -> impl Strategy<Value = Vec<Command>> {
    // Every third stream has a sender that knows no sessions.
    prop_oneof![2 => vec(command(false), 1..60), 1 => vec(command(true), 1..60)]
}
