//! The one error of both processes, and the closed table of its codes.
//!
//! Promises: `message` may be shown to the caller; `source` goes to the log only; retry looks at the class only.
//! Never: holds a secret or a row's value.

pub mod code;

use std::{error::Error as StdError, fmt, time::Duration};

pub use code::{Class, Code, GrpcStatus};

/// What went wrong: a code for programs, words for people, a cause for the log.
pub struct Error {
    pub code: Code,
    /// What was wrong and where; a lowercase fragment without a period. Shown to the caller.
    pub message: String,
    /// When the caller may try again, where the server knows.
    pub retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, source: None }
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_in(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Puts where it happened before the message: `table FLAN: …`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    #[must_use]
    pub fn class(&self) -> Class {
        self.code.class()
    }

    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class() == Class::Transient
    }

    /// The chain of causes, for the log; `None` where there is none, so that no log line has an empty field.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        Some(self.chain()).filter(|chain| !chain.is_empty())
    }

    /// The chain of causes; empty where there is none.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = String::new();
        let mut next = self.source();
        while let Some(cause) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// `CODE: words`, the form of the wire (`contracts.md` 0).
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let chain = self.chain();
        if chain.is_empty() { Ok(()) } else { write!(f, " (cause: {chain})") }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Adds a code and words to any foreign error.
pub trait Coded<T> {
    /// # Errors
    /// The foreign error under `code`, with `message` for the caller.
    fn coded(self, code: Code, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync + 'static>>> Coded<T> for Result<T, E> {
    fn coded(self, code: Code, message: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::new(code, message).because(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_code_and_words_and_keeps_its_cause_for_the_log() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(Code::Internal, "store failed").because(cause).at("table FLAN");
        assert_eq!(error.to_string(), "INTERNAL: table FLAN: store failed");
        assert_eq!(error.chain(), "disk on fire");
        assert_eq!(
            format!("{error:?}"),
            "INTERNAL: table FLAN: store failed (cause: disk on fire)"
        );
    }
}
