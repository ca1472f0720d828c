//! Lang: the language people are spoken to in. Codes, keys and JSON are the same in both.
//!
//! Promises: `--lang` wins over `MALOTE_LANG`, which wins over `LANG`; anything but Portuguese is English.
//! Never: translates data.

use std::ffi::OsString;

use clap::ValueEnum as _;
use protocol::Error;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Lang {
    #[default]
    En,
    Pt,
}

impl Lang {
    /// What was asked for, else what the environment says.
    pub(crate) fn of(asked: Option<Self>) -> Self {
        let environment =
            || ["MALOTE_LANG", "LC_ALL", "LANG"].into_iter().find_map(runtime::config::variable);
        asked.unwrap_or_else(|| environment().map_or(Self::En, |text| Self::of_text(&text)))
    }

    /// What `--lang` says on a line that was not read yet: help and refusals are told while it is.
    pub(crate) fn said(line: impl Iterator<Item = OsString>) -> Option<Self> {
        let words = line.map(|word| word.to_string_lossy().into_owned());
        let mut words = words.take_while(|word| word != "--");
        while let Some(word) = words.next() {
            let value = match word.strip_prefix("--lang") {
                Some("") => words.next(),
                Some(behind) => behind.strip_prefix('=').map(str::to_owned),
                None => None,
            };
            let known = value.and_then(|value| Self::from_str(&value, false).ok());
            if known.is_some() {
                return known;
            }
        }
        None
    }

    fn of_text(text: &str) -> Self {
        if text.to_ascii_lowercase().starts_with("pt") { Self::Pt } else { Self::En }
    }

    /// The words of this language.
    pub(crate) fn pick<T>(self, en: T, pt: T) -> T {
        match self {
            Self::En => en,
            Self::Pt => pt,
        }
    }

    /// A number of things: `1 table`, `2 tables`.
    pub(crate) fn count(self, number: u64, en: [&str; 2], pt: [&str; 2]) -> String {
        let [one, many] = self.pick(en, pt);
        format!("{number} {}", if number == 1 { one } else { many })
    }

    /// Yes or no.
    pub(crate) fn yes(self, yes: bool) -> &'static str {
        if yes { self.pick("yes", "sim") } else { self.pick("no", "não") }
    }

    /// An error as people read it: code and words, where something else caused it that too, then what to do.
    pub(crate) fn explain(self, error: &Error) -> String {
        let hint = self.pick(error.code.hint(), error.code.hint_pt());
        let (head, what) = self.pick(("error", "what to do"), ("erro", "o que fazer"));
        let cause = error.cause().filter(|cause| !error.message.contains(cause.as_str()));
        let of = self.pick("cause", "causa");
        let cause = cause.map(|cause| format!("{of}: {cause}\n")).unwrap_or_default();
        format!("{head}: {error}\n{cause}{what}: {hint}\n")
    }
}

#[cfg(test)]
mod tests {
    use protocol::Code;

    use super::*;

    #[test]
    fn portuguese_is_known_by_its_first_letters_and_all_else_is_english() {
        assert_eq!(Lang::of_text("pt_BR.UTF-8"), Lang::Pt);
        assert_eq!(Lang::of_text("PT"), Lang::Pt);
        assert_eq!(Lang::of_text("C.UTF-8"), Lang::En);
        assert_eq!(Lang::of(Some(Lang::Pt)), Lang::Pt);
    }

    #[test]
    fn one_thing_is_singular_and_any_other_number_of_them_plural() {
        let count = |lang: Lang, number| lang.count(number, ["row", "rows"], ["linha", "linhas"]);
        assert_eq!(count(Lang::En, 1), "1 row");
        assert_eq!(count(Lang::Pt, 1), "1 linha");
        assert_eq!([0, 2].map(|number| count(Lang::Pt, number)), ["0 linhas", "2 linhas"]);
    }

    #[test]
    fn an_error_tells_code_words_and_what_to_do_in_both_languages() {
        let error = Error::new(Code::DiskFull, "no room for the journal");
        let english = Lang::En.explain(&error);
        assert!(english.starts_with("error: DISK_FULL: no room for the journal\nwhat to do: Make"));
        assert!(Lang::Pt.explain(&error).contains("o que fazer: Libere"));
    }
}
