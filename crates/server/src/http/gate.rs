//! Gate: who may call which route, read from the document that describes the routes.
//!
//! Promises: a route that declares no access is refused; whoever lacks a token, its role or the tenant of the path is
//! told so before the call is looked at any further; a query that administration does not know is refused, since a
//! misspelt `dryRun` would be a real change.
//! Never: lets a call through whose access it does not know; says whether another's tenant exists.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::{
    extract::{MatchedPath, Query, RawPathParams, Request, State},
    http::{HeaderMap, Method, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use protocol::{Code, Error, Result, ids::TenantId, names::TableName};
use runtime::clock::Wall;
use serde_json::Value;

use super::{Desk, answer::Refusal};
use crate::{
    model::{
        admin::{AdminToken, Role},
        catalog::{Place, Tenant},
    },
    service::Services,
};

/// Who may call an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    Nothing,
    /// A token of the token call.
    Sender,
    /// An administrator's token.
    Administrator {
        role: Role,
        every_tenant: bool,
    },
}

/// Access of every operation.
#[derive(Debug, Default)]
pub(super) struct Gates {
    operations: HashMap<(Method, String), Gate>,
    paths: HashSet<String>,
}

/// What is asked of the callers of one operation.
#[derive(Debug)]
struct Gate {
    needs: Needs,
    /// Names that its query may hold.
    query: Vec<String>,
}

impl Gates {
    /// Reads what the operations declare; one that declares nothing is left out, and so refused.
    pub(super) fn of(document: &Value) -> Self {
        let mut gates = Self::default();
        let paths = document["paths"].as_object();
        for (path, item) in paths.into_iter().flatten() {
            gates.paths.insert(path.clone());
            for (method, operation) in item.as_object().into_iter().flatten() {
                let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes());
                if let (Ok(method), Some(needs)) = (method, needs(operation)) {
                    let gate = Gate { needs, query: names_of_query(operation) };
                    gates.operations.insert((method, path.clone()), gate);
                }
            }
        }
        gates
    }

    fn find(&self, method: &Method, path: &str) -> Result<&Gate> {
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        if let Some(gate) = self.operations.get(&(method, path.to_owned())) {
            return Ok(gate);
        }
        if self.paths.contains(path) {
            let words = "this address takes another method";
            return Err(Error::new(Code::MethodNotAllowed, words));
        }
        Err(Error::new(Code::Internal, "the route declares no access"))
    }
}

impl Gate {
    /// Refuses a query of other names than the operation's.
    fn check_query(&self, uri: &Uri) -> Result<()> {
        let Query(asked) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|bad| Error::new(Code::BadRequest, bad.body_text()))?;
        let Some((name, _)) = asked.iter().find(|(name, _)| !self.query.contains(name)) else {
            return Ok(());
        };
        let takes =
            if self.query.is_empty() { "nothing".to_owned() } else { self.query.join(", ") };
        let words = format!("unknown name in the query: {name:?}; it takes {takes}");
        Err(Error::new(Code::BadRequest, words))
    }
}

fn names_of_query(operation: &Value) -> Vec<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let of_query = parameters.filter(|parameter| parameter["in"] == "query");
    of_query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect()
}

/// What an operation declares: `security: [{}]`, `[{"sender": []}]`, or `[{"administrator": [role, "every-tenant"]}]`.
pub(super) fn needs(operation: &Value) -> Option<Needs> {
    let declared = operation.get("security")?.as_array()?;
    let [one] = declared.as_slice() else { return None };
    let one = one.as_object()?;
    if one.is_empty() {
        return Some(Needs::Nothing);
    }
    if one.contains_key("sender") {
        return Some(Needs::Sender);
    }
    let words: Vec<&str> =
        one.get("administrator")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let role = words.first()?.parse().ok()?;
    let every_tenant = words.get(1).is_some_and(|word| *word == "every-tenant");
    Some(Needs::Administrator { role, every_tenant })
}

/// A call of an administrator that was let in.
#[derive(Clone, Debug)]
pub(super) struct Act {
    /// Audits under the administrator's name.
    pub(super) services: Services,
    pub(super) token: AdminToken,
    tenant: Option<Tenant>,
    parts: Arc<HashMap<String, String>>,
}

impl Act {
    /// The tenant of the path, which the token opens.
    pub(super) fn tenant(&self) -> Result<&Tenant> {
        self.tenant.as_ref().ok_or_else(|| Error::new(Code::Internal, "the route names no tenant"))
    }

    pub(super) fn tenant_id(&self) -> Result<TenantId> {
        self.tenant().map(|tenant| tenant.id)
    }

    /// A part of the path.
    pub(super) fn part(&self, name: &str) -> Result<&str> {
        let missing = || Error::new(Code::Internal, format!("the route has no part {name}"));
        self.parts.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// A number in the path.
    pub(super) fn number(&self, name: &str) -> Result<i64> {
        let bad = |_| Error::new(Code::BadId, format!("{name} is a number"));
        self.part(name)?.parse().map_err(bad)
    }

    pub(super) fn table(&self) -> Result<TableName> {
        self.part("table")?.parse()
    }

    /// Environment and ERP of the path.
    pub(super) async fn place(&self) -> Result<Place> {
        let (environment, erp) = (self.part("environment")?, self.part("erp")?);
        self.services.catalog.place(self.tenant_id()?, environment, erp).await
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Act {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let missing = || Error::new(Code::Internal, "the route was reached past its gate").into();
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

/// The layer before every route but the probes.
pub(super) async fn gate(
    State((desk, gates)): State<(Desk, Arc<Gates>)>,
    params: std::result::Result<RawPathParams, axum::extract::rejection::RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&desk, &gates, params.ok(), &mut request).await {
        Ok(()) => next.run(request).await,
        Err(error) => Refusal(error).into_response(),
    }
}

async fn admit(
    desk: &Desk,
    gates: &Gates,
    params: Option<RawPathParams>,
    request: &mut Request,
) -> Result<()> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let gate = gates.find(request.method(), &path)?;
    match gate.needs {
        Needs::Nothing => {}
        Needs::Sender => {
            let token = bearer(request.headers())?;
            let identity = desk.services.access.identify(token, Wall::now()).await?;
            request.extensions_mut().insert(identity);
        }
        Needs::Administrator { role, every_tenant } => {
            let token = desk.services.access.admin(bearer(request.headers())?, Wall::now()).await?;
            token.may(role, every_tenant)?;
            let parts: HashMap<String, String> = params
                .iter()
                .flatten()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let services = desk.services.by(&token.actor());
            let tenant = match parts.get("tenant") {
                Some(key) => Some(services.catalog.tenant_for(token.tenant, key).await?),
                None => None,
            };
            gate.check_query(request.uri())?;
            request.extensions_mut().insert(Act { services, token, tenant, parts: parts.into() });
        }
    }
    Ok(())
}

fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing = || {
        let words = "the header Authorization: Bearer {token} is missing or malformed";
        Error::new(Code::Unauthenticated, words)
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value.ok_or_else(missing)?.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

#[cfg(test)]
mod tests;
