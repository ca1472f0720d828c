//! Matrix: every RPC of the descriptors × every kind of caller.
//!
//! Promises: an RPC whose service has no entry here fails the test.
//! Never: is compiled into the program.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use protocol::proto;
use serde_json::json;

use crate::{app::fixture::Running, model::admin::Role};

/// What a service asks of its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// The token of an installation that may send the ERP named.
    Sender,
}

const SERVICES: [(&str, Asks); 4] = [
    ("com.totvs.ingestion.grpc.TableStream", Asks::Sender),
    ("malote.ingestion.v1.Session", Asks::Sender),
    ("malote.ingestion.v1.Reconcile", Asks::Sender),
    ("malote.fleet.v1.Agent", Asks::Sender),
];

const UNAUTHENTICATED: &str = "16";
const DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";
const NOT_FOUND: &str = "5";
const UNKNOWN: &str = "2";
const INTERNAL: &str = "13";

/// Path and the field of the message that names the ERP.
pub(super) fn rpcs() -> Vec<(String, Asks, u8)> {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let mut all = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            let asks = SERVICES.iter().find(|(known, _)| *known == name);
            let (_, asks) = asks.unwrap_or_else(|| panic!("{name} has no entry"));
            for method in &service.method {
                let input = method.input_type().rsplit('.').next().unwrap();
                let message = file.message_type.iter().find(|m| m.name() == input).unwrap();
                let erp = message.field.iter().find(|field| field.name() == "erp");
                let erp = erp.map_or(1, |field| u8::try_from(field.number()).unwrap());
                all.push((format!("/{name}/{}", method.name()), *asks, erp));
            }
        }
    }
    all
}

/// Calls with a message that names the ERP alone; answers the number of the gRPC status.
async fn status(running: &Running, rpc: &(String, Asks, u8), token: Option<&str>) -> String {
    let web = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let message = [rpc.2 << 3 | 2, 2, b'R', b'M'];
    // Renew and Progress read an id before they look whose stream it is.
    let id = |field: u8| {
        [&[field << 3 | 2, 36][..], runtime::entropy::uuid().to_string().as_bytes()].concat()
    };
    let message = match rpc.0.rsplit('/').next().unwrap() {
        "Renew" => [&message[..], &id(3)].concat(),
        "Progress" => id(1),
        _ => message.to_vec(),
    };
    let length = u8::try_from(message.len()).unwrap();
    let body = [&[0, 0, 0, 0, length][..], &message].concat();
    let mut request = web
        .post(format!("http://{}{}", running.app.grpc, rpc.0))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    let told = answer.headers().get("grpc-status");
    // A call that was let in and answered tells its status behind the message.
    told.map_or_else(|| "answered".to_owned(), |status| status.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn every_rpc_answers_every_kind_of_caller_as_its_service_asks() {
    let running = Running::start().await;
    let issuer = format!("http://{}/totvs.rac", running.app.http);
    let access = &running.app.services.access;
    let of = (&running.client, running.tenant.id);
    let none: Option<String> = None;
    let callers = [
        ("no token", none, UNAUTHENTICATED),
        ("garbage", Some("x".to_owned()), UNAUTHENTICATED),
        (
            "expired",
            Some(access.forged(of, &issuer, |claims| claims["exp"] = json!(1))),
            UNAUTHENTICATED,
        ),
        (
            "wrong audience",
            Some(access.forged(of, &issuer, |claims| claims["aud"] = json!("another"))),
            UNAUTHENTICATED,
        ),
        (
            "wrong issuer",
            Some(access.forged(of, "https://evil.example/totvs.rac", |_| {})),
            UNAUTHENTICATED,
        ),
        ("read-only", Some(running.admin("r", Role::ReadOnly, None).await), UNAUTHENTICATED),
        ("operator", Some(running.admin("o", Role::Operator, None).await), UNAUTHENTICATED),
        ("other tenant and ERP", Some(running.stranger("PROTHEUS").await), DENIED),
        ("other tenant", Some(running.stranger("RM").await), ""),
        ("sender", Some(running.token().await), ""),
    ];
    let mut wrong = Vec::new();
    for rpc in rpcs() {
        for (who, token, refusal) in &callers {
            let got = status(&running, &rpc, token.as_deref()).await;
            let fits = match (rpc.1, *refusal) {
                // It names an order, not an ERP; whose it is, is looked at there.
                (Asks::Sender, DENIED | "") if rpc.0.ends_with("/Progress") => got == NOT_FOUND,
                (Asks::Sender, "") => ![UNAUTHENTICATED, DENIED, UNIMPLEMENTED, UNKNOWN, INTERNAL]
                    .contains(&got.as_str()),
                (Asks::Sender, refusal) => got == refusal,
            };
            if !fits {
                wrong.push(format!("{} as {who}: {got}, not {refusal:?}", rpc.0));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
