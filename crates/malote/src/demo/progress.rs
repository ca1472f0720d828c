//! Progress: what the demo tells while it works, to people and to programs.
//!
//! Promises: with `--json` stdout holds one object a line and nothing else, people's words go to stderr; on a terminal
//! the numbers live in one line, elsewhere they come as lines now and then.
//! Never: decides anything.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::clock::Mono;
use serde_json::{Value, json};

use crate::{lang::Lang, out};

/// Where there is no terminal: how often the numbers are told at most.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Sums over all tables of all ERPs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Numbers {
    /// Rows the agents read and packed, deletes among them.
    pub(crate) captured: u64,
    /// Batches whose Summary was accepted.
    pub(crate) batches: u64,
    /// Live rows in staging.
    pub(crate) staged: u64,
    /// From the first message of the newest complete batch to its accepted Summary.
    pub(crate) latency_ms: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) lang: Lang,
    json: bool,
    begun: Mono,
    bar: Option<ProgressBar>,
    told: Option<(Mono, Numbers)>,
}

impl Progress {
    pub(crate) fn new(lang: Lang, json: bool) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { lang, json, begun: Mono::now(), bar, told: None }
    }

    /// A sentence for people, in both languages.
    pub(crate) fn say(&self, en: impl AsRef<str>, pt: impl AsRef<str>) {
        let line = self.lang.pick(en.as_ref(), pt.as_ref());
        let put = || if self.json { out::talk(line) } else { out::data(line) };
        match &self.bar {
            Some(bar) => bar.suspend(put),
            None => put(),
        }
    }

    /// An object for programs; nothing without `--json`.
    pub(crate) fn event(&self, event: &Value) {
        if self.json {
            match &self.bar {
                Some(bar) => bar.suspend(|| out::data(event.to_string())),
                None => out::data(event.to_string()),
            }
        }
    }

    /// The live line: what is going on, and the sums.
    pub(crate) fn numbers(&mut self, phase: Phase, numbers: Numbers) {
        let words = words(self.lang, phase, numbers);
        if let Some(bar) = &self.bar {
            bar.set_message(words.clone());
        }
        let due =
            self.told.is_none_or(|(at, before)| at.elapsed() >= LINE_EVERY && before != numbers);
        if !due {
            return;
        }
        self.told = Some((Mono::now(), numbers));
        if self.bar.is_none() {
            out::talk(format!("{:>6.1} s  {words}", self.begun.elapsed().as_secs_f64()));
        }
        self.event(&json!({
            "event": "progress",
            "phase": phase.name(),
            "captured": numbers.captured,
            "batches": numbers.batches,
            "staged": numbers.staged,
            "latencyMs": numbers.latency_ms,
        }));
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Takes the live line away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    BaseLoad,
    Day,
    Following,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::BaseLoad => "baseLoad",
            Self::Day => "day",
            Self::Following => "following",
        }
    }
}

fn words(lang: Lang, phase: Phase, numbers: Numbers) -> String {
    let phase = match phase {
        Phase::BaseLoad => lang.pick("base load", "carga inicial"),
        Phase::Day => lang.pick("the day", "o dia"),
        Phase::Following => lang.pick("following", "acompanhando"),
    };
    let latency = numbers.latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let Numbers { captured, batches, staged, .. } = numbers;
    lang.pick(
        format!("{phase}: captured {captured}, batches {batches}, staged {staged}, latency {latency}"),
        format!("{phase}: capturadas {captured}, pacotes {batches}, na staging {staged}, latência {latency}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_told_in_both_languages() {
        let numbers = Numbers { captured: 3, batches: 2, staged: 1, latency_ms: Some(40) };
        assert_eq!(
            words(Lang::En, Phase::BaseLoad, numbers),
            "base load: captured 3, batches 2, staged 1, latency 40 ms"
        );
        let none = Numbers { latency_ms: None, ..numbers };
        assert!(words(Lang::Pt, Phase::Day, none).ends_with("na staging 1, latência -"));
    }
}
