use proptest::prelude::*;

use super::*;

const START: Wall = Wall(1_800_000_000_000_000);
const MINUTE: i64 = 60_000_000;

fn at(minutes: i64) -> Wall {
    Wall(START.0 + minutes * MINUTE)
}

/// An alert, driven by what is there in each minute.
#[derive(Default)]
struct Life {
    alert: Option<Standing>,
    told: Vec<(i64, Notice)>,
}

impl Life {
    fn go(&mut self, minutes: std::ops::Range<i64>, there: impl Fn(i64) -> bool) {
        for minute in minutes {
            let (alert, notice) = step(self.alert, there(minute), Pace::default(), at(minute));
            self.alert = alert;
            self.told.extend(notice.map(|notice| (minute, notice)));
        }
    }
}

#[test]
fn what_begins_is_told_once_and_again_after_hours_and_once_when_it_is_over() {
    let mut life = Life::default();
    life.go(0..1_000, |minute| (10..800).contains(&minute));
    assert_eq!(
        life.told,
        [
            (10, Notice::Raised),
            (370, Notice::Again),
            (730, Notice::Again),
            // Gone at 800, and for ten minutes.
            (810, Notice::Resolved),
        ]
    );
}

#[test]
fn what_goes_for_less_than_the_hold_is_neither_resolved_nor_told_again() {
    let mut life = Life::default();
    life.go(0..300, |minute| minute % 10 < 5);
    assert_eq!(life.told, [(0, Notice::Raised)]);
}

#[test]
fn what_comes_back_within_a_day_is_the_same_alert_and_held_for_twice_as_long() {
    let mut life = Life::default();
    life.go(0..200, |minute| minute == 0 || minute == 100);
    assert_eq!(
        life.told,
        [
            (0, Notice::Raised),
            (11, Notice::Resolved),
            (100, Notice::Raised),
            (121, Notice::Resolved)
        ]
    );
    assert_eq!(life.alert.unwrap().returns, 1);
    // A day later it is another one.
    life.go(3_000..3_020, |minute| minute == 3_000);
    assert_eq!(life.alert.unwrap().returns, 0);
    assert_eq!(life.told[4..], [(3_000, Notice::Raised), (3_011, Notice::Resolved)]);
}

#[test]
fn an_acknowledged_alert_is_not_told_again_but_its_end_is() {
    let mut life = Life::default();
    life.go(0..5, |_| true);
    life.alert.as_mut().unwrap().acknowledged = true;
    life.go(5..1_000, |minute| minute < 900);
    assert_eq!(life.told, [(0, Notice::Raised), (910, Notice::Resolved)]);
    // What comes back was not acknowledged.
    life.go(1_000..1_400, |_| true);
    assert_eq!(life.told[2..], [(1_000, Notice::Raised), (1_360, Notice::Again)]);
}

#[test]
fn of_a_silenced_alert_nothing_is_told_until_its_silence_is_over_but_its_end() {
    let mut life = Life::default();
    life.go(0..5, |_| true);
    life.alert.as_mut().unwrap().silenced_until = Some(at(500));
    life.go(5..600, |_| true);
    assert_eq!(life.told, [(0, Notice::Raised), (500, Notice::Again)]);
    // Who was told that it began is told that it is over, and does not wait for the end of the silence.
    life.alert.as_mut().unwrap().silenced_until = Some(at(900));
    life.go(600..1_000, |minute| minute < 700);
    assert_eq!(life.told[2..], [(710, Notice::Resolved)]);
    // Silence goes on over a return; what began in it and ended in it is told to nobody.
    life.alert.as_mut().unwrap().silenced_until = Some(at(1_100));
    life.go(1_000..1_090, |minute| minute < 1_030);
    assert_eq!(life.told.len(), 3);
    life.go(1_090..1_200, |_| true);
    assert_eq!(life.told[3..], [(1_100, Notice::Raised)]);
}

#[test]
fn a_condition_that_flaps_a_thousand_times_tells_few() {
    for (there, gone) in [(1, 1), (1, 9), (5, 11), (1, 30), (60, 60), (1, 200)] {
        let mut life = Life::default();
        let round = there + gone;
        life.go(0..round * 1_000, |minute| minute % round < there);
        let days = usize::try_from(round * 1_000 / 1_440).unwrap() + 1;
        let again = life.told.iter().filter(|(_, notice)| *notice == Notice::Again).count();
        assert!(again <= days * 4, "{there}/{gone}: {again} in {days} days");
        // It is held for 10, 20, 40 … minutes: at the eighth return for longer than a day has.
        let turns = life.told.len() - again;
        assert!(turns <= 16, "{there}/{gone}: {turns} of 1,000 turns were told");
    }
}

proptest! {
    /// Whatever comes and goes when: raised and resolved alternate, nothing is told twice within the pause, and what is
    /// told stays below a bound that does not know how often it flapped.
    #[test]
    fn there_is_no_storm(gaps in prop::collection::vec(1i64..400, 1..200)) {
        let mut life = Life::default();
        let mut from = 0;
        for (turn, gap) in gaps.iter().enumerate() {
            life.go(from..from + gap, |_| turn % 2 == 0);
            from += gap;
        }
        let (mut open, mut last) = (false, i64::MIN / 2);
        for (minute, notice) in &life.told {
            match notice {
                Notice::Raised => {
                    prop_assert!(!open);
                    (open, last) = (true, *minute);
                }
                Notice::Again => {
                    prop_assert!(open && minute - last >= 360, "again after {}", minute - last);
                    last = *minute;
                }
                Notice::Resolved => {
                    prop_assert!(open);
                    open = false;
                }
            }
        }
        let days = usize::try_from(from / 1_440).unwrap() + 1;
        prop_assert!(life.told.len() <= 16 + 4 * days, "{} in {days} days", life.told.len());
    }
}

#[test]
fn words_are_read_as_they_are_written() {
    for rule in Rule::ALL {
        assert_eq!(rule.as_str().parse::<Rule>().unwrap(), rule);
        assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
    }
    assert_eq!("storm".parse::<Rule>().unwrap_err().code, Code::BadRequest);
    for tls in [MailTls::StartTls, MailTls::Tls, MailTls::None] {
        assert_eq!(tls.as_str().parse::<MailTls>().unwrap(), tls);
    }
    for notice in [Notice::Raised, Notice::Again, Notice::Resolved] {
        assert_eq!(Notice::parse(notice.as_str()), Some(notice));
    }
    assert_eq!("pt".parse::<Language>().unwrap(), Language::Pt);
    assert_eq!("de".parse::<Language>().unwrap_err().code, Code::BadRequest);
}
