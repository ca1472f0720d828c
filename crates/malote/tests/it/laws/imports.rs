//! Imports: who may see whom (`design.md` 3, `style.md` 2).
//!
//! Promises: crates by their manifests, rooms and floors by the paths their code names.
//! Never: judges test code of a room, which may build what the room must not know.

use std::fs;

use super::{
    File, obey,
    syntax::{self, Named},
    tree,
};

/// Crate → which of our crates it may depend on.
const CRATES: [(&str, &[&str]); 6] = [
    ("protocol", &[]),
    ("runtime", &["protocol"]),
    ("agent", &["protocol", "runtime"]),
    ("server", &["protocol", "runtime"]),
    ("malote", &["protocol", "runtime", "agent", "server"]),
    ("sim", &["protocol", "runtime", "agent", "server"]),
];

/// (crate, room, what its code never names).
const WALLS: [(&str, &str, &[&str]); 16] = [
    (
        "agent",
        "capture",
        &[
            "crate::uplink",
            "crate::admin",
            "crate::verify",
            "crate::app",
            "tonic",
            "reqwest",
            "axum",
        ],
    ),
    (
        "agent",
        "verify",
        &[
            "crate::capture",
            "crate::uplink",
            "crate::admin",
            "crate::app",
            "tonic",
            "reqwest",
            "axum",
        ],
    ),
    (
        "agent",
        "uplink",
        &[
            "crate::capture",
            "crate::admin",
            "crate::verify",
            "crate::pacing",
            "crate::app",
            "crate::source",
            "rusqlite",
            "axum",
        ],
    ),
    (
        "agent",
        "pacing",
        &[
            "crate::capture",
            "crate::uplink",
            "crate::admin",
            "crate::verify",
            "crate::app",
            "rusqlite",
        ],
    ),
    (
        "agent",
        "admin",
        &["crate::capture", "crate::uplink", "crate::verify", "crate::app", "rusqlite"],
    ),
    (
        "agent",
        "journal",
        &[
            "crate::capture",
            "crate::uplink",
            "crate::admin",
            "crate::verify",
            "crate::source",
            "tonic",
            "reqwest",
        ],
    ),
    (
        "agent",
        "source",
        &[
            "crate::capture",
            "crate::uplink",
            "crate::admin",
            "crate::verify",
            "crate::journal",
            "tonic",
            "reqwest",
        ],
    ),
    (
        "server",
        "http",
        &["crate::grpc", "crate::tasks", "crate::store", "crate::app", "rusqlite", "tonic"],
    ),
    ("server", "grpc", &["crate::http", "crate::tasks", "crate::store", "crate::app", "rusqlite"]),
    (
        "server",
        "tasks",
        &["crate::http", "crate::grpc", "crate::store", "crate::app", "rusqlite", "axum", "tonic"],
    ),
    (
        "server",
        "service",
        &[
            "crate::http",
            "crate::grpc",
            "crate::tasks",
            "crate::app",
            "axum",
            "tonic",
            "hyper",
            "rusqlite",
        ],
    ),
    (
        "server",
        "store",
        &[
            "crate::http",
            "crate::grpc",
            "crate::tasks",
            "crate::service",
            "crate::app",
            "axum",
            "tonic",
        ],
    ),
    (
        "server",
        "model",
        &[
            "crate::http",
            "crate::grpc",
            "crate::tasks",
            "crate::service",
            "crate::store",
            "crate::app",
        ],
    ),
    ("server", "model", PURE),
    ("protocol", "", PURE),
    ("protocol", "", &["runtime"]),
];

/// What a room without IO and clock never names; a moment (`Wall`) may come in as an argument.
const PURE: &[&str] = &[
    "tokio",
    "rusqlite",
    "axum",
    "tonic",
    "runtime::clock::sleep",
    "runtime::clock::Mono",
    "Wall::now",
    "Mono::now",
    "runtime::entropy",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

fn names(path: &Named, wall: &str) -> bool {
    let mut wanted = wall.split("::");
    let mut given = path.segments.iter();
    wanted.all(|part| given.next().is_some_and(|segment| segment == part))
}

#[test]
fn law_agent_and_server_never_meet() {
    let mut broken = Vec::new();
    for (name, allowed) in CRATES {
        let path = tree::root().join("crates").join(name).join("Cargo.toml");
        let manifest: toml::Table =
            fs::read_to_string(path).expect("a manifest").parse().expect("TOML");
        let own = CRATES.iter().map(|(name, _)| *name);
        for other in own.filter(|other| !allowed.contains(other)) {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let found = manifest.get(kind).and_then(|table| table.get(other));
                if found.is_some() {
                    broken.push(format!("crates/{name}/Cargo.toml: {kind} names {other}"));
                }
            }
        }
    }
    obey(
        "malote → agent, server → runtime → protocol; sim → agent, server",
        "put what both need into protocol or runtime, by their admission questions",
        &broken,
    );
}

#[test]
fn law_wrong_variants_are_the_simulators_alone() {
    let mark = ["mut", "ants"].concat();
    let asks = |name: &str| {
        let path = tree::root().join("crates").join(name).join("Cargo.toml");
        fs::read_to_string(path).expect("a manifest").contains(&mark)
    };
    assert!(asks("sim"), "the law can fail");
    let own = CRATES.iter().map(|(name, _)| *name);
    // `runtime` declares the feature and does not turn it on.
    let broken: Vec<String> = own
        .filter(|name| !["sim", "runtime"].contains(name) && asks(name))
        .map(str::to_owned)
        .collect();
    obey(
        "no program that is shipped holds a wrong variant",
        "only the simulator turns the feature of runtime on",
        &broken,
    );
}

#[test]
fn law_rooms_and_floors_see_only_what_they_may() {
    let files = tree::rust_files();
    let mut broken = Vec::new();
    for (krate, room, walls) in WALLS {
        let lives = |file: &&File| {
            file.krate == krate
                && file.production
                && (room.is_empty() || file.module.first().is_some_and(|first| first == room))
        };
        for file in files.iter().filter(lives) {
            for path in syntax::walk(file).paths.iter().filter(|path| !path.test) {
                if let Some(wall) = walls.iter().find(|wall| names(path, wall)) {
                    broken.push(format!("{}:{} names {wall}", file.path, path.line));
                }
            }
        }
    }
    obey(
        "the import law of ARCHITECTURE.md",
        "agent: go through the journal; server: go through the floor below",
        &broken,
    );
}
