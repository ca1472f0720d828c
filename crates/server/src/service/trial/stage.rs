//! Stage: an accepting and a staging service over a [`Trial`], and a sender of one table, for the tests of both.
//!
//! Promises: rows are shown as texts.
//! Never: is compiled into the program.

use std::{cell::Cell, path::PathBuf};

use prost::Message as _;
use protocol::{
    Result,
    ids::EnvironmentId,
    key::KeyBytes,
    names::{ErpName, TableName},
    proto::totvs::{
        BatchSummary, Table,
        table::{
            RowColumn, Schema, TableRow,
            schema::{SchemaColumn, SchemaPrimaryKey},
        },
    },
};
use runtime::clock::Wall;

use super::{NOW, Trial, at};
use crate::{
    model::catalog::{Page, Place},
    service::{ingest::Ingest, staging::Staging},
    store::staging::{Quarantined, Spaces},
};

pub(in crate::service) type Cells<'a> = &'a [(&'a str, &'a str)];

pub(in crate::service) struct Stage {
    pub(in crate::service) trial: Trial,
    pub(in crate::service) ingest: Ingest,
    pub(in crate::service) staging: Staging,
    /// When messages and Summaries come.
    pub(in crate::service) clock: Cell<Wall>,
}

impl Stage {
    pub(in crate::service) fn new() -> Self {
        Self::over(Trial::new())
    }

    pub(in crate::service) fn over(trial: Trial) -> Self {
        let ingest = Ingest::new(trial.store.clone());
        let staging = Staging::new(trial.store.clone(), &trial.data());
        Self { trial, ingest, staging, clock: Cell::new(NOW) }
    }

    pub(in crate::service) async fn send(
        &self,
        place: (i64, i32),
        columns: Cells<'_>,
        rows: &[Cells<'_>],
    ) {
        self.send_with(place, columns, rows, |_| {}).await;
    }

    pub(in crate::service) async fn try_send(
        &self,
        place: (i64, i32),
        columns: Cells<'_>,
        rows: &[Cells<'_>],
    ) -> Result<()> {
        self.put(place, columns, rows, |_| {}).await
    }

    pub(in crate::service) async fn send_with(
        &self,
        place: (i64, i32),
        columns: Cells<'_>,
        rows: &[Cells<'_>],
        change: impl FnOnce(&mut Table),
    ) {
        self.put(place, columns, rows, change).await.unwrap();
    }

    async fn put(
        &self,
        (batch_id, message_number): (i64, i32),
        columns: Cells<'_>,
        rows: &[Cells<'_>],
        change: impl FnOnce(&mut Table),
    ) -> Result<()> {
        let cell = |(name, value): &(&str, &str)| RowColumn {
            name: (*name).into(),
            value: (*value).into(),
        };
        let column = |(name, kind): &(&str, &str)| SchemaColumn {
            name: (*name).into(),
            r#type: (*kind).into(),
        };
        let mut table = Table {
            table_name: "FLAN".into(),
            erp: "RM".into(),
            rows: rows
                .iter()
                .map(|row| TableRow { columns: row.iter().map(cell).collect() })
                .collect(),
            schema: Some(Schema {
                flexible: true,
                export_data: true,
                columns: columns.iter().map(column).collect(),
                primary_key: Some(SchemaPrimaryKey {
                    name: "FLAN".into(),
                    columns: vec!["ID".into()],
                }),
            }),
            batch_id,
            message_number,
            record_count: i32::try_from(rows.len()).unwrap(),
            is_base_load: false,
        };
        change(&mut table);
        self.ingest
            .write(
                &self.trial.caller,
                None,
                bytes::Bytes::from(table.encode_to_vec()),
                self.clock.get(),
            )
            .await
    }

    pub(in crate::service) async fn end(
        &self,
        batch_id: i64,
        message_count: i32,
        record_count: i32,
    ) {
        let summary = BatchSummary {
            erp: "RM".into(),
            batch_id,
            message_count,
            record_count,
            timestamp_start: None,
            timestamp_end: None,
        };
        self.ingest
            .summary(&self.trial.caller, None, &[], &summary, self.clock.get())
            .await
            .unwrap();
    }

    pub(in crate::service) async fn caught_up(&self) {
        self.staging.catch_up(&self.trial.caller.stream(), at(1)).await.unwrap();
    }

    /// Where the staging file is, of a store that is one.
    pub(in crate::service) fn file(&self) -> PathBuf {
        let caller = &self.trial.caller;
        Spaces::path(&self.trial.data(), caller.environment, &caller.erp)
    }

    /// Runs statements in the staging space.
    pub(in crate::service) fn in_space(&self, sql: &str) {
        if self.trial.is_a_file() {
            rusqlite::Connection::open(self.file()).unwrap().execute_batch(sql).unwrap();
        } else {
            self.trial.run(&self.within(sql));
        }
    }

    /// The first column of the first row that a statement gives in the staging space.
    pub(in crate::service) fn of_space(&self, sql: &str) -> String {
        if self.trial.is_a_file() {
            let file = rusqlite::Connection::open(self.file()).unwrap();
            let sql = format!("SELECT CAST(({sql}) AS TEXT)");
            file.query_row(&sql, [], |row| row.get(0)).unwrap()
        } else {
            self.trial.text(&self.within(sql))
        }
    }

    /// As after a loss of all that was staged.
    pub(in crate::service) fn lose_space(&self) {
        if self.trial.is_a_file() {
            for end in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", self.file().display()));
            }
        } else {
            self.trial.run(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema()));
        }
    }

    fn schema(&self) -> String {
        Spaces::schema(self.trial.caller.environment, &self.trial.caller.erp)
    }

    /// A statement as it runs in the staging space.
    pub(in crate::service) fn within(&self, sql: &str) -> String {
        format!("SET search_path TO {}; {sql}", self.schema())
    }

    pub(in crate::service) fn place(&self) -> (EnvironmentId, ErpName, TableName) {
        (self.trial.caller.environment, self.trial.caller.erp.clone(), "flan".parse().unwrap())
    }

    pub(in crate::service) fn whole_place(&self) -> Place {
        let caller = &self.trial.caller;
        Place { tenant: caller.tenant, environment: caller.environment, erp: caller.erp.clone() }
    }

    pub(in crate::service) async fn quarantine(&self, after: &str, limit: u32) -> Vec<Quarantined> {
        let page = Page { after: after.into(), limit, ..Page::default() };
        self.staging.quarantined(&self.whole_place(), (None, None), page).await.unwrap()
    }

    /// Live rows as `name=value` texts.
    pub(in crate::service) async fn rows(&self) -> Vec<String> {
        let (environment, erp, name) = self.place();
        let table = self.staging.table(environment, &erp, &name).await.unwrap();
        let rows =
            self.staging.page(environment, &erp, &name, (KeyBytes::default(), 100)).await.unwrap();
        rows.iter()
            .map(|row| {
                let cells = table.columns.iter().zip(&row.values);
                let shown = cells.filter_map(|(column, value)| {
                    Some(format!("{}={}", column.name, value.as_ref()?))
                });
                shown.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }
}
