//! Configuration files of agent and server.
//!
//! Promises: any text is a configuration that dumps and reads back, or is refused by its file or key.
//! Never: starts anything.

use std::fs;

use agent::config::AgentConfig;
use protocol::{Code, Error};
use server::config::ServerConfig;

use super::{Found, fault, folder, holds};

/// Refused in words that lead a person to the place.
fn told(error: &Error, file: &str, text: &str) -> Found {
    let keyed = error.message.contains(file)
        || error.message.split([':', ' ']).any(|word| word.len() > 2 && text.contains(word));
    holds(error.code == Code::ConfigInvalid && keyed, || format!("refused by {error}"))
}

/// The agent's.
pub(super) fn agent(bytes: &[u8]) -> Found {
    let folder = folder()?;
    let (path, again) = (folder.path().join("agent.toml"), folder.path().join("again.toml"));
    fs::write(&path, bytes).map_err(fault("no file"))?;
    let text = String::from_utf8_lossy(bytes);
    let config = match AgentConfig::load(Some(&path)) {
        Ok(config) => config,
        Err(error) => return told(&error, "agent.toml", &text),
    };
    let missing = config.missing();
    match config.validate() {
        Ok(()) => holds(missing.is_empty(), || format!("good, and {missing:?} are missing"))?,
        Err(error) => {
            holds(error.code == Code::ConfigInvalid && error.message.contains('.'), || {
                format!("invalid without a key: {error}")
            })?
        }
    }
    let dumped = config.dump().map_err(fault("it cannot be dumped"))?;
    fs::write(&again, &dumped).map_err(fault("no file"))?;
    let read = AgentConfig::load(Some(&again));
    let read = read.map_err(|error| format!("its dump is refused: {error}\n{dumped}"))?;
    let twice = read.dump().map_err(fault("it cannot be dumped again"))?;
    holds(twice == dumped, || format!("its dump reads as another one:\n{dumped}\n{twice}"))
}

/// The server's.
pub(super) fn server(bytes: &[u8]) -> Found {
    let folder = folder()?;
    let (path, again) = (folder.path().join("server.toml"), folder.path().join("again.toml"));
    fs::write(&path, bytes).map_err(fault("no file"))?;
    let config = match ServerConfig::load(Some(&path)) {
        Ok(config) => config,
        Err(error) => return told(&error, "server.toml", &String::from_utf8_lossy(bytes)),
    };
    if let Err(error) = config.addresses(config.http_listen, config.grpc_listen) {
        let known = matches!(error.code, Code::AddressRefused | Code::ConfigInvalid);
        holds(known && error.message.contains("public_"), || format!("refused by {error}"))?;
    }
    fs::write(&again, config.dump()).map_err(fault("no file"))?;
    let read = ServerConfig::load(Some(&again));
    let read = read.map_err(|error| format!("its dump is refused: {error}\n{}", config.dump()))?;
    holds(read == config, || format!("its dump reads as another one:\n{}", config.dump()))
}
