//! The agent's journal, as a damaged disk gives it back: bytes of its file are changed, cut and lost.
//!
//! Promises: a journal always opens (one of a newer program excepted), and one whose damage is met only in use is another
//! one at the next start; what is read back of spool, seal and cursors is what was written or is refused as damaged; after
//! a drop the next batch is taken.
//! Never: damages what the operating system holds in memory.

use std::{collections::BTreeMap, fs, path::Path};

use agent::journal::{Grant, Journal, Recovery, Seal, SpoolMessage};
use protocol::{
    Code,
    hash::RowHash,
    ids::{BatchId, Epoch, Generation, MessageNumber},
    key::KeyBytes,
    names::TableName,
};
use runtime::clock::Wall;
use tokio::runtime::Runtime;

use super::{Found, Kept, asynchronous, fault, folder, holds};

const FILE: &str = "journal.sqlite";
const BATCH: BatchId = BatchId(11);
const PAGE: usize = 4_096;
/// What SQLite says of a damaged file.
const MALFORMED: &str = "malformed";
/// Bytes of one edit: where (4, little end first), what, with which byte.
const EDIT: usize = 6;
/// From here on the place is counted over the pages that hold what is read back, not over the whole file.
const HOT: u8 = 0x80;

/// A good journal with a sealed batch, and what it holds.
struct World {
    runtime: Runtime,
    file: Vec<u8>,
    /// Pages with the spool, the seal and the cursors.
    hot: Vec<usize>,
    messages: Vec<SpoolMessage>,
    seal: Seal,
    cursors: BTreeMap<TableName, Vec<u8>>,
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

fn messages() -> protocol::Result<Vec<SpoolMessage>> {
    let one = |(number, table): (i32, &str)| {
        Ok(SpoolMessage {
            number: MessageNumber(number),
            table: table.parse()?,
            rows: number.cast_unsigned() * 3,
            bytes: format!("message {number} ").repeat(40).into_bytes().into(),
            known: vec![
                (KeyBytes::of(["1", "a"]), Some(RowHash([7; 16]))),
                (KeyBytes::of(["2", "b"]), None),
            ],
        })
    };
    [(1, "FLAN"), (2, "TMOV"), (3, "FLAN")].into_iter().map(one).collect()
}

async fn written(
    folder: &Path,
) -> protocol::Result<(Vec<SpoolMessage>, Seal, BTreeMap<TableName, Vec<u8>>)> {
    let (journal, _) = Journal::open(folder).await?;
    let cursors = BTreeMap::from([("FLAN".parse()?, b"cursor of flan".to_vec())]);
    let grant = Grant { epoch: Epoch(7), last_batch: BatchId(10), cursors: cursors.clone() };
    journal.grant(grant, Wall(0)).await?;
    journal.open_batch(Epoch(7), BATCH, Wall(0)).await?;
    let messages = messages()?;
    journal.append(BATCH, messages.clone()).await?;
    let seal = Seal {
        messages: 3,
        records: 18,
        start: Some(1),
        end: 2,
        cursors: vec![("TMOV".parse()?, b"cursor of tmov".to_vec())],
        loads_done: vec![("FLAN".parse()?, Generation(3))],
        deletes_done: Vec::new(),
        reloads_done: Vec::new(),
    };
    journal.seal(BATCH, seal.clone()).await?;
    Ok((messages, seal, cursors))
}

impl World {
    fn new() -> Found<Self> {
        let (runtime, folder) = (asynchronous()?, folder()?);
        let made = runtime.block_on(written(folder.path()));
        let (messages, seal, cursors) = made.map_err(fault("no journal"))?;
        // Opened once more: whoever closes last brings everything into the one file.
        let closed = runtime.block_on(Journal::open(folder.path())).map_err(fault("not closed"))?;
        drop(closed);
        drop(runtime.block_on(Journal::open(folder.path())).map_err(fault("not closed"))?);
        wait_until_closed(folder.path())?;
        let file = fs::read(folder.path().join(FILE)).map_err(fault("no file"))?;
        let marks: [&[u8]; 3] = [b"message 1 message 1", b"\"loads_done\"", b"cursor of flan"];
        let holds_mark = |page: &&[u8]| marks.iter().any(|mark| finds(page, mark));
        let numbered = file.chunks(PAGE).enumerate();
        let hot: Vec<usize> =
            numbered.filter(|(_, page)| holds_mark(page)).map(|(at, _)| at).collect();
        holds(hot.len() >= 3, || format!("the pages of the spool are not found: {hot:?}"))?;
        Ok(Self { runtime, file, hot, messages, seal, cursors })
    }

    /// The file with the edits of an input.
    fn damaged(&self, edits: &[u8]) -> Vec<u8> {
        let mut file = self.file.clone();
        for edit in edits.as_chunks::<EDIT>().0 {
            let [a, b, c, d, what, value] = *edit;
            let place = u32::from_le_bytes([a, b, c, d]) as usize;
            let place = if what < HOT {
                place % self.file.len()
            } else {
                let page = self.hot.get(place / PAGE % self.hot.len()).copied().unwrap_or_default();
                page * PAGE + place % PAGE
            };
            match what & 7 {
                // A sector that was never written, one of another place, the end of the file.
                0 => file.iter_mut().skip(place & !511).take(512).for_each(|byte| *byte = 0),
                1 => {
                    let from = usize::from(value) * 512 % self.file.len();
                    let sector = file.get(from..from + 512).unwrap_or_default().to_vec();
                    for (to, byte) in file.iter_mut().skip(place & !511).zip(sector) {
                        *to = byte;
                    }
                }
                2 if value > 0xf0 => file.truncate(place),
                3 | 4 => {
                    if let Some(byte) = file.get_mut(place) {
                        *byte ^= 1 << (value & 7);
                    }
                }
                _ => {
                    if let Some(byte) = file.get_mut(place) {
                        *byte = value;
                    }
                }
            }
        }
        file
    }
}

fn finds(page: &[u8], mark: &[u8]) -> bool {
    page.windows(mark.len()).any(|window| window == mark)
}

/// The journal's thread closes the file after its last handle is gone.
fn wait_until_closed(folder: &Path) -> Found {
    let begun = runtime::clock::Mono::now();
    while folder.join(format!("{FILE}-wal")).exists() {
        holds(begun.elapsed().as_secs() < 10, || "the journal does not close".to_owned())?;
        std::thread::yield_now();
    }
    Ok(())
}

/// Edits of a journal's file.
pub(super) fn spool(bytes: &[u8]) -> Found {
    WORLD.with(World::new, |world| {
        let folder = folder()?;
        fs::write(folder.path().join(FILE), world.damaged(bytes)).map_err(fault("no file"))?;
        world.runtime.block_on(async {
            let (journal, recovery) = match Journal::open(folder.path()).await {
                Ok(opened) => opened,
                Err(error) => {
                    return holds(error.code == Code::StoreVersion, || {
                        format!("a damaged journal keeps the agent from starting: {error:?}")
                    });
                }
            };
            let read = match recovery {
                Recovery::Resumed => read_back(world, &journal).await,
                Recovery::Fresh | Recovery::Replaced => Ok(()),
            };
            let went = match read {
                Ok(()) => goes_on(&journal).await,
                failed => failed,
            };
            match went {
                Err(why) if why.contains(MALFORMED) => {
                    drop(journal);
                    begins_anew(folder.path(), &why).await
                }
                went => went,
            }
        })
    })
}

/// Damage that was met only in use: the process ends, and its next start has another file.
async fn begins_anew(folder: &Path, why: &str) -> Found {
    match Journal::open(folder).await {
        Ok((journal, Recovery::Replaced)) => goes_on(&journal).await,
        other => Err(format!("{why}; and at the next start: {:?}", other.map(|(_, found)| found))),
    }
}

/// Equal or refused.
fn same<T: PartialEq>(what: &str, read: protocol::Result<T>, written: &T) -> Found<bool> {
    match read {
        Ok(read) => {
            holds(read == *written, || format!("{what} reads back as another one")).map(|()| true)
        }
        Err(error) => {
            holds(error.code == Code::JournalCorrupt, || format!("{what} is refused by {error:?}"))
                .map(|()| false)
        }
    }
}

async fn read_back(world: &World, journal: &Journal) -> Found {
    // A fact that reads as another epoch is refused by the server's Renew.
    match journal.last_epoch().await {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(()),
        Err(error) => return Err(format!("the epoch cannot be read: {error:?}")),
    }
    // A damaged entry is left out, and its table loaded again.
    let kept = journal.cursors().await.map_err(|error| format!("no cursors: {error:?}"))?;
    let written = kept.iter().all(|(table, value)| world.cursors.get(table) == Some(value));
    holds(written, || format!("another cursor: {kept:?}"))?;
    match journal.resume(Epoch(7), Wall(0)).await {
        Ok(()) => {}
        Err(error) => {
            return holds(error.code == Code::JournalCorrupt, || format!("resume: {error:?}"));
        }
    }
    let open = journal.spool().borrow().batch;
    // No batch, or another one, is dropped by the session or refused by the server.
    if open != Some(BATCH) {
        return Ok(());
    }
    let plain = |message: &SpoolMessage| {
        (message.number, message.table.clone(), message.rows, message.bytes.clone())
    };
    let read = journal.unacked(BATCH, MessageNumber(0), usize::MAX).await;
    let read = read.map(|messages| messages.iter().map(plain).collect::<Vec<_>>());
    same("the spool", read, &world.messages.iter().map(plain).collect())?;
    same("the seal", journal.sealed(BATCH).await, &Some(world.seal.clone()))?;
    let done = journal.complete(BATCH, Wall(0)).await;
    same("the batch's end", done, &()).map(|_| ())
}

/// Whatever happened: the batch can be dropped, and the next session sends.
async fn goes_on(journal: &Journal) -> Found {
    let next = async {
        journal.drop_batch(Code::JournalCorrupt, "damaged", Wall(0)).await?;
        let grant = Grant { epoch: Epoch(9), last_batch: BatchId(20), cursors: BTreeMap::new() };
        journal.grant(grant, Wall(0)).await?;
        journal.open_batch(Epoch(9), BatchId(21), Wall(0)).await?;
        journal.append(BatchId(21), messages()?).await?;
        let read = journal.unacked(BatchId(21), MessageNumber(0), usize::MAX).await?;
        Ok::<_, protocol::Error>(read.len())
    };
    match next.await {
        Ok(read) => holds(read == 3, || format!("{read} messages of the next batch")),
        Err(error) => Err(format!("a damaged journal takes no other batch: {error:?}")),
    }
}
