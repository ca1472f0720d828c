//! Any source: the closed list of databases the agent reads, and the door by URL.

use std::{path::PathBuf, time::Duration};

use protocol::{Code, Error, Result, filter::Filter, key::KeyBytes, names::TableName};

use runtime::failpoint;

use super::{
    Bound, Finding, From, Identity, Page, PageKey, PostgresSource, Profile, ReadLimit, Source,
    SqliteSource, TableShape, TableSpec, Watermark,
};

/// What a source needs beyond its URL.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceOptions {
    /// IANA name of the zone in which stamps without a zone are written; else the database's own zone, and UTC where
    /// the profile says so. SQLite knows UTC alone.
    pub stamp_zone: Option<String>,
    /// Smallest overlap window where the bound cannot be known; else 10 minutes.
    pub overlap: Option<Duration>,
    /// PEM file with the authorities that TLS trusts; else the machine's.
    pub ca_file: Option<PathBuf>,
}

/// An ERP database of a supported kind.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one value a process, behind an `Arc`")]
pub enum AnySource {
    Sqlite(SqliteSource),
    Postgres(PostgresSource),
}

/// Makes a source from `sqlite:path`, `sqlite:///path` (each with `?mode=ro` or not) or `postgres://…`. Nothing is opened before the first call.
///
/// # Errors
/// `SOURCE_UNSUPPORTED` for other kinds, `CONFIG_INVALID` for a URL or option that is wrong.
pub fn connect(url: &str, profile: Profile, options: &SourceOptions) -> Result<AnySource> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(Error::new(
            Code::ConfigInvalid,
            "source.url is no URL: postgres://… or sqlite:…",
        ));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if path.is_empty() || path.starts_with('?') {
                let words = "source.url names no file: sqlite:/path/to/erp.db";
                return Err(Error::new(Code::ConfigInvalid, words));
            }
            SqliteSource::new(path, profile, options).map(AnySource::Sqlite)
        }
        "postgres" | "postgresql" => {
            PostgresSource::new(url, profile, options).map(AnySource::Postgres)
        }
        other => {
            let known = ["sqlserver", "mssql", "oracle", "mysql", "jdbc"].contains(&other);
            let words = if known {
                format!("databases of kind {other} are not supported yet")
            } else {
                "source.url begins neither with postgres:// nor with sqlite:".to_owned()
            };
            Err(Error::new(Code::SourceUnsupported, words))
        }
    }
}

macro_rules! each {
    ($any:expr, $source:ident => $call:expr) => {
        match $any {
            AnySource::Sqlite($source) => $call,
            AnySource::Postgres($source) => $call,
        }
    };
}

impl Source for AnySource {
    async fn identity(&self) -> Result<Identity> {
        failpoint::pass("source.identity", Code::SourceUnreachable).await?;
        each!(self, source => source.identity().await)
    }

    fn position(&self) -> Option<Vec<u8>> {
        each!(self, source => source.position())
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        each!(self, source => source.tables().await)
    }

    async fn describe(&self, spec: &TableSpec) -> Result<TableShape> {
        failpoint::pass("source.describe", Code::SourceUnreachable).await?;
        each!(self, source => source.describe(spec).await)
    }

    async fn bound(&self) -> Result<Bound> {
        failpoint::pass("source.bound", Code::SourceUnreachable).await?;
        each!(self, source => source.bound().await)
    }

    async fn probe(&self) -> Result<bool> {
        each!(self, source => source.probe().await)
    }

    fn watermark(&self, shape: &TableShape, bound: &Bound) -> Result<Watermark> {
        each!(self, source => source.watermark(shape, bound))
    }

    async fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        filter: Option<&Filter>,
        limit: ReadLimit,
    ) -> Result<Page> {
        failpoint::pass("source.chunk", Code::SourceUnreachable).await?;
        each!(self, source => source.chunk(shape, after, filter, limit).await)
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        failpoint::pass("source.delta", Code::SourceUnreachable).await?;
        each!(self, source => source.delta(shape, from, bound, limit).await)
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        failpoint::pass("source.keys", Code::SourceUnreachable).await?;
        each!(self, source => source.keys(shape, after, limit).await)
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        failpoint::pass("source.unstamped", Code::SourceUnreachable).await?;
        each!(self, source => source.unstamped(shape, after, limit).await)
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        failpoint::pass("source.by_keys", Code::SourceUnreachable).await?;
        each!(self, source => source.by_keys(shape, keys).await)
    }

    async fn row_count(&self, shape: &TableShape) -> Result<Option<u64>> {
        each!(self, source => source.row_count(shape).await)
    }

    async fn findings(&self, shapes: &[TableShape]) -> Result<Vec<Finding>> {
        each!(self, source => source.findings(shapes).await)
    }
}
