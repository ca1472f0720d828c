//! A sender of its own that remembers every acknowledgement, to be held against the ledger (I1).
//!
//! Promises: an unknown outcome is repeated with the same bytes until it is known; only success=true is remembered.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use protocol::proto::totvs::{
    BatchSummary, BatchSummaryResponse, Table, TableInputResponse,
    table::{
        RowColumn, Schema, TableRow,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};
use runtime::{clock, task};
use sha2::{Digest as _, Sha256};
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

/// Sha of each acknowledged message, and the batches whose Summary was.
#[derive(Clone, Default, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) messages: BTreeMap<(i64, i32), Vec<u8>>,
    pub(crate) batches: Vec<i64>,
}

/// Where it sends and as whom.
pub(crate) struct Target {
    pub(crate) grpc: String,
    pub(crate) token: String,
    pub(crate) erp: String,
    pub(crate) table: String,
}

/// Sends batches of five until told to stop; ends with what was acknowledged.
pub(crate) fn start(target: Target, stop: Arc<AtomicBool>) -> task::Task<Acknowledged> {
    task::spawn("recorder", async move {
        let endpoint = Endpoint::from_shared(format!("http://{}", target.grpc)).unwrap();
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .connect_lazy();
        let mut client = Recorder { grpc: Grpc::new(channel), target };
        let mut acknowledged = Acknowledged::default();
        let mut batch = clock::Wall::now().seconds();
        while !stop.load(Ordering::Relaxed) {
            client.batch(batch, &mut acknowledged).await;
            batch += 1;
        }
        acknowledged
    })
}

struct Recorder {
    grpc: Grpc<Channel>,
    target: Target,
}

impl Recorder {
    async fn batch(&mut self, batch: i64, acknowledged: &mut Acknowledged) {
        for number in 1..=5 {
            let message = self.message(batch, number);
            loop {
                let path = "/com.totvs.ingestion.grpc.TableStream/Write";
                match self.call::<_, TableInputResponse>(message.clone(), path).await {
                    Some(answer) => {
                        assert!(answer.success, "{:?}", answer.errors);
                        break;
                    }
                    None => clock::sleep(Duration::from_millis(30)).await,
                }
            }
            let sha = Sha256::digest(message.encode_to_vec()).to_vec();
            acknowledged.messages.insert((batch, number), sha);
        }
        let summary = BatchSummary {
            erp: self.target.erp.clone(),
            batch_id: batch,
            message_count: 5,
            record_count: 5,
            timestamp_start: None,
            timestamp_end: None,
        };
        loop {
            let path = "/com.totvs.ingestion.grpc.TableStream/Summary";
            match self.call::<_, BatchSummaryResponse>(summary.clone(), path).await {
                Some(answer) => {
                    assert!(answer.success, "{:?}", answer.errors);
                    break;
                }
                None => clock::sleep(Duration::from_millis(30)).await,
            }
        }
        acknowledged.batches.push(batch);
    }

    /// `None` where the outcome is not known.
    async fn call<Q, A>(&mut self, message: Q, path: &'static str) -> Option<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await.ok()?;
        let mut request = tonic::Request::new(message);
        let bearer: MetadataValue<_> = format!("Bearer {}", self.target.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        match self.grpc.unary(request, PathAndQuery::from_static(path), codec).await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) => {
                let unknown = [
                    tonic::Code::Unavailable,
                    tonic::Code::Unknown,
                    tonic::Code::DeadlineExceeded,
                    tonic::Code::Cancelled,
                    tonic::Code::Internal,
                ];
                assert!(unknown.contains(&status.code()), "{status:?}");
                None
            }
        }
    }

    fn message(&self, batch: i64, number: i32) -> Table {
        let column =
            |name: &str, kind: &str| SchemaColumn { name: name.into(), r#type: kind.into() };
        let cell = |name: &str, value: String| RowColumn { name: name.into(), value };
        let row = TableRow {
            columns: vec![cell("ID", number.to_string()), cell("BATCH", batch.to_string())],
        };
        Table {
            table_name: self.target.table.clone(),
            erp: self.target.erp.clone(),
            rows: vec![row],
            schema: Some(Schema {
                flexible: true,
                export_data: false,
                columns: vec![column("ID", "long"), column("BATCH", "long")],
                primary_key: Some(SchemaPrimaryKey {
                    name: self.target.table.clone(),
                    columns: vec!["ID".into()],
                }),
            }),
            batch_id: batch,
            message_number: number,
            record_count: 1,
            is_base_load: false,
        }
    }
}
