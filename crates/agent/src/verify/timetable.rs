//! Timetable: at what time of which days tables are verified by themselves.
//!
//! Promises: a pure function of instant and zone. A time that a clock set forward leaves out runs that much later;
//! one that comes twice runs once.
//! Never: reads a clock.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use protocol::{Code, Coded as _, Error, Result};
use runtime::clock::Wall;

use crate::config::AgentConfig;

/// Days between two runs at most.
const MOST_DAYS: u32 = 366;
/// A spread over more than half a day would no longer be a time of the day.
const MOST_SPREAD: u32 = 12 * 60;

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// Hour and minute; `None` = never by itself.
    at: Option<(i8, i8)>,
    every_days: u32,
    spread: Duration,
    zone: TimeZone,
}

fn wrong(words: String) -> Error {
    Error::new(Code::ConfigInvalid, words)
}

/// `02:00`, or `off`.
fn read(text: &str) -> Result<Option<(i8, i8)>> {
    if text == "off" {
        return Ok(None);
    }
    let number = |text: &str, most: i8| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i8>().ok().filter(|number| digits && *number <= most)
    };
    let read = text
        .split_once(':')
        .and_then(|(hour, minute)| Some((number(hour, 23)?, number(minute, 59)?)));
    read.map(Some).ok_or_else(|| wrong(format!("verify.at is 02:00 or off, not {text:?}")))
}

impl Timetable {
    /// # Errors
    /// `CONFIG_INVALID` with the key that is wrong.
    pub fn of(config: &AgentConfig) -> Result<Self> {
        let (verify, zone) = (&config.verify, &config.capture.zone);
        let zone = match zone {
            Some(name) => TimeZone::get(name)
                .coded(Code::ConfigInvalid, format!("capture.zone: no time zone {name} here"))?,
            None => TimeZone::try_system().unwrap_or(TimeZone::UTC),
        };
        if !(1..=MOST_DAYS).contains(&verify.every_days) {
            return Err(wrong(format!("verify.every_days must be 1 to {MOST_DAYS}")));
        }
        if verify.spread_minutes > MOST_SPREAD {
            return Err(wrong(format!("verify.spread_minutes must be 0 to {MOST_SPREAD}")));
        }
        let spread = Duration::from_secs(u64::from(verify.spread_minutes) * 60);
        Ok(Self { at: read(&verify.at)?, every_days: verify.every_days, spread, zone })
    }

    /// The first run behind a moment. `share` (0 to 1) is where in the spread this agent begins, so that those of many
    /// customers do not all ask the cloud at once.
    #[must_use]
    pub fn next(&self, after: Wall, share: f64) -> Option<Wall> {
        let (hour, minute) = self.at?;
        let after = Timestamp::from_microsecond(after.0).ok()?;
        let late = self.spread.mul_f64(share.clamp(0.0, 1.0));
        let mut date = self.zone.to_datetime(after).date().yesterday().ok()?;
        for _day in 0..MOST_DAYS + 3 {
            if self.is_on(date) {
                let begun = self.zone.to_timestamp(date.at(hour, minute, 0, 0)).ok()?;
                let begun = begun.checked_add(late).ok()?;
                if begun > after {
                    return Some(Wall(begun.as_microsecond()));
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// Days are counted from 1970, so that no run has to be remembered.
    fn is_on(&self, date: jiff::civil::Date) -> bool {
        let first = jiff::civil::date(1970, 1, 1);
        let days = date.since(first).map(|span| i64::from(span.get_days()));
        days.is_ok_and(|days| days.rem_euclid(i64::from(self.every_days)) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Timetable> {
        Timetable::of(&toml::from_str(text).unwrap())
    }

    fn runs(text: &str, from: &str, count: usize, share: f64) -> Vec<String> {
        let timetable = config(text).unwrap();
        let from: Timestamp = from.parse().unwrap();
        let mut at = Wall(from.as_microsecond());
        let mut found = Vec::new();
        while found.len() < count {
            at = timetable.next(at, share).unwrap();
            found.push(at.to_iso());
        }
        found
    }

    #[test]
    fn by_default_a_night_is_a_run_at_two_by_the_clock_on_the_wall_and_no_run_comes_twice() {
        let zone = "[capture]\nzone = 'America/Sao_Paulo'\n";
        assert_eq!(
            runs(zone, "2026-03-01T05:00:00Z", 2, 0.0),
            ["2026-03-02T05:00:00Z", "2026-03-03T05:00:00Z"]
        );
        assert_eq!(runs(zone, "2026-03-01T04:59:59Z", 1, 0.0), ["2026-03-01T05:00:00Z"]);
    }

    #[test]
    fn the_spread_moves_the_begin_also_over_midnight() {
        let text = "verify = { at = '23:50', spread_minutes = 60 }\ncapture = { zone = 'UTC' }";
        assert_eq!(
            runs(text, "2026-03-01T23:55:00Z", 2, 0.5),
            ["2026-03-02T00:20:00Z", "2026-03-03T00:20:00Z"]
        );
    }

    #[test]
    fn a_clock_that_is_set_forward_or_back_makes_neither_none_nor_two() {
        // In Berlin 02:00 to 03:00 does not come on 2026-03-29, and comes twice on 2026-10-25.
        let text =
            "verify = { at = '02:30', spread_minutes = 0 }\ncapture = { zone = 'Europe/Berlin' }";
        assert_eq!(
            runs(text, "2026-03-28T12:00:00Z", 2, 0.0),
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            runs(text, "2026-10-24T12:00:00Z", 2, 0.0),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn every_so_many_days_is_counted_alike_by_every_start() {
        let text = "verify = { every_days = 7, spread_minutes = 0 }\ncapture = { zone = 'UTC' }";
        let week = runs(text, "2026-03-01T12:00:00Z", 2, 0.0);
        assert_eq!(week, ["2026-03-05T02:00:00Z", "2026-03-12T02:00:00Z"]);
        assert_eq!(runs(text, "2026-03-04T12:00:00Z", 1, 0.0), week[..1]);
    }

    #[test]
    fn off_never_runs_and_what_is_no_time_is_refused_by_its_key() {
        let off = config("verify = { at = 'off' }").unwrap();
        assert_eq!(off.next(Wall(0), 0.0), None);
        for (text, key) in [
            ("at = '2:00'", "verify.at"),
            ("at = '24:00'", "verify.at"),
            ("at = '02:60'", "verify.at"),
            ("at = '+2:00'", "verify.at"),
            ("at = ''", "verify.at"),
            ("every_days = 0", "verify.every_days"),
            ("every_days = 367", "verify.every_days"),
            ("spread_minutes = 721", "verify.spread_minutes"),
        ] {
            let refused = config(&format!("verify = {{ {text} }}")).unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid);
            assert!(refused.message.contains(key), "{text}: {refused}");
        }
    }
}
