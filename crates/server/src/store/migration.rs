//! Migration: the steps of the schema, one list for both engines.
//!
//! Promises: a step has the same number and name in both; each engine's folder holds its text.
//! Never: runs one; the engines do.

/// One step; SQLite's file tells in prose what it keeps.
#[derive(Debug)]
pub(in crate::store) struct Migration {
    pub(in crate::store) number: u32,
    pub(in crate::store) name: &'static str,
    pub(in crate::store) sql: &'static str,
}

/// All steps, ascending, in the words of the engine whose folder that is.
macro_rules! migrations {
    ($engine:literal) => {
        $crate::store::migration::migrations! { $engine:
            1 "0001_catalog";
            2 "0002_ingest";
            3 "0003_administration";
            4 "0004_carol";
            5 "0005_retention";
            6 "0006_webhooks";
            7 "0007_fleet";
            8 "0008_alerts";
            9 "0009_decisions";
        }
    };
    ($engine:literal: $($number:literal $name:literal;)+) => {
        &[$($crate::store::migration::Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/migrations/", $engine, "/", $name, ".sql"
            )),
        }),+]
    };
}

pub(in crate::store) use migrations;
