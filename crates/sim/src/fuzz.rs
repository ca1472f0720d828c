//! Fuzz: hostile bytes at every door through which bytes of others come in, as plain functions (`correctness.md` 4.2, T9).
//!
//! Promises: a function takes any bytes and tells what it found wrong; it checks what the code promises of them, not only
//! that nothing panics. They run on stable, over a corpus and over what `mutate` makes of it.
//! Never: reaches into a room by a door that programs do not use.

pub mod hunt;
pub mod mutate;

mod answers;
mod claims;
mod exchange;
mod filter;
mod frame;
mod settings;
mod spool;
mod wire;

use std::sync::{Mutex, PoisonError};

use protocol::ids::{EnvironmentId, InstallationId, TenantId};
use server::{model::catalog::EnvironmentType, service::catalog::Catalog};

pub use mutate::Form;

/// What was found wrong, in words; `Ok` where nothing was.
pub type Found<T = ()> = Result<T, String>;

/// A door and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Also the folder of its corpus.
    pub name: &'static str,
    pub form: Form,
    pub run: fn(&[u8]) -> Found,
    /// Gives back what `run` made on its first call and kept.
    pub end: fn(),
}

/// Every target.
pub const TARGETS: [Target; 16] = [
    Target { name: "agent-config", form: Form::Words, run: settings::agent, end: nothing },
    Target { name: "apps", form: Form::Json, run: answers::apps, end: nothing },
    Target { name: "claims", form: Form::Words, run: claims::claims, end: claims::end },
    Target { name: "entities", form: Form::Json, run: answers::entities, end: answers::end },
    Target { name: "entity-list", form: Form::Words, run: exchange::list, end: nothing },
    Target { name: "filter", form: Form::Words, run: filter::parse, end: nothing },
    Target { name: "filter-run", form: Form::Words, run: filter::run, end: filter::end },
    Target { name: "frame", form: Form::Bytes, run: frame::frame, end: frame::end },
    Target { name: "key", form: Form::Bytes, run: wire::key, end: nothing },
    Target { name: "registry", form: Form::Json, run: answers::registry, end: answers::end },
    Target { name: "scan", form: Form::Protobuf, run: wire::scan, end: nothing },
    Target { name: "server-config", form: Form::Words, run: settings::server, end: nothing },
    Target { name: "spool", form: Form::Bytes, run: spool::spool, end: spool::end },
    Target { name: "summary", form: Form::Protobuf, run: wire::summary, end: wire::end },
    Target { name: "table", form: Form::Protobuf, run: wire::table, end: wire::end },
    Target { name: "token", form: Form::Json, run: answers::token, end: answers::end },
];

fn nothing() {}

/// Puts words before what went wrong.
fn fault<E: std::fmt::Display>(words: &str) -> impl Fn(E) -> String {
    move |error| format!("{words}: {error}")
}

/// An invariant.
fn holds(holds: bool, words: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(words()) }
}

/// Something dear that the calls of a target share: made by the first, given back by [`Target::end`].
struct Kept<W>(Mutex<Option<W>>);

impl<W> Kept<W> {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn with<T>(
        &self,
        make: impl FnOnce() -> Found<W>,
        work: impl FnOnce(&mut W) -> Found<T>,
    ) -> Found<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let world = match kept.take() {
            Some(world) => world,
            None => make()?,
        };
        work(kept.insert(world))
    }

    fn end(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A runtime of its own for a target that is asynchronous inside.
fn asynchronous() -> Found<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().map_err(fault("no runtime"))
}

/// A tenant with an environment and an installation of that ERP bound to it.
async fn set_up(
    catalog: &Catalog,
    erp: &str,
) -> protocol::Result<(TenantId, EnvironmentId, InstallationId)> {
    let tenant = catalog.create_tenant("tenant").await?.id;
    let kind = EnvironmentType::Production;
    let environment = catalog.create_environment(tenant, "e", kind).await?.id;
    let made = catalog.create_installation(tenant, "i", erp.parse()?, Some(environment)).await?;
    Ok((tenant, environment, made.id))
}

/// A folder in memory where the system has one: a target writes much that nobody reads later.
fn folder() -> Found<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("malote-fuzz-");
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).map_err(fault("no folder"))
}
