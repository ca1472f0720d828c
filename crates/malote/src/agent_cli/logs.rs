//! `malote agent logs`: the detailed log of the running agent.
//!
//! Promises: has an end in time and size from its beginning; lines go to stdout as they are in the file.
//! Never: changes what the agent logs otherwise.

use std::time::Duration;

use agent::admin::{
    LogOrder, LogPage, LogStatus,
    client::{Client, LogPart},
};
use clap::{Subcommand, ValueEnum};
use protocol::Result;
use runtime::{clock, recording::Detail};
use serde_json::json;

use crate::{lang::Lang, out};

/// How often `--follow` looks.
const FOLLOW: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum LogsCommand {
    /// Begin a detailed log in the data folder (detail.log), anew; it ends by itself, and with the agent.
    #[command(after_help = "Example:
  malote agent logs on --level debug --for 30m --max-size 50MB --config agent.toml")]
    On {
        /// How much is told.
        #[arg(long, value_enum, default_value = "debug")]
        level: Level,
        /// How long it is on: a number with s, m or h, up to 24h.
        #[arg(long = "for", value_name = "DURATION", default_value = "30m", value_parser = seconds)]
        time: u64,
        /// How long the file may become: a number with KB, MB or GB, 64KB to 1GB.
        #[arg(long, value_name = "SIZE", default_value = "50MB", value_parser = bytes)]
        max_size: u64,
    },
    /// Print the last lines of the detailed log, also when it is off again.
    Show {
        /// How many lines.
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        lines: usize,
        /// Go on with what is written, until the log ends or Ctrl-C.
        #[arg(long, short)]
        follow: bool,
    },
    /// End the detailed log; what was written stays until the next one begins.
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Level {
    /// What the usual log has.
    Info,
    /// Steps of reading and sending.
    Debug,
    /// Everything.
    Trace,
}

impl From<Level> for Detail {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl LogsCommand {
    pub(super) async fn run(self, client: &Client, json: bool, lang: Lang) -> Result<()> {
        match self {
            Self::On { level, time, max_size } => {
                let order = LogOrder { level: level.into(), seconds: time, max_bytes: max_size };
                let on = client.log_on(&order).await?;
                if json {
                    out::data(json!({ "detailedLog": on }).to_string());
                }
                out::talk(line(&on, lang));
            }
            Self::Show { lines, follow } => {
                let page = client.log_page(LogPart::Last(lines)).await?;
                self::show(&page);
                if follow {
                    self::follow(client, page).await?;
                }
            }
            Self::Off => {
                let was = client.log_off().await?;
                if json {
                    out::data(json!({ "detailedLog": was }).to_string());
                }
                out::talk(match was {
                    Some(was) => lang.pick(
                        format!("off; {} bytes were written", was.bytes),
                        format!("desligado; {} bytes foram escritos", was.bytes),
                    ),
                    None => lang.pick("it was off", "já estava desligado").to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn show(page: &LogPage) {
    let text = page.text.trim_end_matches('\n');
    if !text.is_empty() {
        out::data(text);
    }
}

/// Until the log is off and all of it is shown.
async fn follow(client: &Client, mut page: LogPage) -> Result<()> {
    while page.on.is_some() || !page.text.is_empty() {
        if page.text.is_empty() {
            clock::sleep(FOLLOW).await;
        }
        page = client.log_page(LogPart::From(page.next)).await?;
        show(&page);
    }
    Ok(())
}

/// A detailed log that is on, as status and commands tell it.
pub(super) fn line(on: &LogStatus, lang: Lang) -> String {
    let LogStatus { level, until, bytes, max_bytes } = on;
    let level = level.as_str();
    lang.pick(
        format!("detailed log ({level}) is on until {until}, {bytes} of {max_bytes} bytes"),
        format!("log detalhado ({level}) ligado até {until}, {bytes} de {max_bytes} bytes"),
    )
}

/// `30m` in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600)];
    counted(text, &units).ok_or_else(|| "a number with s, m or h, such as 30m".to_owned())
}

/// `50MB` in bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    counted(text, &units).ok_or_else(|| "a number with KB, MB or GB, such as 50MB".to_owned())
}

fn counted(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, size) = units.iter().find(|(name, _)| unit.trim().eq_ignore_ascii_case(name))?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_with_their_unit_and_never_without() {
        assert_eq!(
            [seconds("90s"), seconds("30m"), seconds("2h")].map(Result::unwrap),
            [90, 1_800, 7_200]
        );
        assert_eq!(
            [bytes("64KB"), bytes("50mb"), bytes("1 GB")].map(Result::unwrap),
            [64_000, 50_000_000, 1_000_000_000]
        );
        for bad in
            ["", "30", "m", "-1m", "1.5h", "30x", "99999999999999999999h", "9999999999999999999h"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_that_is_on_tells_until_when_and_how_much_of_how_much_in_both_languages() {
        let on = LogStatus {
            level: Detail::Debug,
            until: "2026-01-02T03:04:05Z".into(),
            bytes: 12,
            max_bytes: 50_000_000,
        };
        assert_eq!(
            line(&on, Lang::En),
            "detailed log (debug) is on until 2026-01-02T03:04:05Z, 12 of 50000000 bytes"
        );
        assert!(line(&on, Lang::Pt).starts_with("log detalhado (debug) ligado até 2026-01-02"));
    }
}
