//! Mails: sends what waits to be mailed.
//!
//! Promises: a mail that was tried is written down with what it came to, or tried again; where the mail server cannot be
//! reached the others wait, so that an outage costs one try and no mail its tries.
//! Never: looks at what is wrong; logs an address, a subject or a text.

use metrics::counter;
use protocol::Result;
use runtime::{clock::Wall, entropy};

use super::{Alerts, post::Mail};
use crate::model::{
    alert::{Hindrance, MailClaim, words},
    delivery::Next,
};

/// Mails of one round: what is above waits for the next one.
const MAILS: usize = 32;

/// What sends mails.
#[derive(Debug)]
pub struct Mails {
    alerts: Alerts,
}

impl Mails {
    pub(super) fn new(alerts: Alerts) -> Self {
        Self { alerts }
    }

    /// Sends the mails that are due; returns how many were taken. Without a mail server they wait.
    ///
    /// # Errors
    /// The store's own.
    pub async fn send(&self) -> Result<usize> {
        let Some(post) = self.alerts.post().await? else { return Ok(0) };
        let mut taken = 0;
        for _ in 0..MAILS {
            let moment = (Wall::now(), entropy::fraction());
            let Some(claim) = self.alerts.store.claim_mail(moment).await? else { break };
            let (receipt, attempt) = (claim.receipt, claim.attempt);
            let unsent = post.send(self.mail(claim)).await.err();
            let moment = (Wall::now(), entropy::fraction());
            let next = self.alerts.store.settle_mail(receipt, unsent.clone(), moment).await?;
            taken += usize::from(next == Some(Next::Done));
            let (words, why) = unsent.map(|unsent| (unsent.words, unsent.why)).unzip();
            note(next, attempt, &words.unwrap_or_default());
            if why == Some(Hindrance::Unreached) {
                break;
            }
        }
        Ok(taken)
    }

    fn mail(&self, claim: MailClaim) -> Mail {
        let MailClaim { address, language, range: (first, last), notices, .. } = claim;
        let (subject, text) = words::mail(&notices, &self.alerts.settings.source, language);
        Mail { to: address, subject, text, name: format!("{first}-{last}") }
    }
}

fn note(next: Option<Next>, attempt: u32, words: &str) {
    let count = |outcome: &'static str| {
        counter!("malote_alert_mails_total", "outcome" => outcome).increment(1)
    };
    match next {
        Some(Next::Done) => count("done"),
        Some(Next::Again { .. }) => {
            count("failed");
            tracing::warn!(
                attempt,
                words,
                "a mail about alerts could not be sent, it is tried again"
            );
        }
        Some(Next::Dead) => {
            count("dead");
            tracing::error!(
                attempt,
                words,
                "a mail about alerts could not be sent, it is given up"
            );
        }
        None => {
            tracing::info!(
                attempt,
                "a mail was sent after its lease, or its address was taken away"
            );
        }
    }
}
