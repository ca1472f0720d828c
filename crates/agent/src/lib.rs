//! What happens in the customer's building: capture from the ERP database, journal, uplink to the cloud.
//!
//! Rooms: `source` reads ERP databases · `capture` decides what to read and send · `journal` is what the agent owes,
//! on disk · `uplink` is the cloud as the agent sees it · `verify` compares both sides · `pacing` is how fast both may
//! read in bulk · `admin` is the loopback door · `app` wires.
//! `capture`, `uplink`, `verify` and `admin` never import each other: the journal is the only corridor.

pub mod admin;
pub mod app;
pub mod capture;
pub mod config;
pub mod journal;
pub mod pacing;
pub mod source;
pub mod uplink;
pub mod verify;
