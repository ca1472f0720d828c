//! Fixture of the edges' tests: a real server on free ports with one tenant, one environment and RM bound to it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use prost::Message as _;
use protocol::{
    ids::{ClientId, TenantId},
    proto::totvs::{
        Table,
        table::{
            RowColumn, Schema, TableRow,
            schema::{SchemaColumn, SchemaPrimaryKey},
        },
    },
};
use runtime::clock::Wall;
use rusqlite::{Connection, OpenFlags, types::Value as Cell};

use super::App;
use crate::{
    config::{AlertConfig, ServerConfig},
    model::{
        admin::Role,
        catalog::{EnvironmentType, Holder, Installation, Place, Tenant},
    },
    service::{
        Caller,
        access::{NewCredential, TokenWish},
        catalog::NewEntity,
    },
};

pub(crate) struct Running {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) app: App,
    pub(crate) tenant: Tenant,
    pub(crate) installation: Installation,
    pub(crate) place: Place,
    pub(crate) client: ClientId,
    pub(crate) secret: String,
    pub(crate) web: reqwest::Client,
}

pub(crate) fn config(data: &std::path::Path) -> ServerConfig {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    ServerConfig {
        data: data.to_owned(),
        http_listen: free,
        grpc_listen: free,
        allow_private: true,
        // Tests look by themselves, when they want to.
        alerts: AlertConfig { look_seconds: 3_600, ..AlertConfig::default() },
        ..ServerConfig::default()
    }
}

impl Running {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        Self::start_with(folder, &config).await
    }

    /// As [`Running::start`], with a configuration of its own for that data folder.
    pub(crate) async fn start_with(folder: tempfile::TempDir, config: &ServerConfig) -> Self {
        runtime::tls::install_provider();
        let app = App::start(config).await.unwrap();
        let catalog = app.services.catalog.clone();
        let tenant = catalog.create_tenant("Loja").await.unwrap();
        let environment = catalog
            .create_environment(tenant.id, "prod", EnvironmentType::Production)
            .await
            .unwrap();
        let installation = catalog
            .create_installation(tenant.id, "rm", "RM".parse().unwrap(), Some(environment.id))
            .await
            .unwrap();
        let place = catalog.place(tenant.id, "", "").await.unwrap();
        let entity = |table: &str, filter: Option<&str>| NewEntity {
            table: table.parse().unwrap(),
            filter: filter.map(str::to_owned),
            is_custom: false,
        };
        catalog
            .add_entities(
                &place,
                vec![entity("FLAN", Some("FLAN.IDLAN > 1000")), entity("TMOV", None)],
            )
            .await
            .unwrap();
        let (client, secret) = told(
            app.services
                .access
                .create_credential(tenant.id, Holder::Installation(installation.id))
                .await
                .unwrap(),
        );
        let web = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { folder, app, tenant, installation, place, client, secret, web }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.http)
    }

    /// A token got over HTTP, as a sender gets it.
    pub(crate) async fn token(&self) -> String {
        self.token_of(&self.client, &self.secret).await
    }

    pub(crate) async fn token_of(&self, client: &ClientId, secret: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", "authorization_api"),
            ("client_id", client.as_str()),
            ("client_secret", secret),
        ];
        let answer =
            self.web.post(self.url("/totvs.rac/connect/token")).form(&form).send().await.unwrap();
        let token: protocol::json::Token = answer.json().await.unwrap();
        token.access_token
    }

    /// An administrator's token.
    pub(crate) async fn admin(&self, name: &str, role: Role, tenant: Option<TenantId>) -> String {
        let access = &self.app.services.access;
        access.create_administrator(name).await.unwrap();
        let wish = TokenWish { name: "test".into(), role, tenant, expires_at: None };
        access.create_admin_token(name, wish).await.unwrap().reveal().to_owned()
    }

    /// A call of an administrator; the body, if any, goes as JSON.
    pub(crate) async fn act(
        &self,
        (method, path): (&str, &str),
        token: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let url = self.url(&format!("/api/admin/v1{path}"));
        let request = self.web.request(method.parse().unwrap(), url).bearer_auth(token);
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::Null))
    }

    /// A message of FLAN under key ID from the tenant's own sender, its columns all texts but N, and what is staged of it.
    pub(crate) async fn sent(&self, numbered: (i64, i32), rows: &[&[(&str, &str)]]) {
        self.sent_by(&self.caller(), "FLAN", numbered, rows).await;
    }

    /// The tenant's own sender.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            tenant: self.tenant.id,
            environment: self.place.environment,
            installation: self.installation.id,
            client: self.client.clone(),
            erp: self.place.erp.clone(),
            connection: 1,
        }
    }

    /// As [`Running::sent`], of that table and from that sender.
    pub(crate) async fn sent_by(
        &self,
        caller: &Caller,
        table: &str,
        (batch, number): (i64, i32),
        rows: &[&[(&str, &str)]],
    ) {
        let cell = |(name, value): &(&str, &str)| RowColumn {
            name: (*name).into(),
            value: (*value).into(),
        };
        let column =
            |(name, kind): (&str, &str)| SchemaColumn { name: name.into(), r#type: kind.into() };
        let row = |row: &&[(&str, &str)]| TableRow { columns: row.iter().map(cell).collect() };
        let table = Table {
            table_name: table.into(),
            erp: "RM".into(),
            rows: rows.iter().map(row).collect(),
            schema: Some(Schema {
                flexible: true,
                export_data: true,
                columns: [("ID", "string"), ("S", "string"), ("N", "long")].map(column).to_vec(),
                primary_key: Some(SchemaPrimaryKey {
                    name: table.into(),
                    columns: vec!["ID".into()],
                }),
            }),
            batch_id: batch,
            message_number: number,
            record_count: i32::try_from(rows.len()).unwrap(),
            is_base_load: false,
        };
        let (services, now) = (&self.app.services, Wall::now());
        services
            .ingest
            .write(caller, None, bytes::Bytes::from(table.encode_to_vec()), now)
            .await
            .unwrap();
        services.staging.catch_up(&caller.stream(), now).await.unwrap();
    }

    /// Another tenant with an installation of its own, and its token.
    pub(crate) async fn stranger(&self, erp: &str) -> String {
        let catalog = &self.app.services.catalog;
        let tenant = catalog.create_tenant(&format!("stranger {erp}")).await.unwrap().id;
        let environment = catalog
            .create_environment(tenant, "prod", EnvironmentType::Production)
            .await
            .unwrap()
            .id;
        let installation = catalog
            .create_installation(tenant, "x", erp.parse().unwrap(), Some(environment))
            .await
            .unwrap();
        let holder = Holder::Installation(installation.id);
        let (client, secret) =
            told(self.app.services.access.create_credential(tenant, holder).await.unwrap());
        self.token_of(&client, &secret).await
    }
}

pub(crate) fn told(new: NewCredential) -> (ClientId, String) {
    (new.credential.client.clone(), new.reveal().to_owned())
}

/// What is stored of all tenants, log of acts and staging included: rows by file and table.
pub(crate) fn stored(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(stored(&path));
        }
        if path.extension().is_none_or(|extension| extension != "sqlite") {
            continue;
        }
        let file = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut tables =
            file.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
        let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
        for name in names.map(Result::unwrap) {
            let mut rows = file.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
            let width = rows.column_count();
            let cells = |row: &rusqlite::Row<'_>| {
                (0..width).map(|at| row.get::<_, Cell>(at)).collect::<rusqlite::Result<Vec<_>>>()
            };
            let rows = rows.query_map([], cells).unwrap();
            let mut rows: Vec<String> = rows.map(|row| format!("{:?}", row.unwrap())).collect();
            rows.sort();
            all.insert(format!("{} {name}", path.display()), rows);
        }
    }
    all
}
