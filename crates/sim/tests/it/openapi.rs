//! A fuzzer that is not ours (schemathesis) reads the server's own description and calls every operation of it, with
//! what the description allows and with what it forbids: no answer is a fault of the server's, each has a status and a
//! shape that the description names, and what has the wrong kind is refused.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;
use sim::servers;

use crate::whole::cloud::Cloud;

/// Operations that would end the fuzzer's own token.
const SELF_ENDING: &str = "DELETE .*/administrators/";

#[tokio::test]
async fn a_fuzzer_finds_no_fault_behind_the_description_of_the_interface() {
    let mut cloud = Cloud::start("RM", &["FLAN", "FCFO"]).await;
    cloud.command(&["admin", "add", "ana"]);
    let words =
        ["admin", "token", "create", "ana", "--name", "fuzzer", "--role", "operator", "--json"];
    let made: Value = serde_json::from_str(&cloud.command(&words)).unwrap();
    let token = made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    // The fuzzer names things that are there; else most calls would end at NOT_FOUND.
    let parameters = format!(
        "[parameters]\n\"path.tenant\" = '{}'\n\"path.environment\" = 'production'\n\"path.erp\" = 'RM'\n\
         \"path.table\" = 'FLAN'\n",
        cloud.tenant
    );
    fs::write(cloud.folder.path().join("schemathesis.toml"), parameters).unwrap();
    let full = std::env::var_os("MALOTE_TEST_FULL").is_some();
    let mut fuzzer = Command::new(servers::cache_folder().join("venv/bin/schemathesis"));
    fuzzer
        .current_dir(cloud.folder.path())
        .args(["--config-file", "schemathesis.toml", "--no-color", "run"])
        .arg(format!("{}/api/admin/openapi.json", cloud.registry_base()))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--checks", "all", "--phases", "coverage,fuzzing", "--warnings", "off"])
        // The description gives kinds, not every rule of a name: what has the kind alone may be refused.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--continue-on-failure", "--exclude-name-regex", SELF_ENDING])
        .args(["--max-examples", if full { "60" } else { "8" }])
        // The same calls each time; a longer run has its own.
        .args(["--seed", if full { "2" } else { "1" }]);
    let done = runtime::task::blocking(move || fuzzer.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
    let tested = told.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    let tested: usize = tested.unwrap().trim().parse().unwrap();
    assert_eq!(
        tested,
        described(&cloud).await - 2,
        "all but the two that end the fuzzer's token: {told}"
    );
    // It stands after all that, whatever was deleted.
    cloud.ready().await;
}

/// How many operations the description names.
async fn described(cloud: &Cloud) -> usize {
    let url = format!("{}/api/admin/openapi.json", cloud.registry_base());
    let description: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let paths = description["paths"].as_object().unwrap();
    // The fuzzer takes a path with and without a slash at its end for one.
    let operations: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, of)| {
            of.as_object().unwrap().keys().map(move |method| (path.trim_end_matches('/'), method))
        })
        .collect();
    operations.len()
}
