//! A sender of its own on the wire: table messages and Summaries as any client of the contract sends them.
//!
//! Promises: nothing of the agent is used; what is sent is what the test made, right or wrong.

use std::time::Duration;

use protocol::proto::totvs::{
    BatchSummary, BatchSummaryResponse, Table, TableInputResponse,
    table::{
        RowColumn, Schema, TableRow,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};
use tonic::{
    Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::cloud::Cloud;

/// Where it sends and as whom.
pub(crate) struct Target {
    pub(crate) grpc: String,
    pub(crate) token: String,
    pub(crate) erp: String,
    pub(crate) table: String,
}

pub(crate) struct Sender {
    grpc: Grpc<Channel>,
    pub(crate) target: Target,
    /// Epoch of a session that it claims to hold.
    pub(crate) epoch: Option<u64>,
}

/// Names with their types, or names with their values.
pub(crate) type Cells<'a> = &'a [(&'a str, &'a str)];

impl Sender {
    pub(crate) fn new(target: Target) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", target.grpc)).unwrap();
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .connect_lazy();
        Self { grpc: Grpc::new(channel), target, epoch: None }
    }

    pub(crate) async fn write(&mut self, message: &Table) -> Result<TableInputResponse, Status> {
        self.call(message.clone(), "/com.totvs.ingestion.grpc.TableStream/Write").await
    }

    pub(crate) async fn summary(
        &mut self,
        batch_id: i64,
        message_count: i32,
        record_count: i32,
    ) -> Result<BatchSummaryResponse, Status> {
        let erp = self.target.erp.clone();
        let (timestamp_start, timestamp_end) = (None, None);
        let summary = BatchSummary {
            erp,
            batch_id,
            message_count,
            record_count,
            timestamp_start,
            timestamp_end,
        };
        self.call(summary, "/com.totvs.ingestion.grpc.TableStream/Summary").await
    }

    async fn call<Q, A>(&mut self, message: Q, path: &'static str) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let away = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        self.grpc.ready().await.map_err(away)?;
        let mut request = tonic::Request::new(message);
        let bearer: MetadataValue<_> = format!("Bearer {}", self.target.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        if let Some(epoch) = self.epoch {
            request.metadata_mut().insert("x-sender-epoch", epoch.into());
        }
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let answer = self.grpc.unary(request, PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }

    /// A message of those rows under that key (the first columns of `columns`, as many as `key`).
    pub(crate) fn message(
        &self,
        (batch_id, message_number): (i64, i32),
        (columns, key): (Cells<'_>, usize),
        rows: &[Cells<'_>],
    ) -> Table {
        let column = |(name, kind): &(&str, &str)| SchemaColumn {
            name: (*name).into(),
            r#type: (*kind).into(),
        };
        let cell = |(name, value): &(&str, &str)| RowColumn {
            name: (*name).into(),
            value: (*value).into(),
        };
        let row = |cells: &Cells<'_>| TableRow { columns: cells.iter().map(cell).collect() };
        Table {
            table_name: self.target.table.clone(),
            erp: self.target.erp.clone(),
            rows: rows.iter().map(row).collect(),
            schema: Some(Schema {
                flexible: true,
                export_data: false,
                columns: columns.iter().map(column).collect(),
                primary_key: Some(SchemaPrimaryKey {
                    name: self.target.table.clone(),
                    columns: columns[..key].iter().map(|(name, _)| (*name).into()).collect(),
                }),
            }),
            batch_id,
            message_number,
            record_count: i32::try_from(rows.len()).unwrap(),
            is_base_load: false,
        }
    }
}

/// Sends a batch of a row that is staged and one that goes into quarantine; gives its number.
pub(crate) async fn staged_and_set_apart(cloud: &Cloud) -> i64 {
    let (grpc, token) = (cloud.grpc_target(), cloud.token().await);
    let target = Target { grpc, token, erp: cloud.erp.clone(), table: "FLAN".into() };
    let mut sender = Sender::new(target);
    let batch = runtime::clock::Wall::now().seconds() / 1_000 * 1_000;
    let columns = [("ID", "long"), ("N", "long")];
    let rows: [&[(&str, &str)]; 2] = [&[("ID", "1"), ("N", "1")], &[("ID", "2"), ("N", "x")]];
    let message = sender.message((batch, 1), (&columns, 1), &rows);
    let answer = sender.write(&message).await.unwrap();
    assert!(answer.success, "{answer:?}");
    let answer = sender.summary(batch, 1, 2).await.unwrap();
    assert!(answer.success, "{answer:?}");
    batch
}
