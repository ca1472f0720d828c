//! Findings: all that a look found of a tenant, and of what it could find nothing.
//!
//! Promises: tables of one stream that are parked by one code are told one by one up to a few, and together above; what is
//! told in one of the two ways goes on in it until it is over, so that a number that goes up and down is no news; of what
//! nothing is known alerts stay as they are.
//! Never: reads a clock or a store.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::EnvironmentId;

use super::{About, Condition, Measure, Rule};
use crate::model::stream::StreamId;

/// So many tables that are parked by one code are told one by one.
const ONE_BY_ONE: usize = 3;

/// What a look found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    pub conditions: Vec<Condition>,
    unknown: BTreeSet<Unknown>,
}

/// A stream, and the rule that cannot say anything of it; `None`: none can.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Unknown {
    environment: EnvironmentId,
    erp: String,
    rule: Option<Rule>,
}

impl From<Vec<Condition>> for Findings {
    fn from(conditions: Vec<Condition>) -> Self {
        Self { conditions, unknown: BTreeSet::new() }
    }
}

impl Findings {
    /// Notes that nothing is known of a stream by that rule, or by any.
    pub fn note_unknown(&mut self, stream: &StreamId, rule: Option<Rule>) {
        let (environment, erp) = (stream.environment, stream.erp.to_string());
        self.unknown.insert(Unknown { environment, erp, rule });
    }

    /// Takes over what was found of another stream.
    pub fn add(&mut self, other: Self) {
        self.conditions.extend(other.conditions);
        self.unknown.extend(other.unknown);
    }

    /// Whether nothing is known of it: an alert of it stays as it is.
    #[must_use]
    pub fn is_unknown(&self, about: &About) -> bool {
        let Some((environment, erp)) = about.environment.zip(about.erp.as_ref()) else {
            return false;
        };
        [None, Some(about.rule)].into_iter().any(|rule| {
            let unknown = Unknown { environment, erp: erp.clone(), rule };
            self.unknown.contains(&unknown)
        })
    }

    /// Puts parked tables together where they are many, or were so until now. `is_open` tells whether there is an open
    /// alert of that: a table that has one of its own keeps it.
    #[must_use]
    pub fn gathered(&self, is_open: impl Fn(&About) -> bool) -> Vec<Condition> {
        let mut all = Vec::with_capacity(self.conditions.len());
        let mut parked: BTreeMap<About, Vec<&Condition>> = BTreeMap::new();
        for found in &self.conditions {
            if found.about.rule == Rule::TableParked {
                parked.entry(together(found)).or_default().push(found);
            } else {
                all.push(found.clone());
            }
        }
        for (about, tables) in parked {
            let (own, rest): (Vec<_>, Vec<_>) =
                tables.iter().copied().partition(|table| is_open(&table.about));
            all.extend(own.into_iter().cloned());
            if tables.len() <= ONE_BY_ONE && !is_open(&about) {
                all.extend(rest.into_iter().cloned());
            } else if !rest.is_empty() {
                let amount = i64::try_from(tables.len()).unwrap_or(i64::MAX);
                let since = rest.iter().filter_map(|table| table.measure.since).min();
                let measure = Measure { amount, since, code: about.code.clone() };
                all.push(Condition { about, measure });
            }
        }
        all
    }
}

/// What all tables of that stream are told as that are parked by the same code.
fn together(found: &Condition) -> About {
    About { subject: String::new(), code: found.measure.code.clone(), ..found.about.clone() }
}

#[cfg(test)]
mod tests {
    use protocol::ids::TenantId;
    use runtime::clock::Wall;
    use uuid::Uuid;

    use super::*;

    fn stream(erp: &str) -> StreamId {
        StreamId {
            tenant: TenantId(Uuid::from_u128(1)),
            environment: EnvironmentId(Uuid::from_u128(2)),
            erp: erp.parse().unwrap(),
        }
    }

    fn parked(table: usize, code: &str) -> Condition {
        let stream = stream("RM");
        let about = About {
            environment: Some(stream.environment),
            erp: Some("RM".into()),
            rule: Rule::TableParked,
            subject: format!("T{table}"),
            code: None,
        };
        let since = Some(Wall(100 - i64::try_from(table).unwrap()));
        Condition { about, measure: Measure { amount: 1, since, code: Some(code.into()) } }
    }

    /// What is told of these, given what is open: tables, and codes that are told together with how many.
    fn told(conditions: Vec<Condition>, open: &[About]) -> Vec<(String, i64)> {
        let gathered = Findings::from(conditions).gathered(|about| open.contains(about));
        let word = |found: &Condition| match found.about.code.clone() {
            Some(code) => (code, found.measure.amount),
            None => (found.about.subject.clone(), 1),
        };
        gathered.iter().map(word).collect()
    }

    fn alone(table: usize) -> (String, i64) {
        (format!("T{table}"), 1)
    }

    #[test]
    fn an_erp_that_is_down_is_one_alert_and_a_few_tables_are_told_by_name() {
        let down = |count: usize| (0..count).map(|table| parked(table, "DOWN")).collect::<Vec<_>>();
        assert_eq!(told(down(3), &[]), [alone(0), alone(1), alone(2)]);
        assert_eq!(told(down(4), &[]), [("DOWN".to_owned(), 4)]);
        assert_eq!(told(down(2_000), &[]), [("DOWN".to_owned(), 2_000)]);
        let mixed = [down(4), vec![parked(9, "RIGHTS")]].concat();
        assert_eq!(told(mixed, &[]), [("DOWN".to_owned(), 4), alone(9)]);
        let gathered = Findings::from(down(4)).gathered(|_| false);
        assert_eq!(gathered[0].about.subject, "");
        assert_eq!(gathered[0].measure.since, Some(Wall(97)), "since the first of them");
    }

    #[test]
    fn what_is_told_one_way_goes_on_in_it_so_that_the_passage_is_one_notice() {
        let down = |tables: &[usize]| tables.iter().map(|table| parked(*table, "DOWN")).collect();
        // Two are told by name; eight more come: one alert for those.
        let own: Vec<About> = [0, 1].iter().map(|table| parked(*table, "DOWN").about).collect();
        let all: Vec<usize> = (0..10).collect();
        let group = ("DOWN".to_owned(), 10);
        assert_eq!(told(down(&all), &own), [alone(0), alone(1), group]);
        // All but two of these are read again: still the same alerts.
        let open = [own, vec![together(&parked(0, "DOWN"))]].concat();
        assert_eq!(told(down(&[0, 5]), &open), [alone(0), ("DOWN".to_owned(), 2)]);
        assert_eq!(told(down(&[0]), &open), [alone(0)], "what was told together is over");
    }

    #[test]
    fn of_what_nothing_is_known_is_told_by_stream_and_rule() {
        let mut findings = Findings::default();
        findings.note_unknown(&stream("RM"), Some(Rule::TableParked));
        findings.note_unknown(&stream("LOGIX"), None);
        let about =
            |erp: &str, rule| About { erp: Some(erp.into()), rule, ..parked(1, "DOWN").about };
        assert!(findings.is_unknown(&about("RM", Rule::TableParked)));
        assert!(!findings.is_unknown(&about("RM", Rule::Quarantine)));
        assert!(findings.is_unknown(&about("LOGIX", Rule::Quarantine)));
        assert!(!findings.is_unknown(&about("DATASUL", Rule::TableParked)));
        let own = About { environment: None, erp: None, ..about("RM", Rule::Disk) };
        assert!(!findings.is_unknown(&own));
    }
}
