//! Listing: how lists are asked for and answered, and how bodies and queries are read.
//!
//! Promises: every list takes `limit` and `after` and answers `next`; what cannot be read is refused with words that
//! name the field.
//! Never: answers more than a page.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
};
use protocol::{Code, Error, Result, limits};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

use super::answer::Refusal;
use crate::model::catalog::Page;

/// Items of a page that names no limit.
const LIMIT: u32 = 100;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listing<T> {
    pub(super) items: Vec<T>,
    /// `after` of the page behind; absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> Listing<T> {
    /// Cuts what was read with one item more than asked for.
    pub(super) fn cut(mut items: Vec<T>, limit: u32, key: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(key);
        Self { items, next }
    }

    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// Which page of what has no name to search.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RowPaging {
    /// At most this many items.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

impl RowPaging {
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(LIMIT)
    }

    pub(super) fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    /// The page and one item more, which tells whether there is a page behind.
    pub(super) fn page(&self) -> Page {
        Page { after: self.after().to_owned(), limit: self.limit() + 1, ..Page::default() }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Search {
    /// Only what holds this in its name, in any case.
    search: Option<String>,
}

/// Which page.
#[derive(Debug)]
pub(super) struct Paging {
    rows: RowPaging,
    search: Search,
}

impl IntoParams for Paging {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = RowPaging::into_params(&place);
        params.extend(Search::into_params(&place));
        params
    }
}

impl Paging {
    pub(super) fn limit(&self) -> u32 {
        self.rows.limit()
    }

    pub(super) fn after(&self) -> &str {
        self.rows.after()
    }

    pub(super) fn search(&self) -> &str {
        self.search.search.as_deref().unwrap_or_default()
    }

    /// As [`RowPaging::page`].
    pub(super) fn page(&self) -> Page {
        Page { search: self.search().to_owned(), ..self.rows.page() }
    }
}

/// The query, read.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(bad) => Err(Error::new(Code::BadRequest, bad.body_text()).into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RowPaging {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Asked(paging) = Asked::<Self>::from_request_parts(parts, state).await?;
        match paging.limit {
            Some(limit) if !(1..=limits::ADMIN_PAGE).contains(&limit) => {
                let words = format!("limit is 1 to {}", limits::ADMIN_PAGE);
                Err(Error::new(Code::BadRequest, words).into())
            }
            _ => Ok(paging),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let rows = RowPaging::from_request_parts(parts, state).await?;
        let Asked(search) = Asked::<Search>::from_request_parts(parts, state).await?;
        Ok(Self { rows, search })
    }
}

/// The body, read as JSON.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = text(request, state).await?;
        // Read by position, an array would pass for an object.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Error::new(Code::BadRequest, "the body is an array, not an object").into());
        }
        json(&bytes).map(Self)
    }
}

/// The body, read as a JSON array.
#[derive(Debug)]
pub(super) struct Items<T>(pub(super) Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Items<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        json(&text(request, state).await?).map(Self)
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|cause| Error::new(Code::BadRequest, without_text(&cause.to_string())).into())
}

/// The library's words without the text that it found where something else belonged: it may be a secret.
fn without_text(words: &str) -> String {
    match (words.find("string \""), words.rfind("\", expected")) {
        (Some(from), Some(to)) if from < to => {
            format!("{}a string{}", &words[..from], &words[to + 1..])
        }
        _ => words.to_owned(),
    }
}

/// The body, read as text.
#[derive(Debug)]
pub(super) struct Plain(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Plain {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = text(request, state).await?;
        let bad = |_| Error::new(Code::BadRequest, "the body is not UTF-8");
        Ok(Self(String::from_utf8(bytes.to_vec()).map_err(bad)?))
    }
}

async fn text<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state).await.map_err(|bad| match bad.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let words = format!("the body has more than {} bytes", limits::ADMIN_BODY_BYTES);
            Error::new(Code::BodyTooLarge, words)
        }
        _ => Error::new(Code::BadRequest, "the body did not come whole"),
    })
}
