//! Finding: what somebody who looks a machine over has to say, in both languages.
//!
//! Promises: what is worse than a note tells what to do about it; an error keeps its code.
//! Never: holds a secret or a row's value.

use std::{io, path::Path, time::Duration};

use protocol::{Code, Error};
use serde::{Serialize, Serializer};

use crate::files;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is to be done.
    Note,
    /// It works today, and weakens a promise or will stop working.
    Warning,
    /// It does not work until somebody mends it.
    Mend,
}

/// The same words in both languages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Words {
    pub en: String,
    pub pt: String,
}

/// English and Portuguese.
pub fn words(en: impl Into<String>, pt: impl Into<String>) -> Words {
    Words { en: en.into(), pt: pt.into() }
}

/// A number, a version, a command: what is the same in both.
pub fn both(text: impl Into<String>) -> Words {
    let text = text.into();
    words(text.clone(), text)
}

/// What somebody wants to know, and how long each step may take.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Topics; none = all.
    pub only: Vec<String>,
    pub patience: Duration,
}

impl Wish {
    /// Whether one of these topics is wished for.
    #[must_use]
    pub fn wants(&self, topics: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| topics.contains(&only.as_str()))
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What it is about, a word of a short list (`disk`, `token`).
    pub topic: &'static str,
    /// What was looked at: an address, a folder, a table.
    pub of: String,
    pub grade: Grade,
    pub found: Words,
    /// What to do; `None` where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<Words>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "code_text")]
    pub code: Option<Code>,
}

fn code_text<S: Serializer>(code: &Option<Code>, to: S) -> Result<S::Ok, S::Error> {
    match code {
        Some(code) => to.serialize_some(code.as_str()),
        None => to.serialize_none(),
    }
}

impl Finding {
    /// All is well.
    pub fn ok(topic: &'static str, of: impl ToString, found: Words) -> Self {
        Self { topic, of: of.to_string(), grade: Grade::Ok, found, todo: None, code: None }
    }

    /// Worth knowing.
    pub fn note(topic: &'static str, of: impl ToString, found: Words) -> Self {
        Self { grade: Grade::Note, ..Self::ok(topic, of, found) }
    }

    /// It works, for now.
    pub fn warning(topic: &'static str, of: impl ToString, (found, todo): (Words, Words)) -> Self {
        Self { grade: Grade::Warning, todo: Some(todo), ..Self::ok(topic, of, found) }
    }

    /// It does not work.
    pub fn mend(topic: &'static str, of: impl ToString, (found, todo): (Words, Words)) -> Self {
        Self { grade: Grade::Mend, todo: Some(todo), ..Self::ok(topic, of, found) }
    }

    /// With what would make it better, though nothing has to be done.
    #[must_use]
    pub fn advised(self, todo: Words) -> Self {
        Self { todo: Some(todo), ..self }
    }

    /// An error keeps it from working: its message and, as what to do, the hint of its code. Messages are English.
    pub fn error(topic: &'static str, of: impl ToString, error: &Error) -> Self {
        let found = words(error.message.clone(), error.message.clone());
        let todo = words(error.code.hint(), error.code.hint_pt());
        Self { code: Some(error.code), ..Self::mend(topic, of, (found, todo)) }
    }

    /// A data folder that others may look into; `None` where it is its owner's alone, or not there.
    #[must_use]
    pub fn open_folder(topic: &'static str, data: &Path) -> Option<Self> {
        let (mode, place) = (files::open_to_others(data)?, data.display());
        let found = words(
            format!("others may look into it (mode {mode:o})"),
            format!("outros podem olhar dentro dela (modo {mode:o})"),
        );
        Some(Self::warning(topic, place.to_string(), (found, both(format!("chmod 700 {place}")))))
    }

    /// A data folder that this account may not look into, so that nothing in it can be told; `None` where it may.
    #[must_use]
    pub fn closed_folder(topic: &'static str, data: &Path) -> Option<Self> {
        let cause = std::fs::read_dir(data)
            .err()
            .filter(|cause| cause.kind() != io::ErrorKind::NotFound)?;
        let found = words(
            format!("it cannot be looked into: {cause}"),
            format!("não se pode olhar dentro dela: {cause}"),
        );
        let todo = words(
            "Name a folder, and run doctor as the account that the program runs under.",
            "Indique uma pasta, e execute o doctor com a conta sob a qual o programa roda.",
        );
        Some(Self::mend(topic, data.display().to_string(), (found, todo)))
    }

    /// The same, of another weight.
    #[must_use]
    pub fn graded(self, grade: Grade) -> Self {
        Self { grade, ..self }
    }

    /// The same, under a code.
    #[must_use]
    pub fn coded(self, code: Code) -> Self {
        Self { code: Some(code), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_into_is_said_and_what_is_not_there_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let closed = Finding::closed_folder("data", &file).unwrap();
        assert_eq!((closed.grade, closed.topic), (Grade::Mend, "data"));
        for open in [folder.path(), &folder.path().join("none")] {
            assert!(Finding::closed_folder("data", open).is_none(), "{}", open.display());
        }
    }

    #[test]
    fn an_error_becomes_something_to_mend_with_its_code_and_its_hint_in_both_languages() {
        let finding = Finding::error("disk", "data", &Error::new(Code::DiskFull, "no room"));
        assert_eq!((finding.grade, finding.code), (Grade::Mend, Some(Code::DiskFull)));
        let todo = finding.todo.clone().unwrap();
        assert_eq!(
            (todo.en.as_str(), todo.pt.as_str()),
            (Code::DiskFull.hint(), Code::DiskFull.hint_pt())
        );
        let json = serde_json::to_value(finding.graded(Grade::Note)).unwrap();
        assert_eq!(
            (json["grade"].as_str(), json["code"].as_str()),
            (Some("note"), Some("DISK_FULL"))
        );
        let good = serde_json::to_value(Finding::ok("disk", "data", words("a", "b"))).unwrap();
        assert!(good.get("todo").is_none() && good.get("code").is_none(), "{good}");
    }

    #[test]
    fn what_has_to_be_mended_weighs_most() {
        assert!(Grade::Mend > Grade::Warning && Grade::Warning > Grade::Note);
        assert!(Grade::Note > Grade::Ok);
    }
}
