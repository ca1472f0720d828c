//! Cycles: what an agent costs that follows a hundred tables in which nothing changes, on a server where nothing is
//! committed at all, and on one where others commit.
//!
//! Promises: the CPU is that of the whole agent, divided by the cycles it read.

use std::{fmt::Write as _, time::Duration};

use protocol::{Code, Coded as _, Result};
use runtime::clock;
use sim::servers::{self, Postgres};

use super::{
    measure::{cpu, figure, memory_now, talk},
    stage::Stage,
};

const TABLES: usize = 100;
/// Rows of each.
const ROWS: usize = 100;
/// First looks are over by then: base loads, comparisons of keys, rows within the allowance of the clock.
const SETTLE: Duration = Duration::from_secs(25);
/// How long the agent is measured.
const TIME: Duration = Duration::from_secs(30);

/// Measures the agent.
///
/// # Errors
/// Where something cannot start or no row moves for a minute.
pub(crate) async fn run(postgres: &Postgres) -> Result<()> {
    let url = postgres.create_database("hundred").await?;
    let erp = servers::connect(&url).await?;
    let tables: Vec<String> = (0..TABLES).map(|number| format!("t{number:03}")).collect();
    let mut sql = String::new();
    for table in &tables {
        let _ = writeln!(
            sql,
            "CREATE TABLE {table} (id bigint PRIMARY KEY, v text, changed_at timestamptz NOT NULL DEFAULT now());
             INSERT INTO {table} SELECT g, md5(g::text), now() - interval '1 day' FROM generate_series(1, {ROWS}) g;
             CREATE INDEX ON {table} (changed_at, id);"
        );
    }
    erp.batch_execute(&sql).await.coded(Code::Internal, "cannot make the tables")?;
    drop(erp);
    talk("a hundred tables without a change");
    let stage = Stage::start(&url, &tables, None).await?;
    stage.cloud.staged((TABLES * ROWS) as u64).await?;
    clock::sleep(SETTLE).await;
    let each = cycle(&stage, clock::sleep(TIME)).await?;
    figure(&format!("CPU of a cycle over {TABLES} tables without a change"), &each);
    figure("idle agent with these tables: memory", &memory_now(stage.agent.id())?);
    // Then every table is asked, since nobody knows what was committed.
    let erp = servers::connect(&url).await?;
    let foreign = "CREATE TABLE IF NOT EXISTS elsewhere (n int); INSERT INTO elsewhere VALUES (1)";
    let others = async {
        for _commit in 0..TIME.as_secs() * 2 {
            let done = erp.batch_execute(foreign).await;
            if done.is_err() {
                break;
            }
            clock::sleep(Duration::from_millis(500)).await;
        }
    };
    let each = cycle(&stage, others).await?;
    figure("the same while others commit twice a second", &each);
    stage.stop().await
}

/// CPU of the agent for each cycle of the time that passes.
async fn cycle(stage: &Stage, time: impl Future<Output = ()>) -> Result<String> {
    let (cycles, before) = (stage.cycles().await, cpu(stage.agent.id())?);
    time.await;
    let cycles = stage.cycles().await - cycles;
    let spent = cpu(stage.agent.id())?.saturating_sub(before);
    let each = spent.as_secs_f64() * 1e3 / cycles.max(1) as f64;
    Ok(format!("{each:.1} ms ({cycles} cycles)"))
}
