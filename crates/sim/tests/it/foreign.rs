//! Foreign clients against the real server process: a sender made from the printed proto, one that knows reflection
//! alone, curl for the token as the document prints it, and a stranger's verification of the token.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use sim::servers;

use crate::whole::{cloud::Cloud, compare};

pub(crate) fn python() -> PathBuf {
    let python = servers::cache_folder().join("venv/bin/python");
    assert!(python.exists(), "Python's clients are missing; ./test.sh makes {}", python.display());
    python
}

/// Runs a script of `tests/python` with the token on its stdin, away from the async threads.
async fn script(name: &'static str, arguments: Vec<String>, token: String) -> String {
    let run = move || {
        let path = servers::crate_folder().join("tests/python").join(name);
        let mut command = Command::new(python());
        command
            .arg("-B")
            .arg(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{name}: {words}");
        words
    };
    runtime::task::blocking(run).await.unwrap()
}

/// The call as document 001 prints it (2.2): form fields in that order, `--data-urlencode`.
async fn curl_token(url: String, client: String, secret: String) -> serde_json::Value {
    let run = move || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--location", &url]);
        curl.args(["--header", "Content-Type: application/x-www-form-urlencoded"]);
        curl.args(["--data-urlencode", "grant_type=client_credentials"]);
        curl.args(["--data-urlencode", "scope=authorization_api"]);
        curl.args(["--data-urlencode", &format!("client_id={client}")]);
        curl.args(["--data-urlencode", &format!("client_secret={secret}")]);
        let done = curl.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    runtime::task::blocking(run).await.unwrap()
}

fn now_seconds() -> i64 {
    runtime::clock::Wall::now().seconds()
}

#[tokio::test]
async fn curl_gets_a_token_by_the_printed_call_and_a_stranger_can_verify_it() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let address = cloud.service("rac-token").await;
    let answer = curl_token(address.clone(), cloud.client_id.clone(), cloud.secret.clone()).await;
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["scope"], "authorization_api");
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let issuer = address.trim_end_matches("/connect/token").to_owned();
    script("token_checks.py", vec![issuer, cloud.tenant.clone()], token).await;
    let wrong = curl_token(address, cloud.client_id.clone(), "wrong".to_owned()).await;
    assert_eq!(wrong["error"], "invalid_client");
}

#[tokio::test]
async fn a_client_made_from_the_printed_proto_sends_and_is_answered_as_documented() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let arguments =
        vec![cloud.grpc_target(), "RM".to_owned(), "FLAN".to_owned(), now_seconds().to_string()];
    script("printed_proto.py", arguments, cloud.token().await).await;
    // Row 1 was deleted by its key alone, row 2 has the empty string, row 900 came with the largest message and went.
    let expected =
        [(1, None, true), (2, Some(""), false), (3, Some("três"), false), (900, None, true)];
    let expected: Vec<_> =
        expected.map(|(id, name, gone)| (id, name.map(str::to_owned), gone)).into();
    cloud
        .staged("the rows of both batches", move |staging| {
            let mut rows =
                staging.prepare("SELECT ID, NAME, _deleted FROM flan ORDER BY ID").ok()?;
            let rows =
                rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).ok()?;
            let rows: Vec<(i64, Option<String>, bool)> = rows.collect::<Result<_, _>>().ok()?;
            (rows == expected).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_client_that_knows_reflection_alone_sends() {
    let cloud = Cloud::start("PROTHEUS", &["SE1"]).await;
    let arguments = vec![
        cloud.grpc_target(),
        "PROTHEUS".to_owned(),
        "SE1".to_owned(),
        now_seconds().to_string(),
    ];
    script("reflection.py", arguments, cloud.token().await).await;
    cloud
        .staged("the discovered row", |staging| {
            staging
                .query_row(
                    "SELECT 1 FROM se1 WHERE ID = 77 AND NAME = 'found by reflection'",
                    [],
                    |_| Ok(()),
                )
                .ok()
        })
        .await;
    assert!(compare::staging(&cloud.staging()).is_some());
}
