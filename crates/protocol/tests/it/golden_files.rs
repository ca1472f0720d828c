//! What stands in `golden/` is what older agents and servers read and write: a change here is a change of contract.

use std::{fmt::Write as _, fs, path::PathBuf};

use prost::Message;
use prost_types::{FileDescriptorSet, Timestamp, field_descriptor_proto::Type};
use protocol::{
    Code, Error,
    hash::RowHasher,
    ids::{BatchId, Generation, MessageNumber},
    json::{App, Apps, Endpoint, Entities, EntityQuery, ErrorBody, Service, Token},
    key::KeyBytes,
    names::ColumnName,
    proto::{
        DESCRIPTORS, fleet, ingestion,
        totvs::{
            BatchSummary, BatchSummaryResponse, Table, TableInputResponse,
            table::{
                RowColumn, Schema, TableRow,
                schema::{SchemaColumn, SchemaPrimaryKey},
            },
        },
    },
    wire::{MessageWriter, Pushed, TableView},
};

fn check(name: &str, text: &str) {
    // Told when the tests run: built tests that are cached may have been built in another clone.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let path = here.join("tests/it/golden").join(name);
    if std::env::var_os("MALOTE_GOLDEN").is_some_and(|mode| mode == "write") {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        golden, text,
        "{name} differs; MALOTE_GOLDEN=write rewrites it if the contract really changed"
    );
}

/// Hex of the encoded message, 32 bytes a line; decoding it again must give the same message.
fn wire<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) -> String {
    let bytes = message.encode_to_vec();
    assert_eq!(&M::decode(bytes.as_slice()).unwrap(), message);
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(32).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
        text
    })
}

fn pretty<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn example() -> Table {
    let column = |name: &str, value: &str| RowColumn { name: name.into(), value: value.into() };
    let typed =
        |name: &str, type_name: &str| SchemaColumn { name: name.into(), r#type: type_name.into() };
    let key = vec!["CODCOLIGADA".to_owned(), "IDLAN".to_owned()];
    Table {
        table_name: "FLAN".into(),
        erp: "RM".into(),
        rows: vec![
            TableRow {
                columns: vec![
                    column("CODCOLIGADA", "1"),
                    column("IDLAN", "10"),
                    column("VALOR", "1234.50"),
                ],
            },
            TableRow {
                columns: vec![
                    column("CODCOLIGADA", "1"),
                    column("IDLAN", "11"),
                    column("DELETED", "true"),
                ],
            },
        ],
        schema: Some(Schema {
            flexible: true,
            export_data: true,
            columns: vec![
                typed("CODCOLIGADA", "integer"),
                typed("IDLAN", "long"),
                typed("VALOR", "decimal"),
            ],
            primary_key: Some(SchemaPrimaryKey { name: "FLAN".into(), columns: key }),
        }),
        batch_id: 1_718_000_000,
        message_number: 1,
        record_count: 2,
        is_base_load: false,
    }
}

#[test]
fn the_table_message_of_the_contracts_example_keeps_its_bytes() {
    let table = example();
    check("table.hex", &wire(&table));
    let schema = table.schema.clone().unwrap();
    let mut writer = MessageWriter::new(&"FLAN".parse().unwrap(), &"RM".parse().unwrap(), &schema);
    let rows = [[Some("1"), Some("10"), Some("1234.50")], [Some("1"), Some("11"), None]];
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(writer.push(|column| row[column], at == 1), Pushed::Taken);
    }
    let bytes = writer.finish(BatchId(table.batch_id), MessageNumber(1), false);
    assert_eq!(hex(&bytes), wire(&table), "the sender's writer writes what prost writes");
    assert_eq!(TableView::scan(&bytes).unwrap().row_count(), 2);
}

#[test]
fn summaries_and_answers_keep_their_bytes() {
    let summary = BatchSummary {
        erp: "RM".into(),
        batch_id: 1_718_000_000,
        message_count: 2,
        record_count: 3,
        timestamp_start: Some(Timestamp { seconds: 1_718_000_000, nanos: 0 }),
        timestamp_end: Some(Timestamp { seconds: 1_718_000_005, nanos: 250_000_000 }),
    };
    check("batch_summary.hex", &wire(&summary));
    let gap = "SEQUENCE_GAP: batch 1718000000 of RM expects message 3, got 5".to_owned();
    check(
        "table_input_response.hex",
        &wire(&TableInputResponse { success: false, errors: vec![gap.clone()] }),
    );
    check(
        "batch_summary_response.hex",
        &wire(&BatchSummaryResponse { success: true, errors: vec![] }),
    );
    assert_eq!(gap.parse(), Ok(Code::SequenceGap));
}

#[test]
fn session_and_reconcile_messages_keep_their_bytes() {
    use ingestion::{
        CursorEntry, DatabaseIdentity, Granted, Held, KeyRange, OpenRequest, OpenResponse,
        PrepareRequest, RangeSum, RangesRequest, RangesResponse, Refused, ReleaseRequest,
        RenewRequest, RenewResponse, RowHash, RowsRequest, RowsResponse, Versions,
        open_response::Result,
    };
    let entry = CursorEntry { table: "FLAN".into(), value: b"opaque".to_vec() };
    let open = OpenRequest {
        erp: "RM".into(),
        instance_id: "6d0a3f4e-0000-4000-8000-000000000001".into(),
        nonce: "6d0a3f4e-0000-4000-8000-000000000002".into(),
        database_identity: Some(DatabaseIdentity {
            kind: "postgres".into(),
            facts: [
                ("system_identifier".to_owned(), "7".to_owned()),
                ("timeline".to_owned(), "1".to_owned()),
            ]
            .into(),
            position: vec![0, 0, 0, 0, 1, 0, 0, 40],
        }),
        versions: Some(Versions { agent: "0.1.0".into(), protocol: 1, database: "15.18".into() }),
    };
    let answer = |result| OpenResponse { result: Some(result) };
    let granted = Granted {
        epoch: 4,
        cursor: vec![entry.clone()],
        last_batch: 1_718_000_000,
        ttl_seconds: 30,
    };
    let refused =
        Refused { code: "DATABASE_CHANGED".into(), message: "timeline is 2, was 1".into() };
    let mut text = String::new();
    let mut add = |name: &str, bytes: String| write!(text, "# {name}\n{bytes}").unwrap();
    add("OpenRequest", wire(&open));
    add("OpenResponse granted", wire(&answer(Result::Granted(granted))));
    add("OpenResponse held", wire(&answer(Result::Held(Held { retry_after_seconds: 5 }))));
    add("OpenResponse refused", wire(&answer(Result::Refused(refused))));
    let renew = RenewRequest {
        erp: "RM".into(),
        epoch: 4,
        nonce: "n".into(),
        database_identity: None,
        position: vec![1, 2],
    };
    add("RenewRequest", wire(&renew));
    add("RenewResponse", wire(&RenewResponse { ttl_seconds: 30 }));
    add("ReleaseRequest", wire(&ReleaseRequest { erp: "RM".into(), epoch: 4 }));
    add(
        "PrepareRequest",
        wire(&PrepareRequest { erp: "RM".into(), epoch: 4, batch_id: 7, entries: vec![entry] }),
    );
    add(
        "RangesRequest",
        wire(&RangesRequest {
            erp: "RM".into(),
            table: "FLAN".into(),
            bounds: vec![b"a".to_vec()],
            range: None,
        }),
    );
    let sum = RangeSum { count: 2, xor128: vec![9; 16] };
    add("RangesResponse", wire(&RangesResponse { sums: vec![sum], applied_batch: 7 }));
    let range = Some(KeyRange { from: b"a".to_vec(), to: vec![] });
    add(
        "RowsRequest",
        wire(&RowsRequest { erp: "RM".into(), table: "FLAN".into(), range, after: b"b".to_vec() }),
    );
    let rows = vec![RowHash { key: b"b".to_vec(), hash128: vec![7; 16] }];
    add("RowsResponse", wire(&RowsResponse { rows, more: true }));
    check("session_and_reconcile.hex", &text);
}

#[test]
fn fleet_messages_keep_their_bytes() {
    use fleet::{
        CaptureMode, Command, CommandsRequest, ProgressRequest, ReportRequest, TableReport,
        TableState, Verb,
    };
    let report = ReportRequest {
        erp: "RM".into(),
        epoch: 4,
        tables: vec![TableReport {
            name: "FLAN".into(),
            state: TableState::Parked.into(),
            mode: CaptureMode::Timestamp.into(),
            watermark: "2026-01-05T12:00:00".into(),
            lag_ms: 1500,
            held_by: "pid 7 since 12:00".into(),
            parked_code: "KEY_IS_NULL".into(),
            quarantined: 1,
            degraded: "overlap of 600 s".into(),
            differences: 2,
            verified_at: 1_767_614_400_000_000,
            unverified: "TIMEOUT".into(),
        }],
        version: "0.1.0".into(),
    };
    let args = [("level".to_owned(), "debug".to_owned())].into();
    let command =
        Command { id: "c".into(), verb: Verb::LogLevel.into(), table: String::new(), args };
    let mut text = String::new();
    let mut add = |name: &str, bytes: String| write!(text, "# {name}\n{bytes}").unwrap();
    add("ReportRequest", wire(&report));
    add("CommandsRequest", wire(&CommandsRequest { erp: "RM".into(), epoch: 4 }));
    add("Command", wire(&command));
    add(
        "ProgressRequest",
        wire(&ProgressRequest { id: "c".into(), done: true, code: "TABLE_MISSING".into() }),
    );
    check("fleet.hex", &text);
}

/// Every message, field, number and type of the protos: the contract's own proto field for field, and Malote's.
#[test]
fn the_descriptors_list_the_same_services_messages_and_fields() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut text = String::new();
    for file in set.file.iter().filter(|file| !file.package().starts_with("google")) {
        writeln!(text, "package {}", file.package()).unwrap();
        for service in &file.service {
            for method in &service.method {
                let stream = if method.server_streaming() { "stream " } else { "" };
                writeln!(
                    text,
                    "rpc {}/{}({}) returns ({stream}{})",
                    service.name(),
                    method.name(),
                    method.input_type(),
                    method.output_type()
                )
                .unwrap();
            }
        }
        file.message_type.iter().for_each(|message| list(&mut text, "", message));
        for item in &file.enum_type {
            item.value.iter().for_each(|v| {
                writeln!(text, "{}.{} = {}", item.name(), v.name(), v.number()).unwrap()
            });
        }
    }
    check("descriptors.txt", &text);
}

fn list(text: &mut String, above: &str, message: &prost_types::DescriptorProto) {
    let name = format!("{above}{}", message.name());
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        let label = if field.label() == prost_types::field_descriptor_proto::Label::Repeated {
            "repeated "
        } else {
            ""
        };
        writeln!(text, "{name}.{} = {} {label}{kind}", field.name(), field.number()).unwrap();
    }
    for range in &message.reserved_range {
        writeln!(text, "{name} reserved {}", range.start()).unwrap();
    }
    message.nested_type.iter().for_each(|nested| list(text, &format!("{name}."), nested));
}

#[test]
fn json_contracts_keep_their_form() {
    let endpoint = |address: &str| vec![Endpoint { version: "1".into(), address: address.into() }];
    let services = vec![
        Service {
            service: "rac-token".into(),
            endpoints: endpoint("https://malote.example/totvs.rac/connect/token"),
        },
        Service {
            service: "smartlink-ingestion".into(),
            endpoints: endpoint("https://ingest.malote.example"),
        },
    ];
    check("registry.json", &pretty(&services));
    let token = Token {
        access_token: "eyJ".into(),
        expires_in: 3600,
        token_type: "Bearer".into(),
        scope: "authorization_api".into(),
    };
    check("token.json", &pretty(&token));
    let query = |table: &str, filter: Option<&str>, generation| EntityQuery {
        table: table.parse().unwrap(),
        filter: filter.map(str::to_owned),
        force_reload: generation == Some(Generation(2)),
        reload_generation: generation,
        is_native: true,
        is_custom: false,
        metadata: None,
    };
    let entities = Entities {
        upload_version: 2,
        upload_version_info: "Gestão de Upload de Dados via gRPC".into(),
        queries: vec![
            query("TMOV", Some("TMOV.DATAMOVIMENTO > '2024-01-01'"), Some(Generation(2))),
            query("GCOLIGADA", None, None),
        ],
    };
    check("entities.json", &pretty(&entities));
    let app = App {
        id: "a".into(),
        name: "techfin".into(),
        description: "Finanças".into(),
        active: true,
    };
    check("apps.json", &pretty(&Apps { items: vec![app] }));
    let error = Error::new(Code::PermissionDenied, "table FLAN is not among the entities of RM");
    check("error.json", &pretty(&ErrorBody::from(&error)));
}

#[test]
fn every_code_keeps_its_class_and_statuses() {
    let text = Code::ALL.iter().fold(String::new(), |mut text, code| {
        writeln!(text, "{code} {:?} {:?} {}", code.class(), code.grpc(), code.http()).unwrap();
        text
    });
    check("codes.txt", &text);
}

#[test]
fn key_bytes_and_row_hash_keep_their_form() {
    let names: Vec<ColumnName> =
        ["CODCOLIGADA", "IDLAN", "HISTORICO"].map(|name| name.parse().unwrap()).into();
    let row = ["1", "10", "ação"];
    let hash = RowHasher::new(&names).hash(|at| Some(row[at]));
    check(
        "key_and_hash.txt",
        &format!("key {}hash {}", hex(&KeyBytes::of(["1", "10"]).0), hex(&hash.0)),
    );
}
