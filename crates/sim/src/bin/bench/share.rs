//! Share: an ERP table on PostgreSQL through agent and server into staging, as two processes.
//!
//! Promises: the clock runs from the agent's start until the last row is staged, tokens and sessions included.

use std::{fs, path::Path, process::Command, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::clock::{self, Mono};
use sim::{
    process::{self, Process},
    servers::{self, Postgres},
};

use super::{
    Options,
    measure::{counter, cpu, figure, memory, talk},
};

/// Rows of the increment.
const INCREMENT: u64 = 11_000;
/// Cycle of the agent, the least that can be set.
const CYCLE: u64 = 1;
/// How long the agent idles before it is measured, and then is.
const IDLE: Duration = Duration::from_secs(10);

/// What runs.
struct Stage {
    folder: tempfile::TempDir,
    http: u16,
    server: Process,
    agent: Process,
}

/// Measures a base load, an increment and idling.
///
/// # Errors
/// Where something cannot start or no row moves for a minute.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let postgres = Postgres::start_with(&["shared_buffers=512MB", "max_wal_size=4GB"]).await?;
    let url = postgres.create_database("erp").await?;
    let erp = servers::connect(&url).await?;
    talk(&format!("making {} rows", options.rows));
    erp.batch_execute(&table(options)).await.coded(Code::Internal, "cannot make the table")?;
    let text =
        "SELECT (sum(length(t::text)) / count(*))::bigint FROM (SELECT * FROM t LIMIT 10000) t";
    let width: i64 = erp
        .query_one(text, &[])
        .await
        .and_then(|row| row.try_get(0))
        .coded(Code::Internal, "cannot weigh the table")?;
    let copied = copy(&url)?;
    talk("base load");
    let begun = Mono::now();
    let mut stage = Stage::start(&url)?;
    stage.staged(options.rows).await?;
    let took = begun.elapsed();
    let per_million = |time: Duration| time.as_secs_f64() * 1e6 / options.rows as f64;
    let (agent, server) = (cpu(stage.agent.id())?, cpu(stage.server.id())?);
    figure("rows, bytes of text a row", &format!("{}, {width}", options.rows));
    figure("COPY out into COPY in beside it", &rate(options.rows, copied));
    figure("base load, agent's start to the last row staged", &rate(options.rows, took));
    figure(
        "CPU-seconds a million rows: agent, server, both",
        &format!(
            "{:.1}, {:.1}, {:.1}",
            per_million(agent),
            per_million(server),
            per_million(agent + server)
        ),
    );
    let most = (memory(stage.agent.id(), "VmHWM")?, memory(stage.server.id(), "VmHWM")?);
    figure("most memory: agent, server", &format!("{:.0} MiB, {:.0} MiB", most.0, most.1));
    clock::sleep(Duration::from_secs(3)).await;
    let increment = INCREMENT.min(options.rows);
    let sql =
        format!("UPDATE t SET valor1 = valor1 + 1, changed_at = now() WHERE id <= {increment}");
    let begun = Mono::now();
    erp.batch_execute(&sql).await.coded(Code::Internal, "cannot change rows")?;
    let committed = begun.elapsed();
    stage.staged(options.rows + increment).await?;
    let beyond = begun.elapsed().saturating_sub(committed);
    figure(
        &format!("{increment} changed rows, from commit to staged (cycle of {CYCLE} s within)"),
        &format!("{:.2} s", beyond.as_secs_f64()),
    );
    clock::sleep(Duration::from_secs(5)).await;
    let before = cpu(stage.agent.id())?;
    clock::sleep(IDLE).await;
    let idle = cpu(stage.agent.id())?.saturating_sub(before);
    let share = idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let now = memory(stage.agent.id(), "VmRSS")?;
    figure("idle agent: memory, CPU", &format!("{now:.0} MiB, {share:.1} %"));
    stage.agent.stop(Duration::from_secs(20)).await?;
    stage.server.stop(Duration::from_secs(60)).await?;
    Ok(())
}

fn rate(rows: u64, time: Duration) -> String {
    format!("{:.0} rows/s ({:.1} s)", rows as f64 / time.as_secs_f64(), time.as_secs_f64())
}

/// A table of 23 columns with about 290 bytes of text a row; `wide` adds a text of 2 MB to every row.
fn table(options: &Options) -> String {
    let wide = if options.wide { "repeat(md5(g::text), 65536)" } else { "md5(g::text)" };
    format!(
        "CREATE TABLE t (
            id bigint PRIMARY KEY, codcoligada integer NOT NULL, codfilial integer, codtipo text, numero text,
            serie text, descricao text, historico text, codusuario text, status text, codcliente text,
            valor1 numeric(15,2), valor2 numeric(15,2), valor3 numeric(15,4), desconto numeric(15,2), juros numeric(15,2),
            emissao date, vencimento date, baixa date, criado timestamp, ativo boolean, hash text,
            changed_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO t SELECT g, 1 + g % 3, g % 17, '2.1.' || g % 40, lpad(g::text, 9, '0'),
            'NF' || g % 5, 'Item de movimento ' || g % 1000, 'Lancamento automatico do dia ' || g % 31,
            'usuario' || g % 60, (ARRAY['A','F','C','N'])[1 + g % 4], 'C' || lpad((g % 50000)::text, 6, '0'),
            (g % 100000) / 100.0, (g % 70000) / 100.0, (g % 999999) / 10000.0, CASE WHEN g % 3 = 0 THEN g % 90 END, 0,
            date '2024-01-01' + (g % 700)::int, date '2024-02-01' + (g % 700)::int,
            CASE WHEN g % 2 = 0 THEN date '2024-03-01' + (g % 700)::int END,
            timestamp '2024-01-01' + g * interval '1 second', g % 2 = 0, {wide},
            now() - interval '1 day' FROM generate_series(1, {}) g;
         CREATE INDEX ON t (changed_at, id);
         CREATE TABLE twin (LIKE t INCLUDING ALL);
         VACUUM ANALYZE t",
        options.rows
    )
    .replace("VACUUM ANALYZE t", "ANALYZE t")
}

/// The same rows by psql alone: COPY out of the table, COPY into its twin with the same indexes.
fn copy(url: &str) -> Result<Duration> {
    talk("COPY out | COPY in");
    let psql = servers::available()?.join("psql");
    let psql = psql.display();
    let line = format!(
        "{psql} -qX {url} -c 'COPY t TO STDOUT' | {psql} -qX {url} -c 'COPY twin FROM STDIN'"
    );
    let begun = Mono::now();
    let done = Command::new("sh").args(["-c", &line]).status().coded(Code::Internal, "no sh")?;
    if !done.success() {
        return Err(Error::new(Code::Internal, "psql failed"));
    }
    Ok(begun.elapsed())
}

impl Stage {
    fn start(source: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("malote-bench-").tempdir();
        let folder = folder.coded(Code::Internal, "no folder")?;
        let (http, grpc, admin) =
            (servers::free_port()?, servers::free_port()?, servers::free_port()?);
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).coded(Code::Internal, "cannot write")
        };
        write(
            "server.toml",
            format!(
                "data = 'server-data'\nhttp_listen = '127.0.0.1:{http}'\ngrpc_listen = '127.0.0.1:{grpc}'\nallow_private = true\n"
            ),
        )?;
        let setup = ["server", "setup", "--tenant", "Bench", "--erp", "BENCH", "--tables", "t"];
        let mut setup = setup.to_vec();
        setup.extend(["--json", "--config", "server.toml"]);
        let made = process::command(folder.path(), &setup)?;
        let made: serde_json::Value =
            serde_json::from_str(&made).coded(Code::Internal, "setup says no JSON")?;
        let word = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
        write(
            "agent.toml",
            format!(
                "data = 'agent-data'\n[cloud]\nregistry = 'http://127.0.0.1:{http}'\nclient_id = '{}'\nclient_secret = '{}'\n\
                 allow_private = true\n[source]\nurl = '{source}'\nprofile = 'generic'\nerp = 'BENCH'\n\
                 [tables.t]\nstamp = 'changed_at'\n[capture]\ncycle_seconds = {CYCLE}\nduty_percent = 100\n\
                 [admin]\nlisten = '127.0.0.1:{admin}'\n",
                word("clientId"),
                word("clientSecret"),
            ),
        )?;
        let run = |name: &str| {
            let log = folder.path().join(format!("{name}.log"));
            let file = format!("{name}.toml");
            Process::start(folder.path(), &log, &[name, "run", "--config", &file])
        };
        let server = run("server")?;
        let agent = run("agent")?;
        Ok(Self { folder, http, server, agent })
    }

    /// Waits until so many rows were staged since the server's start.
    async fn staged(&mut self, rows: u64) -> Result<()> {
        let address = format!("http://127.0.0.1:{}/metrics", self.http);
        let (mut last, mut moved) = (0, Mono::now());
        loop {
            let now = match reqwest::get(&address).await {
                Ok(answer) => {
                    let text = answer.text().await.unwrap_or_default();
                    counter(&text, "malote_rows_staged_total")
                }
                Err(_) => 0,
            };
            if now >= rows {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Mono::now());
            }
            if moved.elapsed() > Duration::from_secs(60) {
                let log = |path: &Path| fs::read_to_string(path).unwrap_or_default();
                talk(&log(&self.folder.path().join("agent.log")));
                let words = format!("{now} of {rows} rows are staged and nothing moves");
                return Err(Error::new(Code::Timeout, words));
            }
            clock::sleep(Duration::from_millis(100)).await;
        }
    }
}
