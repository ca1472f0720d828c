//! Tasks: reconcilers that bring one thing into line with another, again and again.
//!
//! Promises: each can be killed at any moment and goes on where it was; each ends soon after the drain.
//! Never: is the only one who knows of work: hints wake it, the store tells it.

pub mod alerts;
pub mod apply;
pub mod retention;
pub mod silence;
pub mod webhooks;
