//! `malote agent sql` and `history`: what was sent, as the agent's journal tells it.
//!
//! Promises: rows go to stdout as a table, CSV or JSON; that there were more is told on stderr.
//! Never: asks for more than the two documented views.

use agent::{
    admin::{CleanOrder, client::Client},
    config::HistoryConfig,
    journal::{HistoryRow, Selected},
};
use clap::{Args, Subcommand, ValueEnum};
use protocol::{Code, Coded as _, Result};
use serde_json::{Value, json};

use crate::{lang::Lang, out};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// Columns side by side.
    Table,
    /// Comma-separated, names in the first line (RFC 4180).
    Csv,
    /// One object with columns and rows.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct SqlArgs {
    /// One SELECT over GDataShareRecords or GTOTVSAPPCONCEITOHST.
    sql: String,
    /// How the rows are written; --json is the same as json.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Most rows to give, up to 10000.
    #[arg(long, value_name = "ROWS", default_value_t = 1_000)]
    limit: usize,
}

impl SqlArgs {
    pub(super) async fn run(self, client: &Client, json: bool, lang: Lang) -> Result<()> {
        let selected = client.select(&self.sql, self.limit).await?;
        match if json { Format::Json } else { self.format } {
            Format::Json => {
                let text = serde_json::to_string(&selected);
                out::data(text.coded(Code::Internal, "cannot print the rows")?);
            }
            Format::Csv => csv(&selected).iter().for_each(out::data),
            Format::Table => table(&selected).iter().for_each(out::data),
        }
        if selected.truncated {
            out::talk(lang.pick(
                format!("the first {} rows; there are more (--limit, WHERE)", selected.rows.len()),
                format!("as primeiras {} linhas; há mais (--limit, WHERE)", selected.rows.len()),
            ));
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv(selected: &Selected) -> Vec<String> {
    let quoted = |text: String| {
        let plain = !text.contains(['"', ',', '\n', '\r']);
        if plain { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
    };
    let head: Vec<String> = selected.columns.iter().cloned().map(quoted).collect();
    let rows = selected.rows.iter().map(|row| {
        let cells: Vec<String> = row.iter().map(|cell| quoted(text(cell))).collect();
        cells.join(",")
    });
    std::iter::once(head.join(",")).chain(rows).collect()
}

fn table(selected: &Selected) -> Vec<String> {
    // A line break or an escape of a terminal in a value must not tear the table.
    let flat = |text: String| text.replace(char::is_control, " ");
    let head = selected.columns.iter().cloned().map(flat).collect();
    let mut lines: Vec<Vec<String>> = vec![head];
    lines.extend(selected.rows.iter().map(|row| row.iter().map(text).map(flat).collect()));
    let mut widths = vec![0; selected.columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = |line: &Vec<String>| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    lines.iter().map(padded).collect()
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct HistoryArgs {
    #[command(subcommand)]
    verb: Option<HistoryVerb>,
    /// Show one concept alone: a table, or a job.
    #[arg(long, value_name = "CONCEPT")]
    concept: Option<String>,
    /// Most rows to give.
    #[arg(long, value_name = "ROWS", default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum HistoryVerb {
    /// Remove old rows, oldest first; the last success of each concept stays.
    Clean {
        /// Days that stay; else history.keep_days of the configuration.
        #[arg(long)]
        days: Option<u32>,
        /// Most rows to be removed; else history.clean_rows of the configuration.
        #[arg(long, value_name = "ROWS")]
        max_rows: Option<u64>,
        /// Tell how many would go, and remove none.
        #[arg(long)]
        dry_run: bool,
    },
}

impl HistoryArgs {
    pub(super) async fn run(
        self,
        client: &Client,
        config: &HistoryConfig,
        json: bool,
        lang: Lang,
    ) -> Result<()> {
        let Some(HistoryVerb::Clean { days, max_rows, dry_run }) = self.verb else {
            let rows = client.history(self.concept.as_deref(), self.limit).await?;
            show(&rows, json, lang);
            return Ok(());
        };
        let order = CleanOrder {
            days: days.unwrap_or(config.keep_days),
            max_rows: max_rows.unwrap_or(config.clean_rows),
            dry_run,
        };
        let cleaned = client.history_clean(&order).await?;
        if json {
            out::data(json!(cleaned).to_string());
        }
        let (removed, left) = (cleaned.removed, cleaned.left);
        out::talk(if dry_run {
            lang.pick(
                format!("{removed} rows would be removed, {left} would stay"),
                format!("{removed} linhas seriam removidas, {left} ficariam"),
            )
        } else {
            lang.pick(
                format!("{removed} rows removed, {left} stay"),
                format!("{removed} linhas removidas, {left} ficam"),
            )
        });
        Ok(())
    }
}

fn show(rows: &[HistoryRow], as_json: bool, lang: Lang) {
    if as_json {
        out::data(json!({ "history": rows }).to_string());
    } else if rows.is_empty() {
        out::talk(lang.pick("nothing yet", "nada ainda"));
    }
    for row in rows.iter().filter(|_| !as_json) {
        out::data(line(row));
    }
}

fn line(row: &HistoryRow) -> String {
    let batch = row.batch.map(|batch| format!(" batch {batch}")).unwrap_or_default();
    let error = row.error.as_ref().map(|error| format!(" {error}")).unwrap_or_default();
    let HistoryRow { finished, concept, status, records, .. } = row;
    format!("{finished} {concept:<12} {status:<7} records {records}{batch}{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected() -> Selected {
        Selected {
            columns: vec!["A".into(), "B,C".into()],
            rows: vec![vec![json!("x\ny"), json!(1)], vec![Value::Null, json!("say \"no\"")]],
            truncated: false,
        }
    }

    #[test]
    fn rows_are_written_as_csv_that_reads_back_and_as_a_table_in_one_line_each() {
        assert_eq!(csv(&selected()), ["A,\"B,C\"", "\"x\ny\",1", ",\"say \"\"no\"\"\""]);
        assert_eq!(table(&selected()), ["A    B,C", "x y  1", "     say \"no\""]);
    }

    #[test]
    fn a_line_of_history_tells_moment_concept_outcome_and_reason() {
        let row = HistoryRow {
            id: 1,
            concept: "FLAN".into(),
            started: "s".into(),
            finished: "2026-01-02T03:04:05Z".into(),
            status: "ERROR".into(),
            records: 3,
            error: Some("FENCED: w".into()),
            batch: Some(protocol::ids::BatchId(9)),
        };
        assert_eq!(
            line(&row),
            "2026-01-02T03:04:05Z FLAN         ERROR   records 3 batch 9 FENCED: w"
        );
    }
}
