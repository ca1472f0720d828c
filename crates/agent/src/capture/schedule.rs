//! Schedule: when the next cycle runs and when base loads may be read, by the clock on the wall of a time zone.
//!
//! Promises: pure functions of instant and zone. Where a clock is set forward, what falls into the gap runs once, at its
//! end; where it is set back, a minute that comes twice runs once, unless every hour is meant.
//! Never: reads a clock.

use std::{str::FromStr, time::Duration};

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, DateTime, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};
use protocol::{Code, Coded as _, Error, Result};
use runtime::clock::Wall;

use crate::config::CaptureConfig;

/// A 29th of February comes within eight years, also around 2100.
const DAYS: usize = 366 * 8;
/// Weekly hours open within a week; one more for hours that a gap swallows.
const OPENING_DAYS: usize = 16;
const MINUTES: u16 = 24 * 60;
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// `minute hour day month weekday`, as cron has them; each a bit set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recurrence {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

/// One field: its name, least and greatest number, and words for numbers.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    words: &'static [&'static str],
}

impl Field {
    const MINUTE: Self = Self { name: "minute", least: 0, most: 59, words: &[] };
    const HOUR: Self = Self { name: "hour", least: 0, most: 23, words: &[] };
    const DAY: Self = Self { name: "day", least: 1, most: 31, words: &[] };
    const MONTH: Self = Self { name: "month", least: 1, most: 12, words: &MONTHS };
    const WEEKDAY: Self = Self { name: "weekday", least: 0, most: 7, words: &WEEKDAYS };

    /// Every number.
    const fn all(&self) -> u64 {
        (u64::MAX >> (63 - self.most)) & (u64::MAX << self.least)
    }

    fn wrong(&self, text: &str) -> String {
        let Self { name, least, most, .. } = self;
        format!(
            "{name} {text:?} is none of *, a number from {least} to {most}, a-b, */n, or a list of them"
        )
    }

    fn number(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        let word = self.words.iter().position(|word| *word == lower);
        let word = word.and_then(|at| u32::try_from(at).ok()).map(|at| at + self.least);
        let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        word.or(number).filter(|number| (self.least..=self.most).contains(number))
    }

    fn set(&self, text: &str) -> Result<u64, String> {
        let mut set = 0;
        for part in text.split(',') {
            set |= self.part(part).ok_or_else(|| self.wrong(text))?;
        }
        Ok(set)
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|step| *step > 0)?),
            None => (text, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.least, self.most),
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            // `5/10`: from 5 on.
            None if step > 1 => (self.number(range)?, self.most),
            None => (self.number(range)?, self.number(range)?),
        };
        let numbers = (from..=to).step_by(usize::try_from(step).ok()?);
        let set = numbers.fold(0, |set, number| set | 1 << number);
        (set != 0).then_some(set)
    }
}

impl FromStr for Recurrence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let count = fields.len();
            return Err(format!(
                "a recurrence has 5 fields (minute hour day month weekday), not {count}"
            ));
        };
        let mut weekdays = Field::WEEKDAY.set(weekday)?;
        if weekdays & (1 << 7) != 0 {
            // Sunday is 0 and 7.
            weekdays |= 1;
        }
        Ok(Self {
            minutes: Field::MINUTE.set(minute)?,
            hours: Field::HOUR.set(hour)?,
            days: Field::DAY.set(day)?,
            months: Field::MONTH.set(month)?,
            weekdays: weekdays & 0x7f,
        })
    }
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set & (1 << number) != 0)
}

fn weekday_number(day: Weekday) -> i8 {
    day.to_sunday_zero_offset()
}

/// Instants at which a clock on the wall shows a minute.
enum Shown {
    Once(Timestamp),
    Twice(Timestamp, Timestamp),
    /// It was set forward over it; at this instant it shows the next one.
    Never(Timestamp),
}

fn shown(zone: &TimeZone, minute: DateTime) -> Option<Shown> {
    let at = |offset: jiff::tz::Offset| offset.to_timestamp(minute).ok();
    Some(match zone.to_ambiguous_timestamp(minute).offset() {
        AmbiguousOffset::Unambiguous { offset } => Shown::Once(at(offset)?),
        AmbiguousOffset::Fold { before, after } => Shown::Twice(at(before)?, at(after)?),
        AmbiguousOffset::Gap { before, .. } => {
            // Taken by the offset before, the minute lies at the transition or behind it.
            let behind = at(before)?.checked_add(1.second()).ok()?;
            Shown::Never(zone.preceding(behind).next()?.timestamp())
        }
    })
}

impl Recurrence {
    /// Whether it runs on a date: where day and weekday are both given, either is enough.
    fn is_on(&self, date: Date) -> bool {
        let (day, weekday) =
            (has(self.days, date.day()), has(self.weekdays, weekday_number(date.weekday())));
        let (any_day, any_weekday) = (self.days == Field::DAY.all(), self.weekdays == 0x7f);
        let fits = if any_day || any_weekday { day && weekday } else { day || weekday };
        fits && has(self.months, date.month())
    }

    /// The first run behind an instant; `None` = never (a 30th of February).
    #[must_use]
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = zone.to_datetime(after).date().yesterday().ok()?;
        for _ in 0..DAYS {
            if self.is_on(date)
                && let Some(first) = self.first_of(date, after, zone)
            {
                return Some(first);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn first_of(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let every_hour = self.hours == Field::HOUR.all();
        let mut first: Option<Timestamp> = None;
        for hour in (0..24).filter(|hour| has(self.hours, *hour)) {
            for minute in (0..60).filter(|minute| has(self.minutes, *minute)) {
                let (one, other) = match shown(zone, date.at(hour, minute, 0, 0)) {
                    Some(Shown::Once(at) | Shown::Never(at)) => (at, None),
                    Some(Shown::Twice(at, again)) => (at, every_hour.then_some(again)),
                    None => continue,
                };
                let behind = std::iter::once(one).chain(other).filter(|at| *at > after).min();
                first = first.into_iter().chain(behind).min();
            }
        }
        first
    }
}

/// Hours of the day, perhaps of some weekdays: `19:00-06:00`, `sat,sun 00:00-24:00`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hours {
    weekdays: u64,
    from: u16,
    /// At or below `from`: on the next day.
    to: u16,
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("hours are 19:00-06:00 or sat,sun 00:00-24:00, not {text:?}");
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match parts[..] {
            [hours] => ("*", hours),
            [days, hours] => (days, hours),
            _ => return Err(wrong()),
        };
        let set = Field::WEEKDAY.set(days).map_err(|_| wrong())?;
        let (from, to) = hours.split_once('-').ok_or_else(wrong)?;
        let minute = |text: &str| -> Option<u16> {
            let (hour, minute) = text.split_once(':')?;
            let digits = [hour, minute]
                .iter()
                .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()));
            let minute: u16 = minute.parse().ok().filter(|minute| digits && *minute < 60)?;
            let whole = hour.parse::<u16>().ok()? * 60 + minute;
            (whole <= MINUTES).then_some(whole)
        };
        let from = minute(from).filter(|from| *from < MINUTES).ok_or_else(wrong)?;
        let to = minute(to).ok_or_else(wrong)?;
        Ok(Self { weekdays: (set | u64::from(set >> 7 & 1 == 1)) & 0x7f, from, to })
    }
}

impl Hours {
    fn allow(&self, at: DateTime) -> bool {
        let minute = u16::try_from(i32::from(at.hour()) * 60 + i32::from(at.minute()));
        let minute = minute.unwrap_or_default();
        let today = weekday_number(at.weekday());
        let yesterday = (today + 6) % 7;
        if self.from < self.to {
            return has(self.weekdays, today) && (self.from..self.to).contains(&minute);
        }
        (has(self.weekdays, today) && minute >= self.from)
            || (has(self.weekdays, yesterday) && minute < self.to)
    }
}

/// Whether one of the hours is now.
#[must_use]
pub(super) fn allowed(hours: &[Hours], at: Timestamp, zone: &TimeZone) -> bool {
    let local = zone.to_datetime(at);
    hours.iter().any(|hours| hours.allow(local))
}

/// The first instant from this one on at which they are; `None` = never.
#[must_use]
pub(super) fn opening(hours: &[Hours], at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if allowed(hours, at, zone) {
        return Some(at);
    }
    let mut found: Vec<Timestamp> = Vec::new();
    let mut date = zone.to_datetime(at).date().yesterday().ok()?;
    for _ in 0..OPENING_DAYS {
        for hours in hours {
            let (hour, minute) = (i8::try_from(hours.from / 60), i8::try_from(hours.from % 60));
            let local = date.at(hour.unwrap_or_default(), minute.unwrap_or_default(), 0, 0);
            match shown(zone, local) {
                Some(Shown::Once(at) | Shown::Never(at)) => found.push(at),
                Some(Shown::Twice(at, again)) => found.extend([at, again]),
                None => {}
            }
        }
        date = date.tomorrow().ok()?;
    }
    // A clock that is set may show an open hour again, or at once.
    let last = found.iter().max().copied()?;
    found.extend(zone.following(at).map(|set| set.timestamp()).take_while(|set| *set <= last));
    found.into_iter().filter(|open| *open > at && allowed(hours, *open, zone)).min()
}

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Schedule {
    every: Duration,
    recurrence: Option<Recurrence>,
    hours: Vec<Hours>,
    zone: TimeZone,
}

impl Default for Schedule {
    fn default() -> Self {
        let every = protocol::limits::CYCLE;
        Self { every, recurrence: None, hours: Vec::new(), zone: TimeZone::UTC }
    }
}

impl Schedule {
    /// # Errors
    /// `CONFIG_INVALID` with the key that is wrong.
    pub fn of(config: &CaptureConfig) -> Result<Self> {
        let wrong =
            |key: &str, words: String| Error::new(Code::ConfigInvalid, format!("{key}: {words}"));
        let zone = match &config.zone {
            Some(name) => TimeZone::get(name)
                .coded(Code::ConfigInvalid, format!("capture.zone: no time zone {name} here"))?,
            None => TimeZone::try_system().unwrap_or(TimeZone::UTC),
        };
        let recurrence: Option<Recurrence> = config
            .recurrence
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|words| wrong("capture.recurrence", words))?;
        let hours: Vec<Hours> = config
            .load_hours
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, String>>()
            .map_err(|words| wrong("capture.load_hours", words))?;
        let schedule =
            Self { every: Duration::from_secs(config.cycle_seconds), recurrence, hours, zone };
        if recurrence.is_some_and(|r| r.next(Timestamp::UNIX_EPOCH, &schedule.zone).is_none()) {
            return Err(wrong("capture.recurrence", "there is no such day".to_owned()));
        }
        Ok(schedule)
    }

    /// Cycles run at times of the day, not by a pause.
    #[must_use]
    pub fn recurs(&self) -> bool {
        self.recurrence.is_some()
    }

    /// When the cycle after this moment runs.
    #[must_use]
    pub fn next(&self, now: Wall) -> Wall {
        let pause = i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX);
        let by_pause = Wall(now.0.saturating_add(pause));
        let Some(recurrence) = &self.recurrence else { return by_pause };
        let at = Timestamp::from_microsecond(now.0).ok();
        let next = at.and_then(|at| recurrence.next(at, &self.zone));
        next.map_or(by_pause, |next| Wall(next.as_microsecond()))
    }

    /// When base loads may be read, from this moment on: the moment itself while they may.
    #[must_use]
    pub fn loads_from(&self, now: Wall) -> Option<Wall> {
        if self.hours.is_empty() {
            return Some(now);
        }
        let at = Timestamp::from_microsecond(now.0).ok()?;
        opening(&self.hours, at, &self.zone).map(|open| Wall(open.as_microsecond()))
    }
}

#[cfg(test)]
mod tests;
