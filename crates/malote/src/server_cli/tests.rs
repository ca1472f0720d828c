use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    command: ServerCommand,
}

/// Runs a command line against a data folder.
async fn run(data: &std::path::Path, line: &str) -> Result<u8> {
    run_in(Lang::En, data, line).await
}

async fn run_in(lang: Lang, data: &std::path::Path, line: &str) -> Result<u8> {
    let words = std::iter::once("server").chain(line.split_whitespace());
    let mut command = Line::try_parse_from(words).unwrap().command;
    command.shared.data = Some(data.to_owned());
    Box::pin(command.run(lang)).await
}

/// What people do with a folder, in an order in which each can be done.
const DAY: &[&str] = &[
    "setup --tenant Loja --environment prod --erp RM --tables FLAN,TMOV",
    "setup --tenant Loja --environment prod --erp RM --tables FLAN,FCFO --json",
    "tenant list",
    "tenant show --json",
    "tenant rename Loja Mercado",
    "app create techfin --description finance",
    "app deactivate techfin",
    "app list --json",
    "environment create test --type development",
    "environment list --limit 1",
    "installation create second --erp PROTHEUS",
    "installation bind second test",
    "installation unbind second",
    "installation list",
    "credential create --installation RM",
    "credential create --app techfin --json",
    "credential list",
    "entity list --environment prod",
    "entity set-filter FLAN FLAN.IDLAN>1000 --environment prod",
    "entity remove TMOV --environment prod",
    "entity list --environment prod --withdrawn --json",
    "entity export --environment prod --format csv",
    "reload FLAN --environment prod",
    "reload --all --rebuild --environment prod --json",
    "session list",
    "admin add ana",
    "admin list --search AN",
    "admin token create ana --name laptop --role operator",
    "admin token create ana --name board --role read-only --tenant Mercado --expires 2099-01-31 --json",
    "admin token list ana",
    "admin token revoke ana board",
    "admin revoke ana",
    "audit list --search reload",
    "audit list --tenant Mercado --json",
    "audit verify",
    "fleet agents --search RM",
    "fleet tables --environment prod --state PARKED --troubled --json",
    "fleet order reload FLAN --environment prod --dry-run",
    "fleet order pause FLAN --why closing --environment prod --json",
    "fleet order resume --all --environment prod",
    "fleet order retry --all --environment prod",
    "fleet order verify FLAN --from 1 --to 9 --environment prod",
    "fleet order repair FLAN --environment prod",
    "fleet order log-level debug --minutes 5 --environment prod",
    "fleet orders --state waiting --verb PAUSE --environment prod",
    "fleet withdraw 1 --environment prod",
    "fleet orders --environment prod --json",
    "batches list --environment prod",
    "staging list --environment prod",
    "staging count FLAN --environment prod",
    "staging quarantine --environment prod --json",
    "quarantine list --environment prod",
    "quarantine retry --all --dry-run --environment prod",
    "quarantine retry --table FLAN --environment prod --json",
    "webhook add etl --url https://etl.example/in --events batch.complete,batch.stalled",
    "webhook add lake --url https://lake.example/ --environment prod --description lake --json",
    "webhook list --search E",
    "webhook show etl",
    "webhook show lake --json",
    "webhook edit etl --name warehouse --every-environment",
    "webhook edit lake --url https://lake.example/2 --events batch.incomplete --environment prod",
    "webhook pause lake",
    "webhook resume lake",
    "webhook rotate lake --keep-hours 2",
    "webhook rotate lake --at-once --json",
    "webhook deliveries warehouse --state dead --type batch.complete",
    "webhook replay warehouse --dead --dry-run",
    "webhook replay warehouse --done --since 2027-01-31 --json",
    "webhook remove warehouse --dry-run",
    "webhook remove warehouse",
    "alert list",
    "alert list --state all --json",
    "alert list --of-server",
    "alert route add ana@loja.example --language pt --environment prod",
    "alert route add root@loja.example --of-server",
    "alert route list",
    "alert route list --of-server --json",
    "alert route remove ana@loja.example",
    "alert threshold set freshness 30 --environment prod --table FLAN",
    "alert threshold list",
    "alert threshold remove freshness --environment prod --table FLAN",
    "alert mail set --host localhost --tls none --from malote@loja.example",
    "alert mail show --json",
    "alert mail remove",
    "retention run --dry-run",
    "retention run --json",
    "tenant create Gone",
    "tenant delete Gone",
    "app create gone",
    "app delete gone",
    "environment create gone",
    "environment rename gone away",
    "environment delete away",
    "installation create gone --erp LOGIX",
    "installation rename gone away",
    "installation delete away",
    "batches list --environment prod --state stalled",
    "migrate",
    "config",
    "config --defaults",
    "run --dump-config",
];

#[tokio::test]
async fn a_folder_is_set_up_watched_and_changed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for line in DAY {
        assert_eq!(run(folder.path(), line).await.unwrap(), exit::OK, "{line}");
    }
}

#[tokio::test]
async fn every_list_is_shown_in_portuguese_too() {
    let folder = tempfile::tempdir().unwrap();
    for line in [
        "setup --tenant Loja --erp RM --tables FLAN,TMOV",
        "tenant show",
        "credential list --limit 1",
        "admin add ana",
        "admin token create ana --name laptop --role operator",
        "admin token list ana",
        "admin list",
        "audit list",
        "audit verify",
        "entity set-filter FLAN FLAN.IDLAN>1000",
        "entity list",
        "session list",
        "fleet agents",
        "fleet tables",
        "fleet order pause FLAN",
        "fleet order retry --all --dry-run",
        "fleet orders",
        "fleet withdraw 1",
        "batches list",
        "staging list",
        "staging quarantine",
        "quarantine list",
        "quarantine retry --all --dry-run",
        "webhook add etl --url https://etl.example/in",
        "webhook list",
        "webhook show",
        "webhook deliveries",
        "webhook replay --dead --dry-run",
        "webhook remove --dry-run",
        "retention run --dry-run",
        "retention run",
        "reload FLAN",
        "migrate",
    ] {
        assert_eq!(run_in(Lang::Pt, folder.path(), line).await.unwrap(), exit::OK, "{line}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "setup --tenant Loja --erp RM --tables FLAN").await.unwrap();
    run(folder.path(), "webhook add a --url https://a.example/").await.unwrap();
    let cases = [
        ("tenant show Nobody", Code::NotFound),
        ("tenant create Loja", Code::AlreadyExists),
        ("tenant delete Loja", Code::StillUsed),
        ("environment delete production", Code::StillUsed),
        ("installation delete RM", Code::StillUsed),
        ("entity add FLAN", Code::AlreadyExists),
        ("entity add malote_batches", Code::NameReserved),
        ("entity add TMOV MALOTE_X", Code::NameReserved),
        ("entity add SQLite_sequence", Code::NameReserved),
        ("setup --tenant New --erp RM --tables TMOV,Malote_Tables", Code::NameReserved),
        ("tenant show New", Code::NotFound),
        ("entity remove TMOV", Code::NotFound),
        ("reload TMOV", Code::NotFound),
        ("credential revoke nobody", Code::NotFound),
        ("admin revoke nobody", Code::NotFound),
        ("admin token create nobody --name x --role operator", Code::NotFound),
        ("entity import none.toml", Code::BadRequest),
        ("entity import none.txt", Code::BadRequest),
        ("credential rotate nobody", Code::NotFound),
        ("carol show", Code::NotFound),
        ("carol remove", Code::NotFound),
        ("session accept 0a1b2c3d4e5f", Code::NotFound),
        ("session release", Code::NotFound),
        ("fleet order reload TMOV", Code::NotFound),
        ("fleet order reload TMOV --dry-run", Code::NotFound),
        ("fleet orders --after x", Code::BadId),
        ("fleet withdraw 1", Code::NotFound),
        ("batches list --after x", Code::BadId),
        ("batches show 1", Code::NotFound),
        ("batches show 1 --json", Code::NotFound),
        ("batches rows 1 1", Code::NotFound),
        ("batches rows 1 99999999999", Code::NotFound),
        ("batches rows 1 1 --after x", Code::BadId),
        ("quarantine show 1.1.0", Code::NotFound),
        ("quarantine show 1", Code::BadId),
        ("quarantine retry 1.1.0", Code::NotFound),
        ("quarantine discard 1.1.0 --reason known", Code::NotFound),
        ("staging schema FLAN", Code::NotFound),
        ("staging rows FLAN", Code::NotFound),
        ("webhook show nothing", Code::NotFound),
        ("webhook add a --url http://etl.example/", Code::AddressRefused),
        ("webhook add a --url https://127.0.0.1/", Code::AddressRefused),
        ("webhook add a --url etl", Code::BadRequest),
        ("webhook add a --url https://a.example/ --environment none", Code::NotFound),
        ("webhook add a --url https://a.example/", Code::AlreadyExists),
        ("webhook deliveries a --after x", Code::BadId),
        ("webhook deliveries a --id 00000000-0000-0000-0000-000000000000", Code::NotFound),
        ("webhook replay a --id 00000000-0000-0000-0000-000000000000", Code::NotFound),
        ("webhook test a --wait 0", Code::WebhookUntold),
        ("setup --tenant Loja --erp PROTHEUS --installation RM", Code::AlreadyExists),
    ];
    for (line, code) in cases {
        assert_eq!(run(folder.path(), line).await.unwrap_err().code, code, "{line}");
    }
}

#[tokio::test]
async fn a_copy_into_a_database_is_refused_where_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "setup --tenant Loja --erp RM --tables FLAN").await.unwrap();
    for line in ["copy-store", "copy-store --dry-run --json"] {
        let error = run(folder.path(), line).await.unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid, "{line}");
        assert!(error.message.contains("store.url"), "{error}");
    }
}

#[tokio::test]
async fn a_store_in_a_database_is_not_copied_as_files_and_one_that_is_away_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(&path, format!("[store]\nurl = 'postgres://malote@{free}/malote'")).unwrap();
    let data = folder.path().join("data");
    let over = |line: &str| format!("{line} --config {}", path.display());
    for lang in [Lang::En, Lang::Pt] {
        for line in ["backup --to copy", "restore --from copy --dry-run"] {
            let error = run_in(lang, &data, &over(line)).await.unwrap_err();
            assert_eq!(error.code, Code::BadRequest, "{line}");
            assert!(error.message.contains("pg_dump"), "{error}");
            assert!(error.message.contains("master.key"), "{error}");
        }
    }
    for line in ["migrate", "tenant list", "setup --tenant Loja --erp RM --tables FLAN"] {
        let error = run(&data, &over(line)).await.unwrap_err();
        assert_eq!(error.code, Code::StoreFailed, "{line}");
        assert!(error.message.contains("nothing listens there"), "{error}");
    }
    assert!(!data.join("store.sqlite").exists());
}

#[tokio::test]
async fn a_folder_without_a_store_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["tenant list", "staging list", "reload FLAN", "credential create"] {
        let error = run(folder.path(), line).await.unwrap_err();
        assert_eq!(error.code, Code::NotFound, "{line}");
        assert!(error.message.contains("malote server setup"), "{error}");
        let error = run_in(Lang::Pt, folder.path(), line).await.unwrap_err();
        assert!(error.message.starts_with("não há armazenamento em "), "{error}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "no empty store is left behind"
    );
}

#[test]
fn wrong_command_lines_are_refused() {
    for line in [
        "server",
        "server reload",
        "server reload A --all",
        "server entity add",
        "server installation create x --erp a/b",
        "server environment create x --type y",
        "server tenant list --limit 0",
        "server quarantine retry",
        "server quarantine retry 1.1.0 --all",
        "server quarantine retry --table A --all",
        "server quarantine discard 1.1.0",
        "server webhook add x",
        "server webhook add x --url https://a.example/ --events odd",
        "server webhook replay x",
        "server webhook replay x --dead --done",
        "server webhook rotate x --keep-hours 0",
    ] {
        assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
    }
}
