use jsonwebtoken::{Algorithm, EncodingKey, Header};
use protocol::ids::InstallationId;
use serde_json::{Value, json};

use super::{token::Signer, *};
use crate::model::catalog::{At, Environment, EnvironmentType, Installation, Tenant};

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    access: Access,
    tenant: TenantId,
    installation: InstallationId,
    environment: EnvironmentId,
}

const ISSUER: &str = "http://malote.example/totvs.rac";

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::store::trial::Database::new(folder.path()).store();
    let access = Access::open(store.clone(), folder.path(), ISSUER.into()).await.unwrap();
    let tenant = TenantId(runtime::entropy::uuid());
    let environment = EnvironmentId(runtime::entropy::uuid());
    let installation = InstallationId(runtime::entropy::uuid());
    store.add_tenant(Tenant { id: tenant, name: "Ação".into(), created_at: At(1) }).await.unwrap();
    store
        .add_environment(Environment {
            tenant,
            id: environment,
            name: "prod".into(),
            kind: EnvironmentType::Production,
            created_at: At(1),
        })
        .await
        .unwrap();
    store
        .add_installation(Installation {
            tenant,
            id: installation,
            name: "rm".into(),
            erp: "RM".parse().unwrap(),
            environment: None,
            created_at: At(1),
        })
        .await
        .unwrap();
    World { _folder: folder, store, access, tenant, installation, environment }
}

impl World {
    async fn credential(&self) -> NewCredential {
        self.access
            .create_credential(self.tenant, Holder::Installation(self.installation))
            .await
            .unwrap()
    }

    async fn token(&self, now: Wall) -> (ClientId, String) {
        let new = self.credential().await;
        let token =
            self.access.issue(new.credential.client.as_str(), &new.secret, now).await.unwrap();
        (new.credential.client, token.access_token)
    }

    /// A token signed by the store's own key, with claims of the test's choice.
    fn forge(&self, change: impl FnOnce(&mut Value), header: impl FnOnce(&mut Header)) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": ["authorization_api"], "exp": 4_000_000_000_i64, "client_id": "x",
            "http://www.tnf.com/identity/claims/tenantId": self.tenant.to_string(),
        });
        change(&mut claims);
        self.access.inner.signers.held().forge(&claims, header)
    }
}

impl Access {
    /// As a token of that client, with claims of the test's choice.
    pub(crate) fn forged(
        &self,
        (client, tenant): (&ClientId, TenantId),
        issuer: &str,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let mut claims = json!({
            "iss": issuer, "aud": ["authorization_api"], "exp": 4_000_000_000_i64, "client_id": client,
            "http://www.tnf.com/identity/claims/tenantId": tenant.to_string(),
        });
        change(&mut claims);
        self.inner.signers.held().forge(&claims, |_| {})
    }
}

impl Signer {
    fn forge(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.jwks()["keys"][0]["kid"].as_str().unwrap().to_owned());
        change(&mut header);
        self.sign(&header, claims)
    }
}

const NOW: Wall = Wall(1_800_000_000_000_000);

#[tokio::test]
async fn a_token_names_its_tenant_and_the_caller_comes_from_the_binding() {
    let world = world().await;
    let (_, token) = world.token(NOW).await;
    let unbound = world.access.authenticate(&token, NOW).await.unwrap_err();
    assert_eq!(unbound.code, Code::PermissionDenied, "{unbound}");
    world
        .store
        .bind(world.tenant, world.installation, Some(world.environment), Wall::now())
        .await
        .unwrap();
    let (client, token) = world.token(NOW).await;
    let caller = world.access.authenticate(&token, NOW).await.unwrap();
    assert_eq!(
        (caller.tenant, caller.environment, caller.client),
        (world.tenant, world.environment, client)
    );
    let payload = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(
        &base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload)
            .unwrap(),
    )
    .unwrap();
    assert_eq!(claims["aud"], json!(["authorization_api"]));
    assert_eq!(claims["scope"], json!(["authorization_api"]));
    assert_eq!(claims["exp"].as_i64().unwrap(), NOW.seconds() + 3600);
    assert_eq!(claims["http://www.tnf.com/identity/claims/tenantName"], "Ação");
}

#[tokio::test]
async fn wrong_secrets_unknown_and_revoked_clients_are_refused_alike() {
    let world = world().await;
    let new = world.credential().await;
    let client = new.credential.client.clone();
    let other = world.credential().await;
    for (id, secret) in [
        (client.as_str(), &other.secret),
        ("nobody", &new.secret),
        ("a b", &new.secret),
        ("", &new.secret),
    ] {
        let error = world.access.issue(id, secret, NOW).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidClient, "{id}");
    }
    let token = world.access.issue(client.as_str(), &new.secret, NOW).await.unwrap().access_token;
    world.access.revoke_credential(world.tenant, &client).await.unwrap();
    assert_eq!(
        world.access.issue(client.as_str(), &new.secret, NOW).await.unwrap_err().code,
        Code::InvalidClient
    );
    assert_eq!(world.access.identify(&token, NOW).await.unwrap_err().code, Code::Unauthenticated);
}

#[tokio::test]
async fn a_new_key_signs_and_the_old_one_verifies_until_its_last_token_has_ended() {
    let world = world().await;
    let kids = |jwks: Value| -> Vec<String> {
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].to_string()).collect()
    };
    let now = Wall::now();
    let (_, before) = world.token(now).await;
    let new = world.access.rotate_signing_key(false, now).await.unwrap();
    let (_, after) = world.token(now).await;
    let kid = jsonwebtoken::decode_header(&after).unwrap().kid.unwrap();
    assert_eq!(kid, new.kid);
    assert_ne!(jsonwebtoken::decode_header(&before).unwrap().kid.unwrap(), kid);
    for token in [&before, &after] {
        world.access.identify(token, now).await.unwrap();
    }
    assert_eq!(kids(world.access.jwks(now).await).len(), 2);
    let hour = Wall(now.0 + 3_700 * 1_000_000);
    world.access.read_keys(hour).await;
    assert_eq!(kids(world.access.jwks(hour).await), [format!("\"{kid}\"")]);
    let told = world.access.signing_keys().await.unwrap();
    assert_eq!(told[0], new);
    assert!(told[1].retired_at.unwrap().0 > now.0 + 3_600 * 1_000_000, "{told:?}");
    // A second rotation does not let the oldest live longer.
    world.access.rotate_signing_key(false, hour).await.unwrap();
    assert_eq!(world.access.signing_keys().await.unwrap()[2], told[1]);
}

#[tokio::test]
async fn a_key_in_wrong_hands_is_taken_away_at_once_also_by_another_process() {
    let world = world().await;
    let now = Wall::now();
    let (_, stolen) = world.token(now).await;
    let folder = world._folder.path();
    let other = Access::open(world.store.clone(), folder, ISSUER.into()).await.unwrap();
    other.rotate_signing_key(true, now).await.unwrap();
    assert_eq!(other.identify(&stolen, now).await.unwrap_err().code, Code::Unauthenticated);
    // This process has not read the keys since; the first token of the new key makes it read them.
    let (client, secret) = {
        let new = world.credential().await;
        (new.credential.client, new.secret)
    };
    let token = other.issue(client.as_str(), &secret, now).await.unwrap().access_token;
    let begun = Mono::now();
    while world.access.identify(&token, now).await.is_err() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the new key is not met");
        runtime::clock::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.access.identify(&stolen, now).await.unwrap_err().code, Code::Unauthenticated);
    let audit = world.access.first_broken_audit().await.unwrap();
    assert_eq!(audit, None);
}

#[tokio::test]
async fn a_token_lives_exactly_its_hour() {
    let world = world().await;
    let (_, token) = world.token(NOW).await;
    let at = |seconds: i64| Wall(NOW.0 + seconds * 1_000_000);
    assert!(world.access.identify(&token, at(3599)).await.is_ok());
    assert_eq!(
        world.access.identify(&token, at(3600)).await.unwrap_err().code,
        Code::Unauthenticated
    );
}

/// The same claims unsigned, and signed with a secret that anyone can know.
fn of_other_algorithms(id: &str, claims: &str) -> [String; 2] {
    let none = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        br#"{"alg":"none","typ":"JWT"}"#,
    );
    let hmac = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &json!({"iss": ISSUER, "aud": "authorization_api", "exp": 4_000_000_000_i64, "client_id": id}),
        &EncodingKey::from_secret(b"public key as a secret"),
    )
    .unwrap();
    [format!("{none}.{claims}."), hmac]
}

#[tokio::test]
async fn tokens_with_another_key_algorithm_issuer_audience_or_tenant_are_refused() {
    let world = world().await;
    let (client, good) = world.token(NOW).await;
    let id = client.as_str().to_owned();
    let with = |change: &dyn Fn(&mut Value)| {
        world.forge(
            |claims| {
                claims["client_id"] = json!(id);
                change(claims);
            },
            |_| {},
        )
    };
    assert!(
        world.access.identify(&with(&|_| {}), NOW).await.is_ok(),
        "the forged form itself is good"
    );
    let tenant_claim = "http://www.tnf.com/identity/claims/tenantId";
    let bare = world.tenant.to_string().replace('-', "").to_uppercase();
    assert!(
        world
            .access
            .identify(&with(&|claims| claims[tenant_claim] = json!([bare, bare])), NOW)
            .await
            .is_ok()
    );
    let parts: Vec<&str> = good.split('.').collect();
    let [none, hmac] = of_other_algorithms(&id, parts[1]);
    let bad = [
        String::new(),
        "a.b.c".into(),
        "x".repeat(10_000),
        none,
        format!("{}.{}.AAAA", parts[0], parts[1]),
        hmac,
        with(&|claims| claims["iss"] = json!("http://other.example/totvs.rac")),
        with(&|claims| claims["aud"] = json!("another_api")),
        with(&|claims| claims["exp"] = json!(NOW.seconds() - 1)),
        with(&|claims| drop(claims.as_object_mut().unwrap().remove("exp"))),
        with(&|claims| drop(claims.as_object_mut().unwrap().remove("aud"))),
        with(&|claims| claims[tenant_claim] = json!(runtime::entropy::uuid().to_string())),
        with(&|claims| claims[tenant_claim] = json!([])),
        with(&|claims| claims[tenant_claim] = json!([bare, runtime::entropy::uuid().to_string()])),
        with(&|claims| claims["client_id"] = json!("nobody")),
        world.forge(
            |claims| claims["client_id"] = json!(id),
            |header| header.kid = Some("0".repeat(32)),
        ),
        world.forge(|claims| claims["client_id"] = json!(id), |header| header.kid = None),
        world.forge(
            |claims| claims["client_id"] = json!(id),
            |header| header.jku = Some("http://evil.example/k".into()),
        ),
        world.forge(
            |claims| claims["client_id"] = json!(id),
            |header| header.x5u = Some("http://evil.example/c".into()),
        ),
        world.forge(
            |claims| claims["client_id"] = json!(id),
            |header| header.crit = Some(vec!["exp".into()]),
        ),
    ];
    for (at, token) in bad.iter().enumerate() {
        let error = world.access.identify(token, NOW).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated, "token {at}: {error}");
    }
}

#[tokio::test]
async fn keys_survive_a_restart_and_a_foreign_master_key_is_told() {
    let world = world().await;
    let (_, token) = world.token(NOW).await;
    let folder = world._folder.path();
    let again = Access::open(world.store.clone(), folder, ISSUER.into()).await.unwrap();
    assert!(again.identify(&token, NOW).await.is_ok());
    let elsewhere = tempfile::tempdir().unwrap();
    let error =
        Access::open(world.store.clone(), elsewhere.path(), ISSUER.into()).await.unwrap_err();
    assert_eq!(error.code, Code::ConfigInvalid);
    assert!(error.message.contains("master.key"), "{error}");
}

fn wish(name: &str, expires_at: Option<At>) -> TokenWish {
    TokenWish {
        name: name.into(),
        role: crate::model::admin::Role::Operator,
        tenant: None,
        expires_at,
    }
}

#[tokio::test]
async fn an_administrators_token_opens_until_it_expires_or_is_revoked() {
    let world = world().await;
    let access = world.access.by("test");
    access.create_administrator("ana").await.unwrap();
    let now = Wall::now();
    let end = At(now.0 + 1_000_000_000);
    let made = access.create_admin_token("ana", wish("laptop", Some(end))).await.unwrap();
    let other = access.create_admin_token("ana", wish("desk", None)).await.unwrap();
    let found = access.admin(made.reveal(), now).await.unwrap();
    assert_eq!(found.actor(), "ana (laptop)");
    let refused = |token: String, at: Wall| {
        let access = access.clone();
        async move { access.admin(&token, at).await.unwrap_err().code }
    };
    let text = made.reveal().to_owned();
    assert_eq!(refused(text.clone(), Wall(end.0)).await, Code::Unauthenticated);
    let (head, _) = text.rsplit_once('_').unwrap();
    let (_, secret) = other.reveal().rsplit_once('_').unwrap();
    for bad in [format!("{head}_{secret}"), head.to_owned(), String::new(), format!("{text}0")] {
        assert_eq!(refused(bad, now).await, Code::Unauthenticated);
    }
    access.revoke_admin_token("ana", "laptop").await.unwrap();
    assert_eq!(refused(text, now).await, Code::Unauthenticated);
    assert!(access.admin(other.reveal(), now).await.is_ok());
    access.revoke_administrator("ana").await.unwrap();
    assert_eq!(refused(other.reveal().to_owned(), now).await, Code::Unauthenticated);
    let late = access.create_admin_token("ana", wish("late", None)).await.unwrap_err();
    assert_eq!(late.code, Code::BadRequest);
}

#[tokio::test]
async fn a_senders_token_and_an_administrators_are_not_taken_for_each_other() {
    let world = world().await;
    world.access.create_administrator("ana").await.unwrap();
    let made = world.access.create_admin_token("ana", wish("laptop", None)).await.unwrap();
    let (_, sender) = world.token(NOW).await;
    assert_eq!(world.access.admin(&sender, NOW).await.unwrap_err().code, Code::Unauthenticated);
    let taken = world.access.identify(made.reveal(), NOW).await.unwrap_err();
    assert_eq!(taken.code, Code::Unauthenticated);
    let twice = world.access.create_admin_token("ana", wish("laptop", None)).await.unwrap_err();
    assert_eq!(twice.code, Code::AlreadyExists);
    let late = wish("late", Some(At(1)));
    assert_eq!(
        world.access.create_admin_token("ana", late).await.unwrap_err().code,
        Code::BadRequest
    );
    assert!(!format!("{made:?}").contains(made.reveal()));
}
