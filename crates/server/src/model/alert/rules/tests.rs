use protocol::ids::TenantId;
use uuid::Uuid;

use super::*;

const NOW: Wall = Wall(1_800_000_000_000_000);

fn ago(minutes: i64) -> Wall {
    Wall(NOW.0 - minutes * 60_000_000)
}

fn environment() -> EnvironmentId {
    EnvironmentId(Uuid::from_u128(2))
}

/// A stream at work: a live lease, all complete, all staged.
fn well() -> Facts {
    let tenant = TenantId(Uuid::from_u128(1));
    Facts {
        stream: StreamId { tenant, environment: environment(), erp: "RM".parse().unwrap() },
        had_session: true,
        live_until: Some(Wall(NOW.0 + 20_000_000)),
        absent_since: None,
        undated_absence: false,
        newest: Some(Newest { open: false, complete: true, last_at: ago(600) }),
        complete_at: Some(ago(600)),
        incomplete: (0, None),
        unstaged_since: None,
        quarantined: 0,
        silent_tables: Vec::new(),
        reports: Reports::Never,
        reported: Vec::new(),
        read: Vec::new(),
    }
}

fn rules(facts: &Facts, thresholds: &Thresholds) -> Vec<(Rule, String)> {
    let found = findings(facts, thresholds, NOW).conditions.into_iter();
    found.map(|found| (found.about.rule, found.about.subject)).collect()
}

fn default_rules(facts: &Facts) -> Vec<Rule> {
    rules(facts, &Thresholds::default()).into_iter().map(|(rule, _)| rule).collect()
}

#[test]
fn a_quiet_erp_with_a_live_agent_is_well() {
    assert_eq!(default_rules(&well()), []);
}

#[test]
fn each_thing_that_is_wrong_is_told_from_its_threshold_on() {
    let away = |minutes| Facts { live_until: None, absent_since: Some(ago(minutes)), ..well() };
    assert_eq!(default_rules(&away(4)), []);
    assert_eq!(default_rules(&away(5)), [Rule::AgentDead]);
    assert_eq!(default_rules(&away(61)), [Rule::AgentDead], "freshness follows from it");
    let never = Facts { had_session: false, complete_at: None, newest: None, ..away(500) };
    assert_eq!(default_rules(&never), []);
    let open = |minutes| {
        let newest = Newest { open: true, complete: false, last_at: ago(minutes) };
        Facts { newest: Some(newest), complete_at: Some(ago(minutes)), ..well() }
    };
    assert_eq!(default_rules(&open(0)), []);
    assert_eq!(default_rules(&open(1)), [Rule::BatchStalled]);
    assert_eq!(default_rules(&open(61)), [Rule::BatchStalled, Rule::Freshness]);
    let lost = Facts { incomplete: (1, Some(ago(1))), ..well() };
    assert_eq!(default_rules(&lost), [Rule::BatchIncomplete]);
    let behind = |minutes| Facts { unstaged_since: Some(ago(minutes)), ..well() };
    assert_eq!(default_rules(&behind(14)), []);
    assert_eq!(default_rules(&behind(15)), [Rule::StagingBehind]);
    assert_eq!(default_rules(&Facts { quarantined: 1, ..well() }), [Rule::Quarantine]);
}

#[test]
fn a_sender_without_sessions_may_be_silent_for_a_day() {
    let old = |minutes| Facts {
        had_session: false,
        live_until: None,
        absent_since: Some(ago(10_000)),
        complete_at: Some(ago(minutes)),
        ..well()
    };
    assert_eq!(default_rules(&old(1_439)), []);
    assert_eq!(default_rules(&old(1_440)), [Rule::Freshness]);
}

#[test]
fn what_was_reported_is_told_by_the_threshold_of_its_table() {
    let told = |rule, subject: &str, amount, since| Reported {
        rule,
        subject: subject.into(),
        amount,
        code: Some("SOURCE_RIGHTS".into()),
        since,
    };
    let reported = vec![
        told(Rule::TableParked, "FLAN", 1, ago(6)),
        told(Rule::TableParked, "TMOV", 1, ago(4)),
        told(Rule::Differences, "FLAN", 9, ago(0)),
    ];
    let facts = Facts { reported, reports: Reports::Current, ..well() };
    let wanted = [(Rule::TableParked, "FLAN".to_owned()), (Rule::Differences, "FLAN".into())];
    assert_eq!(rules(&facts, &Thresholds::default()), wanted);
    let of = |rule, table: Option<&str>, value| Threshold {
        rule,
        environment: Some(environment()),
        table: table.map(str::to_owned),
        value,
    };
    let set = vec![
        of(Rule::TableParked, None, 0),
        of(Rule::TableParked, Some("TMOV"), 2),
        of(Rule::Differences, Some("FLAN"), 10),
    ];
    assert_eq!(rules(&facts, &Thresholds(set)), [(Rule::TableParked, "TMOV".to_owned())]);
}

#[test]
fn the_narrowest_threshold_counts_and_nought_switches_a_rule_off() {
    let of = |environment, table: Option<&str>, value| Threshold {
        rule: Rule::Freshness,
        environment,
        table: table.map(str::to_owned),
        value,
    };
    let other = Some(EnvironmentId(Uuid::from_u128(9)));
    let all = Thresholds(vec![
        of(None, None, 10),
        of(Some(environment()), None, 20),
        of(other, None, 30),
        of(None, Some("FLAN"), 40),
        of(other, Some("TMOV"), 50),
    ]);
    let set = |table| all.set(Rule::Freshness, environment(), table);
    assert_eq!((set(None), set(Some("FLAN")), set(Some("TMOV"))), (Some(20), Some(40), Some(20)));
    assert_eq!(all.fresh_tables(environment()), [("FLAN".to_owned(), 40)]);
    let away = Facts { complete_at: Some(ago(500)), live_until: None, ..well() };
    assert_eq!(rules(&away, &Thresholds(vec![of(None, None, 0)])), []);
    assert!(of(None, Some("FLAN"), 1).check().is_ok());
    // Rows in quarantine are counted for the stream, so a table's threshold would count for nothing.
    let quarantine = Threshold { rule: Rule::Quarantine, ..of(None, Some("FLAN"), 1) };
    assert_eq!(quarantine.check().unwrap_err().code, Code::BadRequest);
    let wrong = Threshold { rule: Rule::AgentDead, ..of(None, Some("FLAN"), 1) };
    assert_eq!(wrong.check().unwrap_err().code, Code::BadRequest);
}

#[test]
fn a_disk_is_told_below_its_threshold_where_it_can_be_read() {
    let mib = 1_048_576;
    assert_eq!(of_server(None, 1_024), []);
    assert_eq!(of_server(Some(1_024 * mib), 1_024), []);
    let low = of_server(Some(1_000 * mib), 1_024);
    assert_eq!((low[0].about.rule, low[0].measure.amount), (Rule::Disk, 960));
}

/// A stream whose tables were read so many minutes ago; those named in lower case are paused.
fn reads(tables: &[(&str, i64)]) -> Facts {
    let read = |(table, minutes): &(&str, i64)| Read {
        table: table.to_uppercase(),
        fresh: ago(*minutes),
        undated: false,
        paused: table.chars().all(char::is_lowercase),
    };
    Facts { reports: Reports::Current, read: tables.iter().map(read).collect(), ..well() }
}

fn freshness(facts: &Facts, thresholds: &Thresholds) -> Vec<(String, i64, Option<String>)> {
    let found = findings(facts, thresholds, NOW).conditions.into_iter();
    let told = |found: Condition| (found.about.subject, found.measure.amount, found.measure.code);
    found.filter(|found| found.about.rule == Rule::Freshness).map(told).collect()
}

#[test]
fn an_agent_that_is_alive_and_does_not_read_is_told_by_the_worst_of_its_tables() {
    let none = Thresholds::default();
    assert_eq!(freshness(&reads(&[("FLAN", 59), ("TMOV", 1)]), &none), []);
    let told = |amount, code: Option<&str>| (String::new(), amount, code.map(str::to_owned));
    assert_eq!(freshness(&reads(&[("FLAN", 60), ("TMOV", 1)]), &none), [told(1, None)]);
    let stale = reads(&[("FLAN", 70), ("TMOV", 90), ("GUSUARIO", 1)]);
    let found = findings(&stale, &none, NOW).conditions.remove(0);
    assert_eq!((found.measure.amount, found.measure.since), (2, Some(ago(90))));
    // A pause that was forgotten is told as such; beside one that hangs it is one of two.
    assert_eq!(freshness(&reads(&[("flan", 60)]), &none), [told(1, Some("PAUSED"))]);
    assert_eq!(freshness(&reads(&[("flan", 60), ("TMOV", 60)]), &none), [told(2, None)]);
    // What was read while nobody held the lease, or by one that does not report, says nothing of now.
    let renewed = Facts { reports: Reports::Never, ..reads(&[("FLAN", 600)]) };
    assert_eq!(freshness(&renewed, &none), []);
}

#[test]
fn a_table_with_a_threshold_of_its_own_is_told_by_itself() {
    let of = |table: Option<&str>, value| Threshold {
        rule: Rule::Freshness,
        environment: None,
        table: table.map(str::to_owned),
        value,
    };
    let set = Thresholds(vec![of(Some("flan"), 30), of(Some("tmov"), 0), of(None, 240)]);
    let facts = reads(&[("FLAN", 31), ("TMOV", 900), ("GUSUARIO", 200)]);
    assert_eq!(freshness(&facts, &set), [("FLAN".to_owned(), 30, None)]);
    let both = reads(&[("flan", 31), ("TMOV", 900), ("GUSUARIO", 240)]);
    let paused = ("FLAN".to_owned(), 30, Some("PAUSED".to_owned()));
    assert_eq!(freshness(&both, &set), [paused, (String::new(), 1, None)]);
    let silent = Facts { silent_tables: vec![("FLAN".into(), 30)], ..well() };
    assert_eq!(freshness(&silent, &set), [("FLAN".to_owned(), 30, None)]);
}

#[test]
fn of_a_dead_agent_that_alone_is_told_and_what_it_reported_stays_as_it_is() {
    let parked = Reported {
        rule: Rule::TableParked,
        subject: "FLAN".into(),
        amount: 1,
        code: None,
        since: ago(60),
    };
    let of = |reports, minutes: Option<i64>| Facts {
        live_until: well().live_until.filter(|_| minutes.is_none()),
        absent_since: minutes.map(ago),
        reports,
        reported: vec![parked.clone()],
        ..well()
    };
    let judged = |facts: &Facts| {
        let found = findings(facts, &Thresholds::default(), NOW);
        let about = |rule| About {
            environment: Some(environment()),
            erp: Some("RM".into()),
            rule,
            subject: "FLAN".into(),
            code: None,
        };
        let kept = [Rule::Differences, Rule::Freshness, Rule::TableParked, Rule::Quarantine];
        let kept = kept.map(|rule| found.is_unknown(&about(rule)));
        (found.conditions.iter().map(|found| found.about.rule).collect::<Vec<_>>(), kept)
    };
    let none = [false; 4];
    assert_eq!(judged(&of(Reports::Current, None)), (vec![Rule::TableParked], none));
    assert_eq!(judged(&of(Reports::Past, Some(4))), (vec![Rule::TableParked], none));
    let kept = [true, true, true, false];
    assert_eq!(judged(&of(Reports::Past, Some(5))), (vec![Rule::AgentDead], kept));
    // It is back and has not reported yet; or another one sends, which never reports.
    let kept = [true, false, true, false];
    assert_eq!(judged(&of(Reports::Awaited, None)), (vec![], kept));
    assert_eq!(judged(&of(Reports::Never, None)), (vec![], none));
}

#[test]
fn reports_count_from_the_first_one_after_the_grant_on() {
    let of = |live, granted: Option<i64>, reported: Option<i64>| {
        Reports::of(live, (granted.map(ago), reported.map(ago)), NOW)
    };
    assert_eq!(of(false, Some(9), Some(1)), Reports::Past);
    assert_eq!(of(true, Some(9), Some(1)), Reports::Current);
    assert_eq!(of(true, Some(9), Some(9)), Reports::Current);
    assert_eq!(of(true, Some(0), Some(9)), Reports::Awaited, "that was under another grant");
    assert_eq!(of(true, Some(9), Some(10)), Reports::Never);
    assert_eq!(of(true, Some(0), None), Reports::Awaited);
    assert_eq!(of(true, Some(1), None), Reports::Never);
    assert_eq!(of(true, None, None), Reports::Never);
}
