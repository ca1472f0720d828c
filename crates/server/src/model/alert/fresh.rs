//! Fresh: up to when a table was read, as the reports of its agent tell it.
//!
//! An agent reports the picture that its capture drew last, again and again, whether or not capture drew another one. So a
//! picture that stays the same to the millisecond of its lag is not drawn any more, and the table is as old as its first
//! telling. Nor does a long lag alone say that nothing was read: it is the age of the bound below which everything was
//! committed, and that stands still where the ERP writes nothing (SQLite read alone), and where a session of the ERP is
//! open for hours, while all that was committed is read.
//!
//! Promises: a quiet ERP never makes a table old; a capture that is hung, and a table that is paused, do.
//! Never: reads a clock or a store; judges.

use runtime::clock::Wall;

use crate::model::fleet::{Doing, lag_by_now};

/// A table as its agent reported it last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// As it is shared.
    pub table: String,
    pub state: Doing,
    /// Since when it is reported in this state.
    pub since: Wall,
    pub watermark: String,
    /// 0: it is not known.
    pub lag_ms: i64,
    /// The bound is a window of time, which is as long as it is however much was read.
    pub degraded: bool,
    pub reported_at: Wall,
}

/// What is remembered of a table from one look to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    watermark: String,
    lag_ms: i64,
    /// When this picture was reported first.
    drawn: Wall,
    /// The watermark was another one in the picture before.
    moves: bool,
    /// Another picture was there before this one, so that somebody draws them.
    follows: bool,
}

impl Mark {
    /// What is remembered from here on.
    #[must_use]
    pub fn after(before: Option<&Self>, seen: &Seen) -> Self {
        // Without a lag and a watermark one picture cannot be told from the next.
        let tells = seen.lag_ms > 0 || !seen.watermark.is_empty();
        let same = |mark: &&Self| {
            (mark.lag_ms, &mark.watermark) == (seen.lag_ms, &seen.watermark) && tells
        };
        if let Some(mark) = before.filter(same) {
            return mark.clone();
        }
        Self {
            watermark: seen.watermark.clone(),
            lag_ms: seen.lag_ms,
            drawn: seen.reported_at,
            moves: before.is_some_and(|mark| mark.watermark != seen.watermark),
            follows: before.is_some(),
        }
    }

    /// Whether it is known when the picture was drawn. The first one that is looked at may be any age: who begins to look
    /// anew sees what a capture that hung long ago left behind.
    #[must_use]
    pub const fn is_dated(&self, seen: &Seen) -> bool {
        self.follows || matches!(seen.state, Doing::Paused)
    }

    /// Up to when the table was read; `None` where that is not known, or another rule tells that it is not read.
    #[must_use]
    pub fn fresh(&self, seen: &Seen, now: Wall) -> Option<Wall> {
        match seen.state {
            Doing::Parked | Doing::Unknown => None,
            Doing::Paused => Some(seen.since),
            Doing::BaseLoad | Doing::Reload => Some(self.drawn),
            Doing::Streaming => {
                // Everything up to the picture was read, whatever the age of the bound.
                let bound_alone = seen.degraded || !(self.moves || seen.watermark.is_empty());
                if bound_alone || seen.lag_ms == 0 {
                    return Some(self.drawn);
                }
                let lag = lag_by_now(seen.lag_ms, self.drawn, now).saturating_mul(1_000);
                Some(Wall(now.0.saturating_sub(lag)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn at(minutes: i64) -> Wall {
        Wall(1_800_000_000_000_000 + minutes * MINUTE)
    }

    fn seen(state: Doing, watermark: &str, lag_minutes: i64, minutes: i64) -> Seen {
        Seen {
            table: "FLAN".into(),
            state,
            since: at(0),
            watermark: watermark.into(),
            lag_ms: lag_minutes * MINUTE / 1_000,
            degraded: false,
            reported_at: at(minutes),
        }
    }

    /// Up to which minute the table was read, by looks at these reports, one after another.
    fn fresh(reports: &[Seen]) -> Option<i64> {
        let mut mark: Option<Mark> = None;
        for report in reports {
            mark = Some(Mark::after(mark.as_ref(), report));
        }
        let (mark, last) = (mark?, reports.last()?);
        let fresh = mark.fresh(last, last.reported_at)?;
        Some((fresh.0 - at(0).0) / MINUTE)
    }

    #[test]
    fn a_table_that_follows_is_as_fresh_as_its_lag_and_one_that_catches_up_is_old() {
        let on = |mark: &str, lag, minutes| seen(Doing::Streaming, mark, lag, minutes);
        assert_eq!(fresh(&[on("a", 1, 10), on("b", 1, 20)]), Some(19));
        assert_eq!(fresh(&[on("a", 500, 10), on("b", 480, 20)]), Some(-460));
        // Without a stamp the lag is the time since it was last read whole.
        assert_eq!(fresh(&[on("", 70, 100)]), Some(30));
    }

    #[test]
    fn a_quiet_erp_is_fresh_however_old_its_bound() {
        let on = |lag, minutes| seen(Doing::Streaming, "a", lag, minutes);
        assert_eq!(fresh(&[on(480, 500)]), Some(500), "one look alone does not say that it moves");
        assert_eq!(fresh(&[on(480, 500), on(490, 510), on(500, 520)]), Some(520));
        let wide = |mark: &str, minutes| Seen {
            degraded: true,
            ..seen(Doing::Streaming, mark, 90, minutes)
        };
        assert_eq!(fresh(&[wide("a", 500), wide("b", 501)]), Some(501), "a window of overlap");
        let unknown = |minutes| seen(Doing::Streaming, "", 0, minutes);
        assert_eq!(
            fresh(&[unknown(500), unknown(600)]),
            Some(600),
            "not read whole for the first time"
        );
    }

    #[test]
    fn a_picture_that_is_not_drawn_any_more_grows_old_though_it_is_reported() {
        let hung = |state, mark: &str, minutes| seen(state, mark, 1, minutes);
        for state in [Doing::Streaming, Doing::BaseLoad, Doing::Reload] {
            let reports: Vec<Seen> =
                (0..100).map(|minute| hung(state, "a", 100 + minute)).collect();
            assert_eq!(fresh(&reports), Some(100), "{state:?}");
        }
        // It moved before it hung: its lag counts from then on.
        let reports = [hung(Doing::Streaming, "a", 10), hung(Doing::Streaming, "b", 11)];
        let on = [reports[0].clone(), reports[1].clone(), hung(Doing::Streaming, "b", 90)];
        assert_eq!(fresh(&on), Some(10));
        // The ERP's clock is ahead: no lag at all, but the watermark stands under a picture that stays the same.
        let ahead = |minutes| seen(Doing::Streaming, "a", 0, minutes);
        assert_eq!(fresh(&[ahead(10), ahead(90)]), Some(10));
    }

    #[test]
    fn the_first_picture_may_be_any_age_until_another_follows() {
        let on = |lag, minutes| seen(Doing::Streaming, "a", lag, minutes);
        let first = Mark::after(None, &on(1, 10));
        assert!(!first.is_dated(&on(1, 10)));
        let same = Mark::after(Some(&first), &on(1, 11));
        assert!(!same.is_dated(&on(1, 11)), "told again, not drawn again");
        assert!(Mark::after(Some(&same), &on(2, 12)).is_dated(&on(2, 12)));
        let paused = seen(Doing::Paused, "a", 1, 10);
        assert!(Mark::after(None, &paused).is_dated(&paused), "its pause is kept with it");
    }

    #[test]
    fn a_paused_table_is_as_old_as_its_pause_and_of_a_parked_one_another_rule_tells() {
        assert_eq!(fresh(&[seen(Doing::Paused, "a", 400, 100)]), Some(0));
        assert_eq!(fresh(&[seen(Doing::Parked, "a", 400, 100)]), None);
        assert_eq!(fresh(&[seen(Doing::Unknown, "a", 400, 100)]), None);
    }
}
