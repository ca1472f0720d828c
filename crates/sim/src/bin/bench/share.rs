//! Share: an ERP table on PostgreSQL through agent and server into staging, as two processes.
//!
//! Promises: the clock runs from the agent's start until the last row is staged, tokens and sessions included.

use std::{process::Command, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    clock::{self, Mono},
    entropy,
};
use sim::servers::{self, Postgres};

use super::{
    Options, cycles,
    measure::{cpu, figure, memory, memory_now, per_million, rate, talk},
    stage::{CYCLE, Gait, Stage},
};

/// What `--only` may name.
pub(crate) const PARTS: [&str; 4] = ["cycles", "tenth", "load", "far"];
/// Rows of the increment.
const INCREMENT: u64 = 11_000;
/// How often it is measured: where in a cycle a commit falls is chance.
const INCREMENTS: u32 = 5;
/// How long the agent idles before it is measured, and then is.
const IDLE: Duration = Duration::from_secs(10);
/// How often each way is loaded.
const LOADS: usize = 3;
/// Round trip of the long way.
const FAR: Duration = Duration::from_millis(50);

/// Measures what was asked for; without a choice all.
///
/// # Errors
/// Where something cannot start or no row moves for a minute.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let only = if options.in_database { Some("load") } else { options.only.as_deref() };
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let postgres = Postgres::start_with(&["shared_buffers=512MB", "max_wal_size=4GB"]).await?;
    if wanted("cycles") && !options.wide {
        cycles::run(&postgres).await?;
    }
    if wanted("tenth") && !options.wide {
        tenth(&postgres, options).await?;
    }
    if !(wanted("load") || wanted("far")) {
        return Ok(());
    }
    let url = filled(&postgres, ("erp", options.rows, options.wide)).await?;
    if wanted("load") {
        load(&url, options).await?;
    }
    if wanted("far") && !options.wide {
        far(&url, options.rows).await?;
    }
    Ok(())
}

/// A database of that name with those rows.
async fn filled(postgres: &Postgres, (name, rows, wide): (&str, u64, bool)) -> Result<String> {
    let url = postgres.create_database(name).await?;
    let erp = servers::connect(&url).await?;
    talk(&format!("making {rows} rows"));
    let made = erp.batch_execute(&table(rows, wide)).await;
    made.coded(Code::Internal, "cannot make the table")?;
    Ok(url)
}

/// Most memory with a tenth of the rows, to stand beside that with all.
async fn tenth(postgres: &Postgres, options: &Options) -> Result<()> {
    let rows = options.rows / 10;
    let url = filled(postgres, ("tenth", rows, false)).await?;
    let stage = Stage::start(&url, &tables(), None).await?;
    stage.cloud.staged(rows).await?;
    most_memory(&stage, &format!("most memory with {rows} rows: agent, server"))?;
    stage.stop().await
}

/// Base load, increment and idling.
async fn load(url: &str, options: &Options) -> Result<()> {
    let erp = servers::connect(url).await?;
    let text = "SELECT (sum(length(v)) / count(DISTINCT id))::bigint FROM (SELECT * FROM t LIMIT 10000) t, jsonb_each_text(to_jsonb(t)) AS cell (k, v)";
    let width: i64 = erp
        .query_one(text, &[])
        .await
        .and_then(|row| row.try_get(0))
        .coded(Code::Internal, "cannot weigh the table")?;
    let copied = copy(url, ("COPY in", COPY))?;
    let upserted = if options.in_database {
        Some(copy(url, ("COPY and upsert", &upsert(&erp).await?))?)
    } else {
        None
    };
    let store = if options.in_database { Some(store().await?) } else { None };
    talk("base load");
    let begun = Mono::now();
    let gait = Gait { store: store.as_ref().map(|(_, url)| url.as_str()), ..Gait::HARD };
    let stage = Stage::start_at(url, &tables(), None, gait).await?;
    stage.cloud.staged(options.rows).await?;
    let took = begun.elapsed();
    let (agent, server) = (cpu(stage.agent.id())?, cpu(stage.cloud.server.id())?);
    figure("rows, bytes of text a row", &format!("{}, {width}", options.rows));
    figure("COPY out into COPY in beside it", &rate(options.rows, copied));
    if let Some(took) = upserted {
        figure("COPY out into COPY and one upsert beside it", &rate(options.rows, took));
    }
    figure("base load, agent's start to the last row staged", &rate(options.rows, took));
    let [agent, server, both] =
        [agent, server, agent + server].map(|time| per_million(time, options.rows));
    figure(
        "CPU-seconds a million rows: agent, server, both",
        &format!("{agent:.1}, {server:.1}, {both:.1}"),
    );
    most_memory(&stage, &format!("most memory with {} rows: agent, server", options.rows))?;
    increments(&stage, &erp, options.rows).await?;
    clock::sleep(Duration::from_secs(5)).await;
    let before = cpu(stage.agent.id())?;
    clock::sleep(IDLE).await;
    let idle = cpu(stage.agent.id())?.saturating_sub(before);
    let share = idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let now = memory_now(stage.agent.id())?;
    figure("idle agent after all of it: memory, CPU", &format!("{now}, {share:.1} %"));
    stage.stop().await
}

fn most_memory(stage: &Stage, what: &str) -> Result<()> {
    let most = |id| memory(id, "VmHWM");
    let (agent, server) = (most(stage.agent.id())?, most(stage.cloud.server.id())?);
    figure(what, &format!("{agent:.0} MiB, {server:.0} MiB"));
    Ok(())
}

/// Changes rows again and again, the first time while the keys of the load are still compared.
async fn increments(stage: &Stage, erp: &tokio_postgres::Client, rows: u64) -> Result<()> {
    clock::sleep(Duration::from_secs(3)).await;
    let increment = INCREMENT.min(rows);
    let sql =
        format!("UPDATE t SET valor1 = valor1 + 1, changed_at = now() WHERE id <= {increment}");
    let mut took = Vec::new();
    for round in 1..=u64::from(INCREMENTS) {
        clock::sleep(Duration::from_secs(CYCLE).mul_f64(entropy::fraction())).await;
        erp.batch_execute(&sql).await.coded(Code::Internal, "cannot change rows")?;
        let committed = Mono::now();
        stage.cloud.staged(rows + increment * round).await?;
        took.push(committed.elapsed().as_secs_f64());
        clock::sleep(Duration::from_millis(3_300)).await;
    }
    let each: Vec<_> = took.iter().map(|took| format!("{took:.2}")).collect();
    figure(
        &format!(
            "{increment} changed rows, from commit to staged (cycle of {CYCLE} s within), {INCREMENTS} times"
        ),
        &format!("{} s", each.join(", ")),
    );
    Ok(())
}

/// The same base load with a long way between agent and cloud, and with the same relay that takes no time; in turns,
/// since the machine is not as fast at one time as at another.
async fn far(url: &str, rows: u64) -> Result<()> {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        for (round_trip, took) in [(Duration::ZERO, &mut near), (FAR, &mut far)] {
            took.push(over_relay(url, rows, round_trip).await?);
        }
    }
    let [near, far] = [near, far].map(median);
    for (way, took) in [(Duration::ZERO, near), (FAR, far)] {
        let millis = way.as_millis();
        let what = format!("base load over a relay, round trip {millis} ms, median of {LOADS}");
        figure(&what, &rate(rows, took));
    }
    let share = near.as_secs_f64() / far.as_secs_f64() * 100.0;
    figure("of the rate without the way", &format!("{share:.0} %"));
    Ok(())
}

async fn over_relay(url: &str, rows: u64, round_trip: Duration) -> Result<Duration> {
    talk(&format!("base load over a relay, round trip {} ms", round_trip.as_millis()));
    let begun = Mono::now();
    let stage = Stage::start(url, &tables(), Some(round_trip)).await?;
    stage.cloud.staged(rows).await?;
    let took = begun.elapsed();
    talk(&rate(rows, took));
    stage.stop().await?;
    Ok(took)
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

fn tables() -> Vec<String> {
    vec!["t".to_owned()]
}

/// A table of 23 columns with about 290 bytes of text a row; `wide` adds a text of 2 MB to every row.
pub(crate) fn table(rows: u64, wide: bool) -> String {
    let wide = if wide { "repeat(md5(g::text), 65536)" } else { "md5(g::text)" };
    format!(
        "CREATE TABLE t (
            id bigint PRIMARY KEY, codcoligada integer NOT NULL, codfilial integer, codtipo text, numero text,
            serie text, descricao text, historico text, codusuario text, status text, codcliente text,
            valor1 numeric(15,2), valor2 numeric(15,2), valor3 numeric(15,4), desconto numeric(15,2), juros numeric(15,2),
            emissao date, vencimento date, baixa date, criado timestamp, ativo boolean, hash text,
            changed_at timestamptz NOT NULL DEFAULT now());
         INSERT INTO t SELECT g, 1 + g % 3, g % 17, '2.1.' || g % 40, lpad(g::text, 9, '0'),
            'NF' || g % 5, 'Item de movimento ' || g % 1000 || ' do deposito central',
            'Lancamento automatico do dia ' || g % 31 || ', conferido pela contabilidade geral 01',
            'usuario' || g % 60, (ARRAY['A','F','C','N'])[1 + g % 4], 'C' || lpad((g % 50000)::text, 6, '0'),
            (g % 100000) / 100.0, (g % 70000) / 100.0, (g % 999999) / 10000.0, CASE WHEN g % 3 = 0 THEN g % 90 END, 0,
            date '2024-01-01' + (g % 700)::int, date '2024-02-01' + (g % 700)::int,
            CASE WHEN g % 2 = 0 THEN date '2024-03-01' + (g % 700)::int END,
            timestamp '2024-01-01' + g * interval '1 second', g % 2 = 0, {wide},
            now() - interval '1 day' FROM generate_series(1, {rows}) g;
         CREATE INDEX ON t (changed_at, id);
         CREATE TABLE twin (LIKE t INCLUDING ALL);
         ANALYZE t"
    )
}

/// A database for the server's store in a cluster of its own, which keeps what it says it keeps. Its role is no superuser,
/// so that row-level security holds.
async fn store() -> Result<(Postgres, String)> {
    let settings = ["fsync=on", "full_page_writes=on", "shared_buffers=512MB", "max_wal_size=4GB"];
    let cluster = Postgres::start_with(&settings).await?;
    let owner = servers::connect(&cluster.create_database("store").await?).await?;
    let sql = "CREATE ROLE malote LOGIN; ALTER DATABASE store OWNER TO malote";
    owner.batch_execute(sql).await.coded(Code::Internal, "cannot make the store's role")?;
    let url = cluster.url_as("malote", "store");
    Ok((cluster, url))
}

const COPY: &str = "-c 'COPY twin FROM STDIN'";

/// The words for psql that take rows in beside their table, and then by one statement.
async fn upsert(erp: &tokio_postgres::Client) -> Result<String> {
    let sql = "SELECT string_agg(format('%1$s = excluded.%1$s', attname), ', ' ORDER BY attnum) FROM pg_attribute
                WHERE attrelid = 't'::regclass AND attnum > 0";
    let row = erp.query_one(sql, &[]).await.coded(Code::Internal, "cannot read the columns")?;
    let sets: String = row.try_get(0).coded(Code::Internal, "no columns")?;
    Ok(format!(
        "-1 -c 'CREATE TEMP TABLE coming (LIKE twin)' -c 'COPY coming FROM STDIN' \
         -c 'INSERT INTO twin SELECT * FROM coming ON CONFLICT (id) DO UPDATE SET {sets}'"
    ))
}

/// The same rows by psql alone: COPY out of the table, and into its twin with the same indexes.
fn copy(url: &str, (name, into): (&str, &str)) -> Result<Duration> {
    talk(&format!("COPY out | {name}"));
    let psql = servers::available()?.join("psql");
    let psql = psql.display();
    let line = format!("{psql} -qX {url} -c 'COPY t TO STDOUT' | {psql} -qX {url} {into}");
    let begun = Mono::now();
    let done = Command::new("sh").args(["-c", &line]).status().coded(Code::Internal, "no sh")?;
    if !done.success() {
        return Err(Error::new(Code::Internal, "psql failed"));
    }
    Ok(begun.elapsed())
}
