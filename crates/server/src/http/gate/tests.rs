//! Every route of the document × every kind of caller.

mod foreign;

use protocol::ids::TenantId;
use serde_json::json;

use super::*;
use crate::{
    app::fixture::{Running, told},
    model::catalog::{At, EnvironmentType, Holder},
    service::access::TokenWish,
};

/// A route as the document tells it.
struct Route {
    method: String,
    path: String,
    needs: Option<Needs>,
}

fn routes(document: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let (method, path) = (method.to_uppercase(), path.clone());
            routes.push(Route { method, path, needs: needs(operation) });
        }
    }
    routes
}

/// Who calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nobody,
    Garbage,
    ExpiredSender,
    SenderForAnotherAudience,
    RevokedSender,
    Sender,
    ExpiredAdmin,
    RevokedAdmin,
    ReadOnly,
    Operator,
    OwnReadOnly,
    OwnOperator,
    OtherOperator,
}

/// What the gate answers, from the route's declared access alone.
fn expected(needs: Needs, of_tenant: bool, who: Who) -> Option<u16> {
    use Who::{Operator, OtherOperator, OwnOperator, OwnReadOnly, ReadOnly, Sender};
    let (role, every_tenant) = match needs {
        Needs::Nothing => return None,
        Needs::Sender => return (who != Sender).then_some(401),
        Needs::Administrator { role, every_tenant } => (role, every_tenant),
    };
    let reads_only = matches!(who, ReadOnly | OwnReadOnly) && role == Role::Operator;
    let narrow = matches!(who, OwnReadOnly | OwnOperator | OtherOperator) && every_tenant;
    match who {
        _ if reads_only || narrow => Some(403),
        OtherOperator if of_tenant => Some(403),
        Operator | ReadOnly | OwnReadOnly | OwnOperator | OtherOperator => None,
        _ => Some(401),
    }
}

async fn ended_tokens(running: &Running) -> [(Who, String); 2] {
    let access = &running.app.services.access;
    access.create_administrator("ended").await.unwrap();
    let wish = |name: &str, expires_at| TokenWish {
        name: name.into(),
        role: Role::Operator,
        tenant: None,
        expires_at,
    };
    let end = At(Wall::now().0 + 50_000);
    let short = access.create_admin_token("ended", wish("short", Some(end))).await.unwrap();
    let revoked = access.create_admin_token("ended", wish("revoked", None)).await.unwrap();
    access.revoke_admin_token("ended", "revoked").await.unwrap();
    let deadline = Wall::now();
    while access.admin(short.reveal(), Wall::now()).await.is_ok() {
        assert!(Wall::now().since(deadline).as_secs() < 5, "50 ms are over");
        tokio::task::yield_now().await;
    }
    let text = |token: &crate::service::access::NewAdminToken| token.reveal().to_owned();
    [(Who::ExpiredAdmin, text(&short)), (Who::RevokedAdmin, text(&revoked))]
}

async fn sender_tokens(running: &Running) -> [(Who, String); 4] {
    let access = &running.app.services.access;
    let issuer = format!("http://{}/totvs.rac", running.app.http);
    let of = (&running.client, running.tenant.id);
    let holder = Holder::Installation(running.installation.id);
    let (gone, secret) = told(access.create_credential(running.tenant.id, holder).await.unwrap());
    let revoked = running.token_of(&gone, &secret).await;
    access.revoke_credential(running.tenant.id, &gone).await.unwrap();
    [
        (Who::Sender, running.token().await),
        (Who::RevokedSender, revoked),
        (Who::ExpiredSender, access.forged(of, &issuer, |claims| claims["exp"] = json!(1))),
        (
            Who::SenderForAnotherAudience,
            access.forged(of, &issuer, |claims| claims["aud"] = json!(["another_api"])),
        ),
    ]
}

async fn callers(running: &Running, own: TenantId, other: TenantId) -> Vec<(Who, Option<String>)> {
    let tokens = [
        (Who::ReadOnly, running.admin("reader", Role::ReadOnly, None).await),
        (Who::Operator, running.admin("operator", Role::Operator, None).await),
        (Who::OwnReadOnly, running.admin("own-reader", Role::ReadOnly, Some(own)).await),
        (Who::OwnOperator, running.admin("own-operator", Role::Operator, Some(own)).await),
        (Who::OtherOperator, running.admin("other", Role::Operator, Some(other)).await),
        (Who::Garbage, "malote_x_y".to_owned()),
    ];
    let mut all = vec![(Who::Nobody, None)];
    all.extend(tokens.into_iter().map(|(who, token)| (who, Some(token))));
    all.extend(ended_tokens(running).await.map(|(who, token)| (who, Some(token))));
    all.extend(sender_tokens(running).await.map(|(who, token)| (who, Some(token))));
    all
}

/// The path with the tenant filled in and every other part standing for nothing, so that a call that is let in finds
/// nothing to change.
fn address(running: &Running, path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{tenant}" => running.tenant.id.to_string(),
        "{erp}" => "RM".to_owned(),
        part if part.starts_with('{') => "424242".to_owned(),
        part => part.to_owned(),
    });
    running.url(&parts.collect::<Vec<_>>().join("/"))
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_its_declared_access_says() {
    let running = Running::start().await;
    let other = running.app.services.catalog.create_tenant("other").await.unwrap().id;
    let callers = callers(&running, running.tenant.id, other).await;
    let document = super::super::described().2;
    let (mut wrong, mut cells) = (Vec::new(), 0);
    for Route { method, path, needs } in routes(&document) {
        let Some(needs) = needs else {
            wrong.push(format!("{method} {path} declares no access"));
            continue;
        };
        for (who, token) in &callers {
            let url = address(&running, &path);
            let mut request = running.web.request(method.parse().unwrap(), url);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let status = request.body("{}").send().await.unwrap().status().as_u16();
            let refused = matches!(status, 401 | 403).then_some(status);
            let expected = expected(needs, path.contains("{tenant}"), *who);
            if refused != expected || status == 500 {
                wrong.push(format!("{method} {path} as {who:?}: {status}, not {expected:?}"));
            }
            cells += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cells > 600, "{cells} cells");
    let still = running.app.services.catalog.tenant("Loja").await.unwrap();
    assert_eq!(still.id, running.tenant.id, "nothing was changed on the way");
}

#[test]
fn what_changes_something_needs_an_operator_and_what_is_of_a_tenant_names_it() {
    let document = super::super::described().2;
    let mut wrong = Vec::new();
    for Route { method, path, needs } in routes(&document) {
        let Some(Needs::Administrator { role, .. }) = needs else {
            let admin = path.starts_with(super::super::admin::PREFIX);
            assert!(!admin, "{method} {path} is administration without an administrator");
            continue;
        };
        if (method == "GET") != (role == Role::ReadOnly) {
            wrong.push(format!("{method} {path} is for {}", role.as_str()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn routes_are_mounted_through_the_document_alone() {
    // A binary that was built in another clone reads the one it runs in.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), std::path::PathBuf::from);
    let mut folders = vec![here.join("src/http")];
    let mark = [".rou", "te(\""].concat();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(&mark), "{} mounts a route past it", path.display());
        }
    }
}

#[test]
fn a_route_without_declared_access_is_refused() {
    let document = json!({ "paths": { "/x": { "get": {}, "post": { "security": [] },
        "put": { "security": [{ "administrator": [] }] }, "patch": { "security": [{}, {}] } } } });
    let gates = Gates::of(&document);
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH] {
        let error = gates.find(&method, "/x").unwrap_err();
        assert!(matches!(error.code, Code::Internal | Code::MethodNotAllowed), "{error}");
    }
    assert_eq!(gates.find(&Method::GET, "/y").unwrap_err().code, Code::Internal);
}
