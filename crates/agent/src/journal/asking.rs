//! Asking: verification asks what is staged, uplink asks the cloud and answers.
//!
//! Promises: a question has an answer or an error, also where the session ends meanwhile or nobody holds one; one
//! question waits at a time.
//! Never: keeps a question: it is asked anew by a verification that begins anew.

use std::time::Duration;

use protocol::{Code, Error, Result, hash::RowHash, key::KeyBytes, names::TableName};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::Journal;

/// How long a question waits for an answer: a session may just be opened, and the call itself has half a minute.
const PATIENCE: Duration = Duration::from_secs(45);

/// Count of rows and XOR of their hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StagedSum {
    pub count: u64,
    pub xor: RowHash,
}

impl StagedSum {
    /// Adds a row.
    pub fn add(&mut self, hash: RowHash) {
        self.count += 1;
        self.xor = self.xor.xor(hash);
    }
}

/// Keys from `from` (inclusive) to `to` (exclusive), by their bytes; empty = no bound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KeySpan {
    pub from: KeyBytes,
    pub to: KeyBytes,
}

impl KeySpan {
    /// A span as somebody asks for it, from the one door or the other.
    ///
    /// # Errors
    /// `BAD_REQUEST` where it can hold no key.
    pub fn asked(from: KeyBytes, to: KeyBytes) -> Result<Self> {
        if !to.0.is_empty() && from >= to {
            let words = "the span holds no key: from is not below to, by the bytes of the keys";
            return Err(Error::new(Code::BadRequest, words));
        }
        Ok(Self { from, to })
    }

    /// Whether it may be asked for of so many tables.
    ///
    /// # Errors
    /// `BAD_REQUEST` for a part of more than one table.
    pub fn of_tables(self, tables: usize) -> Result<Self> {
        if self.is_whole() || tables == 1 {
            return Ok(self);
        }
        Err(Error::new(Code::BadRequest, "a span is one table's"))
    }

    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from.0.is_empty() && self.to.0.is_empty()
    }

    #[must_use]
    pub fn holds(&self, key: &KeyBytes) -> bool {
        *key >= self.from && (self.to.0.is_empty() || *key < self.to)
    }
}

/// Staged rows of a span, ascending by key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StagedPage {
    pub rows: Vec<(KeyBytes, RowHash)>,
    /// More follow behind the last of them.
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Sums of the parts that ascending bounds within a span make of it; n bounds make n + 1.
    Sums { table: TableName, span: KeySpan, bounds: Vec<KeyBytes> },
    /// Rows of a span behind `after` (empty = from its begin).
    Rows { table: TableName, span: KeySpan, after: KeyBytes },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Sums(Vec<StagedSum>),
    Rows(StagedPage),
}

/// A question with the way back. Dropping it tells that nobody answers.
#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    answer: oneshot::Sender<Result<Told>>,
}

impl Asked {
    pub fn answer(self, told: Result<Told>) {
        // Whoever asked may be gone.
        let _ = self.answer.send(told);
    }
}

/// The place where a question waits.
#[derive(Debug)]
pub(super) struct Questions {
    put: mpsc::Sender<Asked>,
    taken: Mutex<mpsc::Receiver<Asked>>,
}

impl Questions {
    pub(super) fn new() -> Self {
        let (put, taken) = mpsc::channel(1);
        Self { put, taken: Mutex::new(taken) }
    }
}

fn away(words: &str) -> Error {
    Error::new(Code::CloudUnreachable, words)
}

impl Journal {
    /// Sums of what is staged of a span, one more than there are bounds within it.
    ///
    /// # Errors
    /// `CLOUD_UNREACHABLE` where nobody answers in time; `UNAVAILABLE` where what was sent is not staged yet;
    /// `VERSION_UNSUPPORTED` of a server that cannot tell.
    pub async fn staged_sums(
        &self,
        table: &TableName,
        (span, bounds): (KeySpan, Vec<KeyBytes>),
    ) -> Result<Vec<StagedSum>> {
        let wanted = bounds.len() + 1;
        match self.ask(Question::Sums { table: table.clone(), span, bounds }).await? {
            Told::Sums(sums) if sums.len() == wanted => Ok(sums),
            _ => Err(away("the server told other sums than it was asked for")),
        }
    }

    /// A page of what is staged.
    ///
    /// # Errors
    /// As [`Self::staged_sums`].
    pub async fn staged_rows(
        &self,
        table: &TableName,
        span: KeySpan,
        after: KeyBytes,
    ) -> Result<StagedPage> {
        match self.ask(Question::Rows { table: table.clone(), span, after }).await? {
            Told::Rows(page) => Ok(page),
            Told::Sums(_) => Err(away("the server told sums in the place of rows")),
        }
    }

    /// The next question, for uplink.
    pub async fn asked(&self) -> Option<Asked> {
        self.shared.questions.taken.lock().await.recv().await
    }

    async fn ask(&self, question: Question) -> Result<Told> {
        let (answer, told) = oneshot::channel();
        let asking = async {
            let put = self.shared.questions.put.send(Asked { question, answer }).await;
            put.map_err(|_| away("the journal is closed"))?;
            told.await.map_err(|_| away("the session ended before the server answered"))?
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(told) => told,
            Err(_) => Err(away("the agent has no session with the server")),
        }
    }
}
