//! Board: what people are told of the link, put together from session and plan.
//!
//! Promises: a state that needs a person has code, words and hint.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{Code, Error, error::Class, ids::Epoch};
use runtime::clock::Wall;

use crate::journal::{Journal, LinkPhase, LinkState};

#[derive(Debug)]
pub(super) struct Board {
    journal: Journal,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    session: LinkState,
    /// What a call is answered again and again while the lease is held.
    trouble: Option<(String, String, String)>,
    plan: Option<(String, String, String)>,
}

fn told(error: &Error) -> (String, String, String) {
    (error.code.to_string(), error.message.clone(), error.code.hint().to_owned())
}

impl Board {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, parts: Mutex::default() }
    }

    pub(super) fn sending(&self, epoch: Epoch, foreign_server: bool) {
        self.set(LinkState {
            phase: LinkPhase::Sending,
            epoch: Some(epoch),
            foreign_server,
            ..LinkState::default()
        });
    }

    /// Not sending, why, and when it is tried again.
    pub(super) fn waiting(&self, phase: LinkPhase, error: &Error, pause: Option<Duration>) {
        tracing::warn!(code = %error.code, words = error.message, cause = error.cause(), hint = error.code.hint(), ?phase, "not sending");
        let (code, words, hint) = told(error);
        self.set(LinkState {
            phase,
            code: Some(code),
            words: Some(words),
            hint: Some(hint),
            next_try: pause.map(in_that_time),
            ..LinkState::default()
        });
    }

    pub(super) fn stopped(&self) {
        self.set(LinkState { phase: LinkPhase::Stopped, ..LinkState::default() });
    }

    /// What keeps the plan from being read; shown where the session itself has nothing to say.
    pub(super) fn plan(&self, error: Option<&Error>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.plan = error.map(told);
        self.publish(&parts);
    }

    /// What keeps a held lease from getting anything through; `None` = something went through.
    pub(super) fn trouble(&self, error: Option<&Error>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.trouble = error.map(told);
        self.publish(&parts);
    }

    fn set(&self, session: LinkState) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.session = session;
        parts.trouble = None;
        self.publish(&parts);
    }

    fn publish(&self, parts: &Parts) {
        let mut state = parts.session.clone();
        let told = parts.trouble.as_ref().or(parts.plan.as_ref());
        if let (None, Some((code, words, hint))) = (&state.code, told) {
            (state.code, state.words, state.hint) =
                (Some(code.clone()), Some(words.clone()), Some(hint.clone()));
        }
        self.journal.set_link(state);
    }
}

fn in_that_time(pause: Duration) -> String {
    let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
    Wall(Wall::now().0.saturating_add(micros)).to_iso()
}

/// Another sender's turn, or that of one who can read the ERP database; something a person has to mend, or a cloud that is away.
pub(super) fn phase_of(error: &Error) -> LinkPhase {
    match (error.code, error.class()) {
        (Code::Fenced | Code::SessionHeld | Code::EpochRequired, _) => LinkPhase::Standby,
        // The cloud is there; it is the ERP database that is not.
        (
            Code::SourceUnreachable
            | Code::SourceFile
            | Code::SourceTls
            | Code::SourceTimeout
            | Code::SourceFailed,
            _,
        ) => LinkPhase::Standby,
        (_, Class::Transient) => LinkPhase::Unreachable,
        (_, Class::Caller | Class::Operator | Class::Bug) => LinkPhase::Refused,
    }
}
