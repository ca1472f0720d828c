//! Doctor: looks over what an agent stands on: configuration, data folder, journal, disk, way to the cloud, ERP database.
//!
//! Promises: works without a running agent and beside one; each finding that is worse than a note says what to do; what
//! cannot be looked at because something before it failed is left out, not guessed; each table of the database, as each
//! call over the network, gets the time that was given, and one that takes longer is told.
//! Never: changes anything; opens a session; holds the data folder.

use std::{
    fmt::Display,
    fs::{File, TryLockError},
    path::Path,
    time::Duration,
};

use protocol::{Code, Error, limits, names::TableName};
use runtime::{
    backup,
    clock::Mono,
    files,
    finding::{Finding, Grade, Wish, both, words},
};

use super::{Checked, connect, look, to_the_cloud, within};
use crate::{
    config::AgentConfig,
    journal::backup as journal,
    source::{AnySource, Concern, ReadLimit, Source as _, TableShape},
    uplink::examine,
};

const CONFIG: &str = "config";
const DATA: &str = "data";
const JOURNAL: &str = "journal";
const DISK: &str = "disk";
const VERSION: &str = "version";
const SOURCE: &str = "source";
const TABLE: &str = "table";
const LOAD: &str = "load";

/// What is looked at on this machine, and of the ERP database; [`examine::TOPICS`] are those of the cloud.
pub const TOPICS: [&str; 8] = [CONFIG, DATA, JOURNAL, DISK, VERSION, SOURCE, TABLE, LOAD];

/// Rows and bytes of the page by which the pace of a table is measured.
const SAMPLE: ReadLimit = ReadLimit { rows: 2_000, bytes: 4 * 1024 * 1024 };
/// Tables whose pace is measured: each costs a page and a count.
const SAMPLED: usize = 40;

/// Looks everything over that is wished for.
pub async fn doctor(config: &AgentConfig, wish: &Wish) -> Vec<Finding> {
    let mut findings = Vec::new();
    if wish.wants(&[CONFIG]) {
        findings.extend(configuration(config));
    }
    if wish.wants(&[DATA, JOURNAL, DISK]) {
        findings.extend(data_folder(&config.data));
    }
    if wish.wants(&[VERSION]) {
        let own = env!("CARGO_PKG_VERSION");
        findings.push(Finding::ok(VERSION, "agent", both(own)));
    }
    let mut opened = config.clone();
    // What it lacks was told above.
    let unsealed = opened.unseal();
    let mut tables = None;
    if (wish.wants(&examine::TOPICS) || wish.wants(&[TABLE, LOAD]))
        && let (Ok(()), Ok(cloud)) = (&unsealed, to_the_cloud(&opened))
    {
        let examined = Box::pin(examine::examine(&cloud, wish.patience)).await;
        tables = examined.tables;
        findings.extend(examined.findings);
    }
    if wish.wants(&[SOURCE, TABLE, LOAD, VERSION]) {
        findings.extend(Box::pin(database(&opened, wish, tables)).await);
    }
    findings.retain(|finding| wish.wants(&[finding.topic]));
    findings
}

fn configuration(config: &AgentConfig) -> Vec<Finding> {
    let mut found = Vec::new();
    for key in config.missing() {
        let todo = words(
            "Complete the configuration; the reference tells each key.",
            "Complete a configuração; a referência explica cada chave.",
        );
        let missing = words("it is missing", "está faltando");
        found.push(Finding::mend(CONFIG, key, (missing, todo)).coded(Code::ConfigInvalid));
    }
    let mut opened = config.clone();
    let checks: [(&str, Result<(), Error>); 4] = [
        ("agent.toml", config.validate_given()),
        ("agent.toml", opened.unseal()),
        ("cloud.ca_file", config.cloud.ca().map(drop)),
        // One that is not there is made at the first start.
        (
            "mask.key_file",
            match &config.mask.key_file {
                Some(_) => config.clone().open_mask_key(),
                None => Ok(()),
            },
        ),
    ];
    let faults = checks.iter().filter_map(|(of, checked)| Some((of, checked.as_ref().err()?)));
    found.extend(faults.map(|(of, error)| Finding::error(CONFIG, of, error)));
    if found.is_empty() {
        let good = words("it can be used", "pode ser usada");
        found.push(Finding::ok(CONFIG, "agent.toml", good));
    }
    found
}

fn data_folder(data: &Path) -> Vec<Finding> {
    let (place, mut found) = (data.display().to_string(), Vec::new());
    if let Some(closed) = Finding::closed_folder(DATA, data) {
        return vec![closed, disk(data)];
    }
    found.push(match Finding::open_folder(DATA, data) {
        Some(open) => open,
        None if !data.exists() => {
            let new = words("it is made at the first start", "será criada no primeiro início");
            Finding::note(DATA, &place, new)
        }
        None if is_held(data) => {
            let held = words("an agent runs on it", "um agente está rodando nela");
            Finding::ok(DATA, &place, held)
        }
        None => {
            let free = words("no agent runs on it", "nenhum agente está rodando nela");
            Finding::ok(DATA, &place, free)
        }
    });
    if let Err(error) = backup::refuse_pending(data) {
        found.push(Finding::error(JOURNAL, &place, &error));
    }
    found.extend(journal_file(&data.join(journal::FILE)));
    found.push(disk(data));
    found
}

/// Whether another process has the data folder; looked at without waiting.
fn is_held(data: &Path) -> bool {
    let lock = File::options().write(true).open(data.join("lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn journal_file(path: &Path) -> Option<Finding> {
    if !path.exists() {
        return None;
    }
    let place = path.display();
    Some(match journal::versions(path) {
        Ok((found, known)) if found > known => {
            let words = format!("it has schema {found}, this program knows {known}");
            Finding::error(JOURNAL, place, &Error::new(Code::StoreVersion, words))
        }
        Ok((found, _)) => {
            let size = backup::size(path) >> 20;
            Finding::ok(JOURNAL, place, both(format!("schema {found}, {size} MiB")))
        }
        Err(error) => Finding::error(JOURNAL, place, &error),
    })
}

fn disk(data: &Path) -> Finding {
    let there = data.ancestors().find(|place| place.exists()).unwrap_or(Path::new("."));
    let place = data.display();
    let Some(free) = files::free(there) else {
        let silent = words(
            "this system does not tell what is free",
            "este sistema não informa o espaço livre",
        );
        return Finding::note(DISK, place, silent);
    };
    room(place, free)
}

fn room(place: impl Display, free: u64) -> Finding {
    let (free_mib, least) = (free >> 20, limits::DISK_FREE_BYTES >> 20);
    let found = words(format!("{free_mib} MiB are free"), format!("{free_mib} MiB livres"));
    let todo = words(
        format!("Make room: below {least} MiB the agent stops reading."),
        format!("Libere espaço: abaixo de {least} MiB o agente para de ler."),
    );
    if free < limits::DISK_FREE_BYTES {
        return Finding::mend(DISK, place, (found, todo)).coded(Code::DiskFull);
    }
    if free < limits::DISK_FREE_BYTES * 10 {
        return Finding::warning(DISK, place, (found, todo));
    }
    Finding::ok(DISK, place, found)
}

async fn database(
    config: &AgentConfig,
    wish: &Wish,
    shared: Option<Vec<TableName>>,
) -> Vec<Finding> {
    let of = "source.url";
    if config.source.url.is_empty() {
        return Vec::new();
    }
    let source = match connect(&config.source) {
        Ok(source) => source,
        Err(error) => return vec![Finding::error(SOURCE, of, &error)],
    };
    let tables = shared.unwrap_or_default();
    let checked = match Box::pin(look(&source, config, &tables, Some(wish.patience))).await {
        Ok(checked) => checked,
        Err(error) => return vec![Finding::error(SOURCE, of, &error)],
    };
    let identity = &checked.identity;
    let version = format!("{} {}", identity.kind, identity.version);
    let mut found = vec![
        Finding::ok(SOURCE, of, words("it answers", "responde")),
        Finding::ok(VERSION, "database", both(version)),
    ];
    found.extend(of_tables(&checked));
    if wish.wants(&[LOAD]) {
        found.extend(load(&source, config, (&checked.shapes, wish.patience)).await);
    }
    found
}

/// What the pre-flight of the source found, with weights and words in both languages.
fn of_tables(checked: &Checked) -> Vec<Finding> {
    let mut found = Vec::new();
    for (table, error) in &checked.refused {
        found.push(Finding::error(TABLE, table, error));
    }
    for finding in &checked.findings {
        let of = finding.table.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        let english = both(finding.words.clone());
        found.push(match (finding.code, &finding.concern) {
            // Rows keep flowing.
            (Some(Code::BoundDegraded), _) => {
                let error = Error::new(Code::BoundDegraded, finding.words.clone());
                Finding::error(SOURCE, of, &error).graded(Grade::Warning)
            }
            (Some(code), _) => Finding::error(TABLE, of, &Error::new(code, finding.words.clone())),
            (None, Some(concern)) => concerned(&of, concern),
            (None, None) => Finding::ok(TABLE, of, english),
        });
    }
    for shape in &checked.shapes {
        let key: Vec<&str> = shape.page_key.iter().map(String::as_str).collect();
        let key = key.join(", ");
        let fit = words(format!("it can be read by {key}"), format!("pode ser lida por {key}"));
        found.push(Finding::ok(TABLE, &shape.wire, fit));
    }
    found
}

fn concerned(of: &str, concern: &Concern) -> Finding {
    match concern {
        Concern::Empty => Finding::note(TABLE, of, words("it is empty", "está vazia")),
        Concern::NoStamp => {
            let found = words(
                "it has no stamp: changes are found by complete scans",
                "não tem stamp: as mudanças são achadas por varreduras completas",
            );
            Finding::note(TABLE, of, found).advised(words(
                "Nothing has to be done; where the ERP has a column that tells when a row changed, name it as the table's \
                 stamp, and changes are found within a cycle.",
                "Nada é obrigatório; se o ERP tem uma coluna que diz quando a linha mudou, indique-a como stamp da tabela, e \
                 as mudanças são achadas em um ciclo.",
            ))
        }
        Concern::NoStampIndex(column) => Finding::warning(
            TABLE,
            of,
            (
                words(
                    format!("stamp column {column} has no index: each cycle reads the whole table"),
                    format!(
                        "a coluna de stamp {column} não tem índice: cada ciclo lê a tabela inteira"
                    ),
                ),
                words(
                    format!("Let a DBA make an index that begins with {column}."),
                    format!("Peça ao DBA um índice que comece por {column}."),
                ),
            ),
        ),
        Concern::StampNull(column) => {
            let found = words(
                format!(
                    "rows have NULL in {column} (or, in a SQLite file, what is no stamp): they are compared at each key scan"
                ),
                format!(
                    "há linhas com NULL em {column} (ou, em um arquivo SQLite, com o que não é stamp): são comparadas em cada varredura de chaves"
                ),
            );
            Finding::note(TABLE, of, found).advised(words(
                "Nothing has to be done; with the column filled, their changes are found within a cycle.",
                "Nada é obrigatório; com a coluna preenchida, as mudanças delas são achadas em um ciclo.",
            ))
        }
        Concern::TriggerOff(name) => trigger_off(of, name),
        Concern::MayWrite => Finding::warning(
            TABLE,
            of,
            (
                words(
                    "the login may also change its rows",
                    "o login também pode alterar as linhas",
                ),
                words(
                    "Give the agent a login with SELECT alone; it never writes.",
                    "Dê ao agente um login só com SELECT; ele nunca grava.",
                ),
            ),
        ),
    }
}

fn trigger_off(of: &str, name: &str) -> Finding {
    let found = words(
        format!("trigger {name} is switched off: if it sets the stamp, changes keep an old one"),
        format!(
            "o trigger {name} está desligado: se ele grava o stamp, as mudanças ficam com um antigo"
        ),
    );
    let act = words(
        "Let a DBA switch it on again. Until then only the daily comparison and verify find such changes.",
        "Peça ao DBA que o ligue de novo. Até lá só a comparação diária e o verify acham essas mudanças.",
    );
    Finding::warning(TABLE, of, (found, act))
}

/// How long a base load takes to read: rows by the pace of a page of each table, over the share of time it may use.
async fn load(
    source: &AnySource,
    config: &AgentConfig,
    (shapes, patience): (&[TableShape], Duration),
) -> Vec<Finding> {
    let mut told = Vec::new();
    let (mut rows, mut seconds, mut unknown) = (0u64, 0.0, shapes.len().saturating_sub(SAMPLED));
    for shape in shapes.iter().take(SAMPLED) {
        let measure = async {
            let begun = Mono::now();
            let page = source.chunk(shape, None, None, SAMPLE).await?;
            let time = begun.elapsed();
            Ok((page.len(), time, source.row_count(shape).await?))
        };
        match within(Some(patience), measure).await {
            Ok((sampled, time, Some(count))) => {
                rows = rows.saturating_add(count);
                seconds += time_of(count, sampled, time);
            }
            Ok((.., None)) => unknown += 1,
            Err(error) => {
                unknown += 1;
                if error.code == Code::SourceTimeout {
                    let late = Finding::error(LOAD, &shape.wire, &error);
                    told.push(late.graded(Grade::Warning));
                }
            }
        }
    }
    let duty = config.capture.duty_percent.clamp(1, 100);
    let time = spoken(seconds * 100.0 / f64::from(duty));
    let hours = match config.capture.load_hours.is_empty() {
        true => words("", ""),
        false => words(", within capture.load_hours alone", ", só dentro de capture.load_hours"),
    };
    let left = match unknown {
        0 => words("", ""),
        some => words(
            format!("; {some} tables could not be measured"),
            format!("; {some} tabelas não puderam ser medidas"),
        ),
    };
    let found = words(
        format!(
            "about {rows} rows, read in about {time} at {duty} % of the database's time{}{}",
            hours.en, left.en
        ),
        format!(
            "cerca de {rows} linhas, lidas em cerca de {time} com {duty} % do tempo do banco{}{}",
            hours.pt, left.pt
        ),
    );
    told.push(Finding::note(LOAD, "base load", found));
    told
}

/// Seconds that so many rows take at the pace of a sample.
#[expect(clippy::cast_precision_loss, reason = "an estimate; rows beyond 2^53 are none")]
fn time_of(rows: u64, sampled: usize, time: Duration) -> f64 {
    if sampled == 0 {
        return 0.0;
    }
    rows as f64 / sampled as f64 * time.as_secs_f64()
}

/// A time as people say it; the same in both languages.
fn spoken(seconds: f64) -> String {
    match seconds {
        few if few < 90.0 => format!("{few:.0} s"),
        some if some < 5_400.0 => format!("{:.0} min", some / 60.0),
        many => format!("{:.1} h", many / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_up_is_a_warning_and_a_full_one_is_to_be_mended() {
        let graded = |free| room("data", free).grade;
        assert_eq!(graded(limits::DISK_FREE_BYTES - 1), Grade::Mend);
        assert_eq!(room("data", limits::DISK_FREE_BYTES - 1).code, Some(Code::DiskFull));
        assert_eq!(
            (graded(limits::DISK_FREE_BYTES), graded(limits::DISK_FREE_BYTES * 10 - 1)),
            (Grade::Warning, Grade::Warning)
        );
        assert_eq!(graded(limits::DISK_FREE_BYTES * 10), Grade::Ok);
    }

    fn wish(only: &[&str]) -> Wish {
        let only = only.iter().map(|topic| (*topic).to_owned()).collect();
        Wish { only, patience: Duration::from_secs(5) }
    }

    /// An ERP of one table, and an agent that reads it.
    fn config(home: &Path) -> AgentConfig {
        let path = home.join("erp.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "CREATE TABLE T (K INTEGER PRIMARY KEY, V TEXT, CHANGED TEXT);
             INSERT INTO T VALUES (1, 'a', '2026-01-01 00:00:00'), (2, 'b', '2026-01-01 00:00:01');",
        )
        .unwrap();
        let mut config = AgentConfig { data: home.join("data"), ..AgentConfig::default() };
        config.source.url = format!("sqlite:{}", path.display()).into();
        config
    }

    fn worst(findings: &[Finding], topic: &str) -> Option<Grade> {
        findings.iter().filter(|found| found.topic == topic).map(|found| found.grade).max()
    }

    #[tokio::test]
    async fn what_a_configuration_lacks_is_told_key_by_key_and_the_database_is_looked_at_all_the_same()
     {
        let home = tempfile::tempdir().unwrap();
        let mut config = config(home.path());
        let spec = "[T]\nstamp = 'CHANGED'\n[NOWHERE]\n";
        config.tables = toml::from_str(spec).unwrap();
        let findings = doctor(&config, &wish(&[])).await;
        let missing =
            |key: &str| findings.iter().any(|found| found.of == key && found.grade == Grade::Mend);
        for key in ["cloud.registry", "cloud.client_id", "cloud.client_secret", "source.erp"] {
            assert!(missing(key), "{key}: {findings:?}");
        }
        assert!(missing("NOWHERE"), "a table of the plan that is not there: {findings:?}");
        let unindexed = findings
            .iter()
            .find(|found| found.of == "T" && found.grade == Grade::Warning)
            .expect("a stamp without an index");
        assert!(unindexed.found.pt.contains("não tem índice"), "{unindexed:?}");
        let load = findings.iter().find(|found| found.topic == LOAD).unwrap();
        assert!(load.found.en.contains("about 2 rows"), "{load:?}");
        for found in findings.iter().filter(|found| found.grade > Grade::Note) {
            assert!(found.todo.is_some(), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_database_that_is_silent_takes_no_longer_than_it_was_given() {
        let home = tempfile::tempdir().unwrap();
        let mut config = config(home.path());
        let shapes = {
            let source = connect(&config.source).unwrap();
            let checked = look(&source, &config, &[], None).await.unwrap();
            // Who writes alone keeps readers of such a file waiting.
            let writer = rusqlite::Connection::open(home.path().join("erp.db")).unwrap();
            writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
            let patience = Duration::from_millis(50);
            let late = load(&source, &config, (&checked.shapes, patience)).await;
            let warned = late.iter().filter(|found| found.grade == Grade::Warning);
            assert_eq!(warned.count(), 1, "{late:?}");
            let note = late.last().unwrap();
            assert!(note.found.en.contains("1 tables could not be measured"), "{late:?}");
            checked.shapes
        };
        assert_eq!(shapes.len(), 1);
        // Takes the connection and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = silent.local_addr().unwrap();
        config.source.url = format!("postgres://u:p@{place}/erp?sslmode=disable").into();
        let (begun, patience) = (Mono::now(), Duration::from_secs(1));
        let findings = doctor(&config, &Wish { patience, ..wish(&[SOURCE]) }).await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        let told = findings.first().unwrap();
        assert_eq!((told.grade, told.code), (Grade::Mend, Some(Code::SourceTimeout)), "{told:?}");
        assert!(told.found.en.contains("within 1 s"), "{told:?}");
    }

    #[tokio::test]
    async fn hosts_that_the_registry_does_not_name_are_dialled_and_told_as_notes() {
        let home = tempfile::tempdir().unwrap();
        let mut config = config(home.path());
        let (open, closed) = (
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let [answers, silent] = [&open, &closed].map(|at| at.local_addr().unwrap());
        drop(closed);
        let cloud = &mut config.cloud;
        (cloud.registry, cloud.allow_private) = (format!("http://{silent}/"), true);
        (cloud.client_id, cloud.client_secret) = ("me".into(), Some("x".to_owned().into()));
        // The registry's own host is looked at as the registry.
        let place = |at: std::net::SocketAddr| format!("localhost:{}", at.port());
        cloud.hosts = vec![place(answers), place(silent), format!("127.0.0.1:{}", silent.port())];
        config.source.erp = Some("RM".parse().unwrap());
        let findings = doctor(&config, &wish(&["hosts"])).await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        let told = |at| findings.iter().find(|found| found.of == place(at)).unwrap();
        assert_eq!((told(answers).grade, told(silent).grade), (Grade::Note, Grade::Note));
        assert!(told(answers).found.en.contains("connected"), "{findings:?}");
        assert!(told(silent).found.en.contains("nothing listens there"), "{findings:?}");
    }

    #[tokio::test]
    async fn a_folder_that_others_may_read_and_an_agent_that_runs_on_it_are_told() {
        let home = tempfile::tempdir().unwrap();
        let config = config(home.path());
        let told = async || doctor(&config, &wish(&[DATA])).await;
        assert_eq!(worst(&told().await, DATA), Some(Grade::Note), "it is not there yet");
        let (running, _) = crate::journal::Journal::open(&config.data).await.unwrap();
        let held = told().await;
        assert!(held.iter().any(|found| found.found.en.contains("an agent runs")), "{held:?}");
        assert!(held.iter().all(|found| found.topic == DATA), "{held:?}");
        drop(running);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&config.data, open).unwrap();
            assert_eq!(worst(&told().await, DATA), Some(Grade::Warning));
        }
    }

    #[tokio::test]
    async fn a_restore_that_was_cut_off_has_to_be_mended() {
        let home = tempfile::tempdir().unwrap();
        let config = config(home.path());
        std::fs::create_dir(&config.data).unwrap();
        std::fs::write(config.data.join("restore.pending"), "{}").unwrap();
        let findings = doctor(&config, &wish(&[JOURNAL])).await;
        assert_eq!(findings.first().and_then(|found| found.code), Some(Code::RestoreUnfinished));
    }

    #[test]
    fn a_load_is_estimated_by_the_pace_of_a_page() {
        assert_eq!(spoken(time_of(1_000_000, 2_000, Duration::from_millis(100))), "50 s");
        assert_eq!(spoken(time_of(0, 0, Duration::from_secs(1))), "0 s");
        assert_eq!([spoken(600.0), spoken(36_000.0)], ["10 min", "10.0 h"]);
    }
}
