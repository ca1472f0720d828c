use protocol::json;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    app::fixture::{Running, told},
    model::catalog::Holder,
};

async fn value(answer: reqwest::Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

async fn get(running: &Running, path: &str, token: &str) -> (StatusCode, Value) {
    let answer = running.web.get(running.url(path)).bearer_auth(token).send().await.unwrap();
    (answer.status(), value(answer).await)
}

#[tokio::test]
async fn the_registry_names_every_address_at_both_paths_without_a_token() {
    let running = Running::start().await;
    for path in ["/", "/api/v1/services"] {
        let services: Vec<json::Service> =
            running.web.get(running.url(path)).send().await.unwrap().json().await.unwrap();
        let token = json::find_service(&services, json::service::RAC_TOKEN).unwrap();
        assert_eq!(token, running.url("/totvs.rac/connect/token"));
        let grpc = json::find_service(&services, json::service::INGESTION).unwrap();
        assert_eq!(grpc, format!("http://{}", running.app.grpc));
        for key in [json::service::ENTITIES, json::service::APPS, json::service::CAROL_CREDENTIALS]
        {
            json::find_service(&services, key).unwrap();
        }
    }
    let java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
    let program = running.web.get(running.url("/")).header(header::ACCEPT, java);
    assert!(value(program.send().await.unwrap()).await.is_array());
    let kinds = "text/html,application/xhtml+xml,*/*;q=0.8";
    let browser = running.web.get(running.url("/")).header(header::ACCEPT, kinds);
    let page = browser.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("malote server setup") && page.contains("pt-BR"), "{page}");
}

#[tokio::test]
async fn the_token_call_takes_any_order_stray_headers_and_basic() {
    let running = Running::start().await;
    let url = running.url("/totvs.rac/connect/token");
    let protheus = running
        .web
        .post(&url)
        .header("User-Agent", "Protheus 7.00.240223P")
        .header("charset", "UTF-8")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(format!(
            "client_secret={}&client_id={}&scope=authorization_api&grant_type=client_credentials",
            running.secret, running.client
        ));
    let basic = running
        .web
        .post(&url)
        .basic_auth(running.client.as_str(), Some(&running.secret))
        .form(&[("grant_type", "client_credentials")]);
    for request in [protheus, basic] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let token = value(answer).await;
        assert_eq!((&token["expires_in"], &token["token_type"]), (&json!(3600), &json!("Bearer")));
        assert_eq!(token["scope"], "authorization_api");
        assert_eq!(token["access_token"].as_str().unwrap().split('.').count(), 3);
    }
}

#[tokio::test]
async fn the_token_call_refuses_in_racs_words() {
    let running = Running::start().await;
    let good = [
        ("grant_type", "client_credentials"),
        ("scope", "authorization_api"),
        ("client_id", running.client.as_str()),
        ("client_secret", running.secret.as_str()),
    ];
    let cases = [
        ("grant_type", "password", "unsupported_grant_type"),
        ("grant_type", "", "unsupported_grant_type"),
        ("scope", "everything", "invalid_scope"),
        ("client_id", "nobody", "invalid_client"),
        ("client_id", "", "invalid_client"),
        ("client_secret", "wrong", "invalid_client"),
        ("client_secret", "", "invalid_client"),
    ];
    for (field, content, expected) in cases {
        let form = good.map(|(name, value)| (name, if name == field { content } else { value }));
        let answer = running
            .web
            .post(running.url("/totvs.rac/connect/token"))
            .form(&form)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{field}={content}");
        assert_eq!(value(answer).await, json!({ "error": expected }), "{field}={content}");
    }
    let empty = running.web.post(running.url("/totvs.rac/connect/token")).send().await.unwrap();
    assert_eq!(value(empty).await["error"], "unsupported_grant_type");
    let large = running
        .web
        .post(running.url("/totvs.rac/connect/token"))
        .body("x".repeat(100_000))
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(value(large).await["code"], "BODY_TOO_LARGE");
}

#[tokio::test]
async fn discovery_leads_to_keys_that_verify_a_token() {
    let running = Running::start().await;
    let discovery = value(
        running
            .web
            .get(running.url("/totvs.rac/.well-known/openid-configuration"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(discovery["token_endpoint"], running.url("/totvs.rac/connect/token"));
    let keys =
        value(running.web.get(discovery["jwks_uri"].as_str().unwrap()).send().await.unwrap()).await;
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys.clone()).unwrap();
    assert!(keys["keys"][0].get("d").is_none(), "the private part stays");
    let token = running.token().await;
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    assert_eq!(kid.len(), 32);
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_issuer(&[discovery["issuer"].as_str().unwrap()]);
    validation.set_audience(&["authorization_api"]);
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(
        claims["http://www.tnf.com/identity/claims/tenantId"],
        running.tenant.id.to_string()
    );
}

#[tokio::test]
async fn entities_follow_the_erp_the_upload_version_and_the_reload() {
    let running = Running::start().await;
    let token = running.token().await;
    let ask = |path: &str, version: Option<&str>| {
        let mut request = running.web.get(running.url(path)).bearer_auth(&token);
        if let Some(version) = version {
            request = request.header("x-upload-version", version);
        }
        async {
            let answer = request.send().await.unwrap();
            (answer.status(), value(answer).await)
        }
    };
    let entities = "/api/carol-definitions/v1/entities";
    for (path, version, expected) in
        [("", Some("2"), 2), ("/RM", Some(" 2"), 2), ("/rm", Some("1"), 1), ("/Rm", None, 1)]
    {
        let (status, body) = ask(&format!("{entities}{path}"), version).await;
        assert_eq!(
            (status, &body["uploadVersion"]),
            (StatusCode::OK, &json!(expected)),
            "{path} {version:?}"
        );
        assert_eq!(
            body["queries"][0],
            json!({"table": "FLAN", "filter": "FLAN.IDLAN > 1000", "forceReload": false, "reloadGeneration": 0,
                "isNative": true, "isCustom": false, "metadata": null})
        );
        assert_eq!(body["queries"][1]["filter"], Value::Null);
    }
    for version in ["0", "3", "x", ""] {
        let (status, body) = ask(entities, Some(version)).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST")),
            "{version:?}"
        );
    }
    assert_eq!(ask(&format!("{entities}/PROTHEUS"), None).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(&format!("{entities}/R%20M"), None).await.0, StatusCode::BAD_REQUEST);
    running
        .app
        .services
        .catalog
        .reload(&running.place, Some(&"tmov".parse().unwrap()), false)
        .await
        .unwrap();
    let (_, body) = ask(entities, Some("2")).await;
    assert_eq!(
        (&body["queries"][1]["forceReload"], &body["queries"][1]["reloadGeneration"]),
        (&json!(true), &json!(1))
    );
}

#[tokio::test]
async fn entities_without_suffix_need_the_tenants_only_erp() {
    let running = Running::start().await;
    let catalog = &running.app.services.catalog;
    catalog
        .create_installation(running.tenant.id, "p", "PROTHEUS".parse().unwrap(), None)
        .await
        .unwrap();
    let token = running.token().await;
    let (status, body) = get(&running, "/api/carol-definitions/v1/entities", &token).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("BAD_REQUEST")));
    assert_eq!(
        get(&running, "/api/carol-definitions/v1/entities/RM", &token).await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn another_tenant_sees_its_own_things_alone() {
    let running = Running::start().await;
    running.app.services.catalog.create_app(running.tenant.id, "techfin", "finance").await.unwrap();
    let own =
        get(&running, "/api/data-management/v1/apps/by-tenant", &running.token().await).await.1;
    assert_eq!(
        (&own["items"][0]["name"], &own["items"][0]["active"]),
        (&json!("techfin"), &json!(true))
    );
    let stranger = running.stranger("RM").await;
    let (status, apps) = get(&running, "/api/data-management/v1/apps/by-tenant", &stranger).await;
    assert_eq!((status, apps), (StatusCode::OK, json!({"items": []})));
    let (status, entities) =
        get(&running, "/api/carol-definitions/v1/entities/RM", &stranger).await;
    assert_eq!((status, &entities["queries"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn calls_without_a_good_token_are_refused_with_401_and_a_code() {
    let running = Running::start().await;
    let token = running.token().await;
    let cut = &token[..token.len() - 4];
    let none = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
    let paths = [
        "/api/carol-definitions/v1/entities",
        "/api/carol-definitions/v1/entities/RM",
        "/api/carol-definitions/v1/carolcredentials",
        "/api/data-management/v1/apps/by-tenant",
    ];
    for path in paths {
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Basic eDp5",
            &format!("Bearer {cut}"),
            &format!("Bearer {none}"),
        ] {
            let answer = running
                .web
                .get(running.url(path))
                .header(header::AUTHORIZATION, value)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path} {value:?}");
            assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
            assert_eq!(self::value(answer).await["code"], "UNAUTHENTICATED");
        }
    }
    let (status, body) = get(&running, "/api/carol-definitions/v1/carolcredentials", &token).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn a_client_without_binding_or_of_an_app_is_told_why_it_sees_no_entities() {
    let running = Running::start().await;
    let services = &running.app.services;
    let loose = services
        .catalog
        .create_installation(running.tenant.id, "loose", "RM".parse().unwrap(), None)
        .await
        .unwrap();
    let app = services.catalog.create_app(running.tenant.id, "techfin", "").await.unwrap();
    for holder in [Holder::Installation(loose.id), Holder::App(app.id)] {
        let (client, secret) =
            told(services.access.create_credential(running.tenant.id, holder).await.unwrap());
        let token = running.token_of(&client, &secret).await;
        let (status, body) = get(&running, "/api/carol-definitions/v1/entities/RM", &token).await;
        assert_eq!(
            (status, &body["code"]),
            (StatusCode::FORBIDDEN, &json!("PERMISSION_DENIED")),
            "{holder:?}"
        );
    }
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_json_with_a_code_and_answers_are_protected() {
    let running = Running::start().await;
    let cases = [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND, "NOT_FOUND"),
        (
            Method::GET,
            "/api/carol-definitions/v1/entities/RM/more",
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
        ),
        (
            Method::GET,
            "/totvs.rac/connect/token",
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
        ),
        (Method::DELETE, "/api/v1/services", StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
    ];
    for (method, path, status, code) in cases {
        let answer = running.web.request(method, running.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        for (name, expected) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")]
        {
            assert_eq!(answer.headers()[name], expected);
        }
        let body = value(answer).await;
        assert_eq!(body["code"], code, "{path}");
        assert!(!body["message"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let running = Running::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            running.web.get(running.url(path)).send().await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
    }
    let metrics =
        running.web.get(running.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("malote_http_requests_total"), "{metrics}");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let running = Running::start().await;
    let answer = running
        .web
        .get(running.url("/healthz"))
        .header("x-large", "x".repeat(64 * 1024))
        .send()
        .await;
    let refused = answer
        .map_or(true, |answer| answer.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert!(refused);
    assert_eq!(
        running.web.get(running.url("/healthz")).send().await.unwrap().status(),
        StatusCode::OK
    );
}
