use runtime::clock::Mono;
use runtime::finding::{Grade, Wish};
use tokio::net::TcpListener;

use super::{super::doctor, *};
use crate::{
    app::fixture::{self, Running},
    config::StoreConfig,
    store::trial::{self, apart, made},
};

fn wish(only: &[&str], seconds: u64) -> Wish {
    let only = only.iter().map(|topic| (*topic).to_owned()).collect();
    Wish { only, patience: Duration::from_secs(seconds) }
}

fn of<'a>(findings: &'a [Finding], topic: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|found| found.topic == topic).collect()
}

/// A configuration of that data folder and that database.
fn config(data: &Path, url: String) -> ServerConfig {
    let store = StoreConfig { url, ..StoreConfig::default() };
    ServerConfig { store, ..fixture::config(data) }
}

#[test]
fn a_clock_that_went_back_and_a_key_that_is_old_are_told() {
    let day = 86_400_000_000;
    assert_eq!(clock(Wall(2 * day), Wall(day)).grade, Grade::Warning);
    assert_eq!(clock(Wall(day), Wall(2 * day)).grade, Grade::Ok);
    assert_eq!(signing_key(Wall(0), Wall(366 * day)).grade, Grade::Warning);
    assert_eq!(signing_key(Wall(0), Wall(day)).grade, Grade::Ok);
}

#[tokio::test]
async fn a_store_in_a_database_is_well_and_one_whose_role_is_a_superuser_is_weak() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let address = apart(made);
    let of_role = config(&data, trial::url(&address));
    let running = Running::start_with(folder, &of_role).await;
    let look = &[STORE, KEY, CLOCK, SIGNING_KEY, MAIL, VERSION];
    let findings = doctor(&of_role, &wish(look, 20)).await;
    assert!(findings.iter().all(|found| found.grade <= Grade::Note), "{findings:?}");
    for topic in [KEY, CLOCK, SIGNING_KEY] {
        assert_eq!(of(&findings, topic).len(), 1, "{topic}: {findings:?}");
    }
    let said = |findings: &[Finding], topic: &str, words: &str| {
        of(findings, topic).iter().any(|found| found.found.en.contains(words))
    };
    for words in
        ["its schema is current", "row-level security holds", "does not leave this machine"]
    {
        assert!(said(&findings, STORE, words), "{words}: {findings:?}");
    }
    assert!(said(&findings, VERSION, "PostgreSQL "), "{findings:?}");
    let above = address.to_string().replacen("//", "//postgres@", 1);
    let findings = doctor(&config(&data, above), &wish(&[STORE], 20)).await;
    let weak: Vec<_> = findings.iter().filter(|found| found.grade > Grade::Note).collect();
    assert!(weak.len() == 1 && weak[0].grade == Grade::Warning, "{findings:?}");
    assert!(weak[0].of == "role postgres" && weak[0].todo.is_some(), "{findings:?}");
    let owner = config(&data, trial::url(&trial::owner_of(&address)));
    let findings = doctor(&owner, &wish(&[STORE], 20)).await;
    assert!(said(&findings, STORE, "it owns the schema"), "{findings:?}");
    std::fs::write(data.join("store.sqlite"), "").unwrap();
    let findings = doctor(&of_role, &wish(&[STORE], 20)).await;
    assert!(said(&findings, STORE, "it is not used"), "{findings:?}");
    running.app.stop().await;
}

#[tokio::test]
async fn a_database_without_a_schema_says_migrate_and_one_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let address = apart(made);
    let url = trial::url(&address);
    trial::Database::Server(Box::new(address)).run("DROP SCHEMA malote CASCADE");
    let findings = doctor(&config(folder.path(), url.clone()), &wish(&[STORE], 20)).await;
    let bare = findings.iter().find(|found| found.grade == Grade::Mend).unwrap();
    assert_eq!(bare.code, Some(Code::StoreVersion), "{findings:?}");
    let todo = bare.todo.clone().unwrap();
    for command in ["malote server migrate", "malote server copy-store"] {
        assert!(todo.en.contains(command) && todo.pt.contains(command), "{todo:?}");
    }
    let findings = doctor(&config(folder.path(), format!("{url}x")), &wish(&[STORE], 20)).await;
    let absent = findings.iter().find(|found| found.grade == Grade::Mend).unwrap();
    let seen = (absent.code, absent.found.en.as_str());
    assert_eq!(seen, (Some(Code::StoreFailed), "there is no such database (SQLSTATE 3D000)"));
}

#[tokio::test]
async fn a_database_that_does_not_answer_costs_no_more_than_the_patience() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://malote@{}/malote", listener.local_addr().unwrap());
    let config = config(folder.path(), url);
    let begun = Mono::now();
    let findings = doctor(&config, &wish(&[STORE, MAIL], 1)).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let words = |findings: &[Finding]| {
        let found = findings.iter().find(|found| found.grade == Grade::Mend).unwrap();
        (found.code, found.found.en.clone(), found.todo.is_some())
    };
    let silent = "it does not answer within 1 s".to_owned();
    assert_eq!(words(&findings), (Some(Code::StoreFailed), silent, true));
    drop(listener);
    let findings = doctor(&config, &wish(&[STORE], 20)).await;
    let closed = "nothing listens there".to_owned();
    assert_eq!(words(&findings), (Some(Code::StoreFailed), closed, true));
}
