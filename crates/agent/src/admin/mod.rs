//! Admin: the loopback door for people and their tools: status, reload, verification, deletes above the cap, detailed log,
//! metrics, health.
//!
//! Promises: listens on loopback alone; what shows or changes the agent's work needs the token of its data folder.
//! Never: shows a row's value or a secret; talks to the cloud or the ERP (the journal is the corridor).

pub mod client;
mod door;
mod keep;
mod logs;
mod records;
mod status;
mod steer;
mod token;
mod verify;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::shutdown::Shutdown;
use tokio::net::TcpListener;

pub use door::AnswerDeletes;
pub use keep::keep;
pub use logs::{LogOrder, LogPage, LogStatus};
pub use records::{CleanOrder, Select, USUAL_ROWS};
pub use status::{DeletesStatus, IncidentStatus, PausedStatus, SpoolStatus, Status};
pub use steer::{HaltStatus, PauseOrder, ResumeOrder};
pub use verify::VerifyTables;

use crate::journal::Journal;

/// Where the running door tells its address, for a client beside it.
const ADDRESS_FILE: &str = "admin.address";

/// A door that listens and is not served yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    token: token::AdminToken,
    folder: PathBuf,
    journal: Journal,
    unconfigured: Option<Unconfigured>,
}

/// Why an agent does nothing.
#[derive(Clone, Debug)]
struct Unconfigured {
    missing: Vec<&'static str>,
    /// Where to go on.
    link: String,
}

impl Admin {
    /// Listens; makes the token at the first start.
    ///
    /// # Errors
    /// `ADDRESS_REFUSED` for an address that is not loopback, `ADDRESS_IN_USE`, `JOURNAL_FAILED` where the token
    /// cannot be kept.
    pub async fn bind(journal: Journal, folder: &Path, listen: SocketAddr) -> Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(Error::new(
                Code::AddressRefused,
                "the admin address must be a loopback address",
            )
            .at(listen));
        }
        let listener = TcpListener::bind(listen)
            .await
            .coded(Code::AddressInUse, "cannot listen for the admin door (admin.listen)")
            .map_err(|error| error.at(listen))?;
        let address =
            listener.local_addr().coded(Code::Internal, "the admin door has no address")?;
        let token = token::AdminToken::obtain(folder)?;
        // Before it serves: a client that comes at once waits in the listener's queue instead of knocking elsewhere.
        let told = folder.join(ADDRESS_FILE);
        runtime::files::private(&told)
            .and_then(|()| std::fs::write(&told, address.to_string()))
            .coded(Code::JournalFailed, "cannot tell the admin address in the data folder")?;
        let folder = folder.to_owned();
        Ok(Self { listener, address, token, folder, journal, unconfigured: None })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says in the status that these keys are missing and where to go on; without a link, that is this door.
    #[must_use]
    pub fn unconfigured(mut self, missing: Vec<&'static str>, link: Option<String>) -> Self {
        let link = link.unwrap_or_else(|| format!("http://{}/", self.address));
        self.unconfigured = Some(Unconfigured { missing, link });
        self
    }

    /// Serves until the drain.
    ///
    /// # Errors
    /// `INTERNAL` where the listener fails.
    pub async fn serve(self, mut shutdown: Shutdown) -> Result<()> {
        let file = self.folder.join(ADDRESS_FILE);
        tracing::info!(address = %self.address, "admin door open");
        let log = self.journal.detail_log();
        let behind = door::Behind {
            journal: self.journal,
            unconfigured: self.unconfigured.map(Arc::new),
            log: log.clone().into(),
        };
        let router = door::router(behind, Arc::new(self.token));
        let served = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { shutdown.draining().await })
            .await;
        // A file that stays behind leads to a refused connection, which the client explains.
        let _ = std::fs::remove_file(&file);
        let _ = runtime::recording::end(&log);
        served.coded(Code::Internal, "the admin door ended")
    }
}

#[cfg(test)]
mod tests;
