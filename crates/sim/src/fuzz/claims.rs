//! Tokens at the server: claims, header and signature.
//!
//! Promises: what is taken was signed by this server: header and claims are those of a token it gave out.
//! Never: signs.

use std::collections::BTreeSet;

use protocol::Code;
use runtime::clock::Wall;
use secrecy::SecretString;
use server::{model::catalog::Holder, service::Services, store::sqlite};
use tokio::runtime::Runtime;

use super::{Found, Kept, asynchronous, fault, folder, holds, set_up};

const NOW: Wall = Wall(1_800_000_000_000_000);
/// In an input stands for a part of a good token: header, claims, signature, or all of it.
const PARTS: [&str; 4] = ["@H", "@C", "@S", "@T"];

struct World {
    runtime: Runtime,
    services: Services,
    token: String,
    /// Header and claims of what was given out.
    given: BTreeSet<String>,
    _folder: tempfile::TempDir,
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

/// What the signature of a token is over.
fn signed(token: &str) -> &str {
    token.rsplit_once('.').map_or("", |(signed, _)| signed)
}

impl World {
    fn new() -> Found<Self> {
        let (runtime, folder) = (asynchronous()?, folder()?);
        sqlite::migrate(&folder.path().join("store.sqlite")).map_err(fault("no store"))?;
        let made = runtime.block_on(async {
            let services =
                Services::open(folder.path(), "http://malote.example/totvs.rac".into()).await?;
            let catalog = &services.catalog;
            let (tenant, _, installation) = set_up(catalog, "RM").await?;
            let holder = Holder::Installation(installation);
            let new = services.access.create_credential(tenant, holder).await?;
            let secret = SecretString::from(new.reveal().to_owned());
            let token = services.access.issue(new.credential.client.as_str(), &secret, NOW).await?;
            Ok::<_, protocol::Error>((services, token.access_token))
        });
        let (services, token) = made.map_err(fault("no world"))?;
        let given = BTreeSet::from([signed(&token).to_owned()]);
        Ok(Self { runtime, services, token, given, _folder: folder })
    }

    /// The input with the parts of the good token put in.
    fn filled(&self, text: &str) -> String {
        let parts: Vec<&str> = self.token.split('.').collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let values = [part(0), part(1), part(2), self.token.as_str()];
        PARTS
            .iter()
            .zip(values)
            .fold(text.to_owned(), |text, (mark, value)| text.replace(mark, value))
    }
}

/// A token as it comes in a header.
pub(super) fn claims(bytes: &[u8]) -> Found {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    WORLD.with(World::new, |world| {
        let token = world.filled(text);
        match world.runtime.block_on(world.services.access.authenticate(&token, NOW)) {
            Ok(caller) => {
                let ours = world.given.contains(signed(&token)) && caller.erp.as_str() == "RM";
                holds(ours, || "a token that was never given out was taken".to_owned())
            }
            Err(error) => {
                let refused = error.code == Code::Unauthenticated;
                holds(refused && !error.message.contains(text) || text.len() < 8, || {
                    format!("refused by {error}")
                })
            }
        }
    })
}
