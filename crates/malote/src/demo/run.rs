//! Run: the demo from its first line to its verdict.
//!
//! Promises: waits on states with a deadline; the verdict is the last comparison, and no comparison is skipped.
//! Never: calls two things equal that it did not compare.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result, names::TableName};
use runtime::{
    clock::{self, Mono},
    exit,
    shutdown::Shutdown,
    task,
};
use serde_json::json;

use super::{
    DemoCommand,
    cloud::{Cloud, Standing},
    direct,
    erp::{Day, Erp, Kind, TABLES},
    progress::{Numbers, Phase, Progress},
    ship::{self, CYCLE, Cargo, Ship},
    verdict::Verdict,
    verify,
};
use crate::lang::Lang;

/// How often states are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a source that is written to all the time streams before it is compared.
const BUSY: Duration = Duration::from_secs(4);
/// Looks that must find the very same differences before they are the verdict.
const LOOKS: usize = 3;

/// Everything that is up.
pub(super) struct World {
    pub(super) cloud: Cloud,
    pub(super) ships: Vec<Ship>,
    /// The demo's own ERP; `None` where somebody's database is followed.
    pub(super) erp: Option<Erp>,
    /// Tables that cannot be shared as they are.
    pub(super) left_out: Vec<(TableName, Error)>,
    folder: PathBuf,
}

impl World {
    /// Server and the two small ERPs with their agents.
    pub(super) async fn own(command: &DemoCommand, folder: &Path, show: &Progress) -> Result<Self> {
        let (rows, seed, place) = (command.rows, command.seed, folder.to_owned());
        let erp = task::blocking(move || Erp::make(&place, rows, seed)).await??;
        let (rows, tables) =
            (counted(show, rows, ROW_WORDS), counted(show, TABLES.len() as u64, TABLE_WORDS));
        show.say(
            format!("A small ERP: {rows} in {tables}, RM and Protheus in manner."),
            format!("Um pequeno ERP: {rows} em {tables}, ao modo do RM e do Protheus."),
        );
        let mut world = Self {
            cloud: Cloud::start(folder).await?,
            ships: Vec::new(),
            erp: None,
            left_out: Vec::new(),
            folder: folder.to_owned(),
        };
        for kind in Kind::BOTH {
            let tables =
                TABLES.iter().filter(|table| table.kind == kind).map(|table| table.wire.parse());
            let tables = tables.collect::<Result<Vec<_>>>()?;
            world.add(Cargo::of(kind, &erp.path(kind))?, Some(tables)).await?;
        }
        world.erp = Some(erp);
        Ok(world)
    }

    /// Server and an agent on somebody's database.
    pub(super) async fn of(url: &str, folder: &Path) -> Result<Self> {
        let mut world = Self {
            cloud: Cloud::start(folder).await?,
            ships: Vec::new(),
            erp: None,
            left_out: Vec::new(),
            folder: folder.to_owned(),
        };
        world.add(Cargo::generic(url)?, None).await?;
        Ok(world)
    }

    async fn add(&mut self, cargo: Cargo, tables: Option<Vec<TableName>>) -> Result<()> {
        let source = cargo.connect()?;
        let tables = match tables {
            Some(tables) => tables,
            None => source_tables(&source).await?,
        };
        let found = ship::look(&source, tables).await?;
        self.left_out.extend(found.left_out);
        if found.shapes.is_empty() {
            return Err(Error::new(Code::TableMissing, "the database shows no table with a key"));
        }
        let shared = found.shapes.iter().map(|shape| shape.wire.clone()).collect();
        let login = self.cloud.install(&cargo.erp, shared).await?;
        let ship =
            Ship::launch(cargo, &self.cloud, login, (source, found.shapes), &self.folder).await?;
        self.ships.push(ship);
        Ok(())
    }

    /// Names what cannot be shared.
    pub(super) fn tell_left_out(&self, show: &Progress) {
        for (table, error) in &self.left_out {
            show.say(format!("Left out: {table}: {error}"), format!("Fora: {table}: {error}"));
            show.event(&json!({
                "event": "leftOut", "table": table, "code": error.code.as_str(), "words": error.message,
            }));
        }
    }

    pub(super) async fn numbers(&self) -> Result<Numbers> {
        let mut sum = Numbers::default();
        for ship in &self.ships {
            let standing = self.cloud.standing(&ship.login.place).await?;
            sum.captured += standing.rows;
            sum.batches += standing.batches;
            sum.staged += standing.staged;
            sum.latency_ms = sum.latency_ms.max(standing.latency_ms);
        }
        Ok(sum)
    }

    /// Waits until every table streams and two cycles have passed in which nothing moved. Somebody's database need not
    /// come to rest: there a while of streaming is enough.
    ///
    /// # Errors
    /// `TIMEOUT` where nothing moved for `silence` although there is something to wait for.
    pub(super) async fn settle(
        &self,
        phase: Phase,
        silence: Duration,
        show: &mut Progress,
    ) -> Result<()> {
        let mut moved = Mono::now();
        let mut streams: Option<Mono> = None;
        let mut still: Option<(Mono, Vec<Standing>)> = None;
        loop {
            show.numbers(phase, self.numbers().await?);
            let mut marks = Vec::new();
            let mut streaming = true;
            for ship in &self.ships {
                let state = ship.state(&self.cloud).await?;
                streaming &= state.waiting.is_empty();
                marks.push(state.standing);
            }
            streams = streams.filter(|_| streaming).or_else(|| streaming.then(Mono::now));
            if self.erp.is_none() && streams.is_some_and(|since| since.elapsed() >= BUSY) {
                return Ok(());
            }
            if still.as_ref().is_none_or(|(_, before)| *before != marks) {
                moved = Mono::now();
            }
            still = match still.filter(|(_, before)| streaming && *before == marks) {
                Some((since, _)) if since.elapsed() >= CYCLE * 2 + LOOK * 2 => return Ok(()),
                Some(kept) => Some(kept),
                None => Some((Mono::now(), marks)),
            };
            if moved.elapsed() > silence {
                return Err(Error::new(Code::Timeout, self.late(silence).await));
            }
            clock::sleep(LOOK).await;
        }
    }

    /// What is not done, in words.
    async fn late(&self, silence: Duration) -> String {
        let mut words = vec![format!("nothing moved for {} s", silence.as_secs())];
        for ship in &self.ships {
            match ship.state(&self.cloud).await {
                Ok(state) => words.extend(state.waiting),
                Err(error) => words.push(error.to_string()),
            }
        }
        words.join("; ")
    }

    /// Compares everything: through the agent's `Source`, and the demo's own ERP by SQL of its own as well.
    pub(super) async fn compare(&self) -> Result<Verdict> {
        let mut sum = Verdict::default();
        for ship in &self.ships {
            for shape in &ship.shapes {
                sum.add(verify::table(&self.cloud, &ship.login, &ship.source, shape).await?);
            }
        }
        if let Some(erp) = self.erp.clone() {
            let mut files = Vec::new();
            for (kind, ship) in Kind::BOTH.into_iter().zip(&self.ships) {
                files.push((kind, self.cloud.staging_file(&ship.cargo.erp)));
            }
            let own = task::blocking(move || {
                let mut own = Verdict::default();
                for (kind, path) in files {
                    own.add(direct::compare(&erp, kind, &path)?);
                }
                Ok::<_, Error>(own)
            })
            .await??;
            // The second opinion counts no table and no row twice, only what it found.
            sum.add(Verdict { tables: 0, rows: 0, ..own });
        }
        Ok(sum)
    }

    pub(super) async fn stop(self) -> Result<()> {
        let mut first = Ok(());
        for ship in self.ships {
            let ended = ship.stop().await;
            first = first.and(ended);
        }
        self.cloud.app.stop().await;
        first
    }
}

async fn source_tables(
    source: &agent::source::AnySource,
) -> Result<Vec<protocol::names::TableName>> {
    use agent::source::Source as _;
    source.identity().await?;
    source.tables().await
}

/// How long a phase may take: generous, since a slow machine is no difference.
pub(super) fn deadline(rows: u64) -> Duration {
    Duration::from_secs(120 + rows / 500)
}

/// Plays the day. The late transaction stays open for more than two cycles.
pub(super) async fn play(world: &World, show: &mut Progress) -> Result<()> {
    let Some(erp) = world.erp.clone() else { return Ok(()) };
    let mut day = Some(task::blocking(move || Day::begin(&erp)).await??);
    let mut opened: Option<Mono> = None;
    while let Some(mut under_way) = day.take() {
        if let Some(since) = opened.filter(|_| under_way.commits_next()) {
            while since.elapsed() < CYCLE * 5 / 2 {
                show.numbers(Phase::Day, world.numbers().await?);
                clock::sleep(LOOK).await;
            }
            opened = None;
        }
        let (under_way, step) = task::blocking(move || {
            let step = under_way.next();
            (under_way, step)
        })
        .await?;
        let Some(step) = step? else { break };
        if step.open && opened.is_none() {
            opened = Some(Mono::now());
        }
        let (en, pt) = step.words;
        let name = step.kind.erp();
        let rows = counted(show, step.rows as u64, ROW_WORDS);
        show.say(format!("  {name:<8} {en} ({rows})"), format!("  {name:<8} {pt} ({rows})"));
        show.event(&json!({ "event": "step", "erp": name, "words": en, "rows": step.rows }));
        show.numbers(Phase::Day, world.numbers().await?);
        clock::sleep(LOOK).await;
        day = Some(under_way);
    }
    Ok(())
}

/// Compares until all is equal or the time is over; the last comparison is the verdict.
pub(super) async fn verdict(
    world: &World,
    phase: Phase,
    time: Duration,
    show: &mut Progress,
) -> Result<Verdict> {
    let begun = Mono::now();
    world.settle(phase, time, show).await?;
    for ship in &world.ships {
        for (table, why) in ship.parked().await? {
            show.say(format!("Parked: {table}: {why}"), format!("Parada: {table}: {why}"));
        }
    }
    show.say(
        "Comparing every table with its source, row by row and value by value.",
        "Comparando cada tabela com a origem, linha a linha e valor a valor.",
    );
    let mut verdict = world.compare().await?;
    let mut same = 1;
    while !verdict.is_equal() && same < LOOKS && begun.elapsed() < time {
        tracing::warn!(differences = verdict.differences, "not equal yet; waiting two more cycles");
        clock::sleep(CYCLE * 2).await;
        world.settle(phase, time, show).await?;
        let mut again = world.compare().await?;
        if world.erp.is_none() {
            again = again.also_in(&verdict);
        }
        same = if again.differing == verdict.differing { same + 1 } else { 1 };
        verdict = again;
    }
    Ok(verdict)
}

/// Shows the numbers until the drain is asked for.
pub(super) async fn follow(world: &World, drain: &Shutdown, show: &mut Progress) -> Result<()> {
    while !drain.is_draining() {
        show.numbers(Phase::Following, world.numbers().await?);
        clock::sleep(LOOK).await;
    }
    Ok(())
}

const ROW_WORDS: Nouns = (["row", "rows"], ["linha", "linhas"]);
const TABLE_WORDS: Nouns = (["table", "tables"], ["tabela", "tabelas"]);

/// One and many, in English and Portuguese.
type Nouns = ([&'static str; 2], [&'static str; 2]);

fn counted(show: &Progress, number: u64, (en, pt): Nouns) -> String {
    show.lang.count(number, en, pt)
}

/// Tells the verdict; its exit code.
pub(super) fn tell(verdict: &Verdict, left_out: usize, show: &Progress) -> u8 {
    for difference in &verdict.first {
        show.say(difference.line(Lang::En), difference.line(Lang::Pt));
        show.event(&json!({ "event": "difference", "difference": difference }));
    }
    show.event(&json!({
        "event": "verified",
        "equal": verdict.is_equal(),
        "tables": verdict.tables,
        "rows": verdict.rows,
        "differences": verdict.differences,
        "leftOut": left_out,
    }));
    if left_out > 0 {
        let line = left_out_line(left_out, show.lang);
        show.say(&line, &line);
    }
    let line = verdict_line(verdict, show.seconds(), show.lang);
    show.say(&line, &line);
    if verdict.is_equal() { exit::OK } else { exit::DIFFERENT }
}

fn left_out_line(left_out: usize, lang: Lang) -> String {
    let (en, pt) = TABLE_WORDS;
    let tables = lang.count(left_out as u64, en, pt);
    let (one, many) = lang.pick(
        (
            "was left out and not compared; it is named above.",
            "were left out and not compared; they are named above.",
        ),
        (
            "ficou fora e não foi comparada; está nomeada acima.",
            "ficaram fora e não foram comparadas; estão nomeadas acima.",
        ),
    );
    format!("{tables} {}", if left_out == 1 { one } else { many })
}

fn verdict_line(verdict: &Verdict, seconds: f64, lang: Lang) -> String {
    let count = |number, (en, pt): Nouns| lang.count(number, en, pt);
    let (rows, tables) =
        (count(verdict.rows, ROW_WORDS), count(verdict.tables as u64, TABLE_WORDS));
    if verdict.is_equal() {
        let seconds = format!("{seconds:.1} s");
        return lang.pick(
            format!("EQUAL: {tables}, {rows}, every value agrees with its source ({seconds})."),
            format!(
                "IGUAL: {tables}, {rows}, todos os valores conferem com a origem ({}).",
                seconds.replace('.', ",")
            ),
        );
    }
    let nouns = (["difference", "differences"], ["diferença", "diferenças"]);
    let differences = count(verdict.differences, nouns);
    let (en, pt) = if verdict.differences == 1 {
        ("it is listed above.", "está acima.")
    } else {
        ("the first are listed above.", "as primeiras estão acima.")
    };
    lang.pick(
        format!("DIFFERENT: {differences} in {tables} of {rows}; {en}"),
        format!("DIFERENTE: {differences} em {tables} com {rows}; {pt}"),
    )
}

/// A folder that goes with the demo.
pub(super) fn folder() -> Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("malote-demo-").tempdir();
    made.coded(Code::ConfigInvalid, "cannot make a temporary folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts_in_singular_and_plural() {
        let equal = Verdict { tables: 1, rows: 1, ..Verdict::default() };
        assert_eq!(
            verdict_line(&equal, 1.25, Lang::En),
            "EQUAL: 1 table, 1 row, every value agrees with its source (1.2 s)."
        );
        let many = Verdict { tables: 10, rows: 974, ..Verdict::default() };
        assert_eq!(
            verdict_line(&many, 11.5, Lang::Pt),
            "IGUAL: 10 tabelas, 974 linhas, todos os valores conferem com a origem (11,5 s)."
        );
        let one = Verdict { differences: 1, ..many.clone() };
        assert!(verdict_line(&one, 1.0, Lang::En).starts_with("DIFFERENT: 1 difference in 10 "));
        let some = Verdict { differences: 3, ..many };
        let told = verdict_line(&some, 1.0, Lang::Pt);
        assert_eq!(
            told,
            "DIFERENTE: 3 diferenças em 10 tabelas com 974 linhas; as primeiras estão acima."
        );
    }

    #[test]
    fn one_table_was_left_out_and_several_were() {
        assert!(left_out_line(1, Lang::En).starts_with("1 table was left out"));
        assert!(left_out_line(2, Lang::En).starts_with("2 tables were left out"));
        assert!(left_out_line(1, Lang::Pt).starts_with("1 tabela ficou fora"));
        assert!(left_out_line(2, Lang::Pt).starts_with("2 tabelas ficaram fora"));
    }
}
