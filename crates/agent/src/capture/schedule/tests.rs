use proptest::prelude::*;

use super::*;

const ZONES: [&str; 6] = [
    "America/Sao_Paulo",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "UTC",
];

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(recurrence: &str, after: &str, place: &str) -> String {
    let recurrence: Recurrence = recurrence.parse().unwrap();
    recurrence.next(at(after), &zone(place)).unwrap().to_string()
}

#[test]
fn a_recurrence_runs_at_its_minutes_hours_days_months_and_weekdays() {
    let utc = |recurrence: &str| next(recurrence, "2026-03-14T10:07:30Z", "UTC");
    assert_eq!(utc("*/15 * * * *"), "2026-03-14T10:15:00Z");
    assert_eq!(utc("7 10 * * *"), "2026-03-15T10:07:00Z", "this minute has begun");
    assert_eq!(utc("0 8-18/5 * * mon-fri"), "2026-03-16T08:00:00Z");
    assert_eq!(utc("30 2 1 * *"), "2026-04-01T02:30:00Z");
    assert_eq!(utc("0 0 29 feb *"), "2028-02-29T00:00:00Z");
    assert_eq!(utc("0 0 1 * sun"), "2026-03-15T00:00:00Z", "either day or weekday");
    assert_eq!(utc("0 0 * * 7"), utc("0 0 * * 0"));
    assert_eq!(utc("50/5 23 31 12 *"), "2026-12-31T23:50:00Z");
}

#[test]
fn what_falls_into_a_gap_runs_once_at_its_end_and_a_minute_that_comes_twice_runs_once() {
    let berlin = |recurrence: &str, after: &str| next(recurrence, after, "Europe/Berlin");
    // 2026-03-29: 02:00 is set to 03:00, at 01:00Z.
    assert_eq!(berlin("30 2 * * *", "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
    assert_eq!(berlin("30 2 * * *", "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
    // 2026-10-25: 03:00 is set back to 02:00, at 01:00Z.
    assert_eq!(berlin("30 2 * * *", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(berlin("30 2 * * *", "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    assert_eq!(berlin("*/30 * * * *", "2026-10-25T00:30:00Z"), "2026-10-25T01:00:00Z");
    // Samoa had no 30th of December in 2011.
    assert_eq!(
        next("0 12 30 12 *", "2011-12-29T00:00:00Z", "Pacific/Apia"),
        "2011-12-30T10:00:00Z"
    );
}

#[test]
fn what_is_no_recurrence_or_no_hours_is_refused_by_its_key() {
    for bad in [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "x * * * *",
        "+1 * * * *",
        "* * * * * *",
        "1,,2 * * * *",
    ] {
        assert!(bad.parse::<Recurrence>().is_err(), "{bad}");
    }
    for bad in [
        "",
        "19-06",
        "19:00",
        "24:00-06:00",
        "19:00-24:01",
        "19:60-06:00",
        "xyz 19:00-06:00",
        "1:00-2:00",
        "a b c",
    ] {
        assert!(bad.parse::<Hours>().is_err(), "{bad}");
    }
    let refused = |change: fn(&mut CaptureConfig)| {
        let mut config = CaptureConfig::default();
        change(&mut config);
        Schedule::of(&config).unwrap_err().message
    };
    assert!(refused(|c| c.recurrence = Some("x".into())).contains("capture.recurrence"));
    assert!(refused(|c| c.recurrence = Some("0 0 30 2 *".into())).contains("no such day"));
    assert!(refused(|c| c.load_hours = vec!["x".into()]).contains("capture.load_hours"));
    assert!(refused(|c| c.zone = Some("Nowhere/At_All".into())).contains("capture.zone"));
}

#[test]
fn hours_over_midnight_belong_to_the_day_they_begin_on() {
    let hours: Vec<Hours> =
        ["mon-fri 19:00-06:00", "sat,sun 00:00-24:00"].map(|text| text.parse().unwrap()).into();
    let utc = zone("UTC");
    let open = |text: &str| opening(&hours, at(text), &utc).unwrap().to_string();
    // 2026-03-13 is a Friday.
    assert_eq!(open("2026-03-13T18:59:00Z"), "2026-03-13T19:00:00Z");
    assert!(allowed(&hours, at("2026-03-14T05:59:59Z"), &utc));
    assert!(allowed(&hours, at("2026-03-15T23:59:00Z"), &utc), "a Sunday");
    assert!(!allowed(&hours, at("2026-03-16T00:00:00Z"), &utc), "Sunday's hours end at midnight");
    assert_eq!(open("2026-03-16T00:00:00Z"), "2026-03-16T19:00:00Z");
}

#[test]
fn a_schedule_tells_the_next_cycle_and_when_loads_may_begin() {
    let now = Wall(at("2026-03-14T10:00:00Z").as_microsecond());
    let plain = Schedule::of(&CaptureConfig::default()).unwrap();
    assert_eq!((plain.next(now).0 - now.0, plain.loads_from(now)), (5_000_000, Some(now)));
    let config = CaptureConfig {
        recurrence: Some("0 12 * * *".into()),
        load_hours: vec!["22:00-05:00".into()],
        zone: Some("America/Sao_Paulo".into()),
        ..CaptureConfig::default()
    };
    let local = Schedule::of(&config).unwrap();
    assert_eq!(local.next(now).to_iso(), "2026-03-14T15:00:00Z");
    assert_eq!(local.loads_from(now).unwrap().to_iso(), "2026-03-15T01:00:00Z");
}

/// Minute by minute, by nothing but what the clock on the wall shows.
fn slow_next(
    recurrence: &Recurrence,
    after: Timestamp,
    zone: &TimeZone,
    most: i64,
) -> Option<Timestamp> {
    let fits = |local: DateTime| {
        recurrence.is_on(local.date())
            && has(recurrence.hours, local.hour())
            && has(recurrence.minutes, local.minute())
    };
    let every_hour = recurrence.hours == 0xff_ffff;
    let first = after.as_second().div_euclid(60) * 60 + 60;
    (0..most).map(|n| Timestamp::from_second(first + n * 60).unwrap()).find(|at| {
        let local = zone.to_datetime(*at);
        let earlier = |minutes: i64| zone.to_datetime(at.checked_sub(minutes.minutes()).unwrap());
        let again = (1..=180).any(|minutes| earlier(minutes) == local);
        let mut skipped = earlier(1).checked_add(1.minute()).unwrap();
        let mut in_gap = false;
        while skipped < local {
            in_gap |= fits(skipped);
            skipped = skipped.checked_add(1.minute()).unwrap();
        }
        in_gap || (fits(local) && (every_hour || !again))
    })
}

/// Instants within two days of a change of the zone's clock, or anywhere.
fn instants() -> impl Strategy<Value = (Timestamp, TimeZone)> {
    (0..ZONES.len(), 0i64..1_700_000_000, -172_800i64..86_400, any::<bool>()).prop_map(
        |(place, second, off, near)| {
            let zone = zone(ZONES[place]);
            let some = Timestamp::from_second(second).unwrap();
            let set = zone.following(some).next().map(|set| set.timestamp()).filter(|_| near);
            let at = set.unwrap_or(some).as_second() + off;
            (Timestamp::from_second(at.max(86_400 * 3)).unwrap(), zone)
        },
    )
}

fn recurrences() -> impl Strategy<Value = String> {
    let minute = prop_oneof!["\\*", "\\*/(7|15|30)", "[1-5]?[0-9]", "0,[1-5][0-9]"];
    let hour = prop_oneof!["\\*", "[0-4]", "2[0-3]", "\\*/(3|5)", "0-3"];
    let weekday = prop_oneof!["\\*", "[0-6]", "sat,sun"];
    (minute, hour, weekday).prop_map(|(minute, hour, day)| format!("{minute} {hour} * * {day}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_next_run_is_the_one_a_watcher_of_the_clock_would_see((after, zone) in instants(), text in recurrences()) {
        let recurrence: Recurrence = text.parse().unwrap();
        let found = recurrence.next(after, &zone).unwrap();
        prop_assert!(found > after);
        if let Some(slow) = slow_next(&recurrence, after, &zone, 1_700) {
            prop_assert_eq!(found, slow, "{} in {:?}", text, zone);
        } else {
            prop_assert!(found.as_second() - after.as_second() > 1_690 * 60);
        }
    }

    #[test]
    fn hours_open_when_a_watcher_of_the_clock_would_see(
        (start, zone) in instants(),
        windows in proptest::collection::vec((prop_oneof!["\\*", "[0-6]"], 0u16..1_440, 1u16..1_441), 1..3),
    ) {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let hours: Vec<Hours> = windows
            .iter()
            .map(|(days, from, to)| format!("{days} {}-{}", clock(*from), clock(*to)).parse().unwrap())
            .collect();
        let start = Timestamp::from_second(start.as_second().div_euclid(60) * 60).unwrap();
        let found = opening(&hours, start, &zone);
        let slow = (0..60 * 24 * 9i64)
            .map(|n| Timestamp::from_second(start.as_second() + n * 60).unwrap())
            .find(|at| allowed(&hours, *at, &zone));
        match slow {
            Some(slow) => prop_assert_eq!(found, Some(slow)),
            None => prop_assert!(found.is_none_or(|found| found > start)),
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[0-9*/,\\- a-z:]{0,24}") {
        let _ = text.parse::<Recurrence>();
        let _ = text.parse::<Hours>();
    }
}
