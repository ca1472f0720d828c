//! Capture: decides what is read from the ERP and what is sent of it.
//!
//! Promises: per table, rows are sent in the order of their reads (I11); a cursor moves only to what the rows of the
//! same batch cover (I9, I10); a failing table is parked and the others go on.
//! Never: talks to the cloud: the journal is the only corridor. Never keeps a place that the cursor or a new read could
//! not give back.
//!
//! Rooms: `cursor` · `edge` · `erp_clock` · `load` · `batcher` · `recent` · `schedule` · `table` decide without reading;
//! `cycle`, `scan`, `ahead` and `asked` read; `worker` repeats, `plan` is what it takes over, `rest` waits between two
//! cycles.

mod ahead;
mod asked;
mod batcher;
mod cursor;
mod cycle;
mod edge;
mod erp_clock;
mod load;
mod plan;
mod recent;
mod rest;
mod room;
mod scan;
mod schedule;
mod table;
#[cfg(test)]
mod tests;
mod worker;

pub use schedule::Schedule;
pub use worker::Worker;
