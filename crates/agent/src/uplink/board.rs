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
    plan: Option<(LinkPhase, (String, String, String))>,
    /// Since when nothing goes through.
    since: Option<i64>,
}

impl Parts {
    /// Something went through: that the cloud could not be reached for the plan is past, and the next reading says so
    /// again if it is not.
    fn reached(&mut self) {
        let unreachable = Code::CloudUnreachable.as_str();
        if self.plan.as_ref().is_some_and(|(_, (code, _, _))| code == unreachable) {
            self.plan = None;
        }
    }
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
        parts.plan = error.map(|error| (phase_of(error), told(error)));
        self.publish(&mut parts);
    }

    /// What keeps a held lease from getting anything through; `None` = something went through.
    pub(super) fn trouble(&self, error: Option<&Error>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.trouble = error.map(told);
        if error.is_none() {
            parts.reached();
        }
        self.publish(&mut parts);
    }

    fn set(&self, session: LinkState) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if session.phase == LinkPhase::Sending {
            parts.reached();
        }
        parts.session = session;
        parts.trouble = None;
        self.publish(&mut parts);
    }

    fn publish(&self, parts: &mut Parts) {
        let mut state = parts.session.clone();
        // The session waits for a first plan: what keeps that from coming is the link's own state.
        let waits = state.phase == LinkPhase::Connecting;
        if let (true, Some((phase, _))) = (waits, &parts.plan) {
            state.phase = *phase;
        }
        let plan = parts.plan.as_ref().map(|(_, told)| told);
        let told = parts.trouble.as_ref().or(plan);
        if let (None, Some((code, words, hint))) = (&state.code, told) {
            (state.code, state.words, state.hint) =
                (Some(code.clone()), Some(words.clone()), Some(hint.clone()));
        }
        // A plan that cannot be read keeps nothing from being sent.
        let stands = parts.session.code.is_some()
            || parts.trouble.is_some()
            || waits && parts.plan.is_some();
        parts.since = stands.then(|| parts.since.unwrap_or_else(|| Wall::now().0));
        state.since_micros = parts.since;
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
