//! Report: the tables as the server is told of them, and what counts as a change.
//!
//! Promises: a state that people should act on is told at once; what moves all the time, watermark and lag, alone never
//! makes a report; texts and tables are within the contract's limits.
//! Never: reads a clock; tells a row's value (a watermark is a stamp).

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    limits,
    names::TableName,
    proto::fleet::{CaptureMode, TableReport, TableState},
};

use crate::journal::{Parked, Standing, TableStatus};

/// All tables at one moment, by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Picture(Vec<TableReport>);

impl Picture {
    pub(super) fn tables(&self) -> Vec<TableReport> {
        self.0.clone()
    }
}

/// What verification last found of each table.
pub(super) type Standings = BTreeMap<TableName, Standing>;

/// Puts the picture together. What uplink parked counts before what capture last saw.
pub(super) fn picture(
    statuses: Vec<TableStatus>,
    parked: &BTreeMap<TableName, Parked>,
    standing: &Standings,
) -> Picture {
    let tables = statuses.into_iter().take(limits::STREAM_TABLES);
    Picture(tables.map(|status| table(status, parked, standing)).collect())
}

fn table(
    status: TableStatus,
    parked: &BTreeMap<TableName, Parked>,
    standing: &Standings,
) -> TableReport {
    let verified = standing.get(&status.table);
    let refused = parked.get(&status.table).map(|parked| parked.code.to_string());
    // A pause is what keeps a table from being read, also where it is parked as well.
    let paused = status.state == "PAUSED";
    let code = refused.or_else(|| status.parked.map(|(code, _)| code)).filter(|_| !paused);
    let state = match (code.is_some(), status.state.as_str()) {
        (true, _) | (_, "PARKED") => TableState::Parked,
        (_, "BASE_LOAD") => TableState::BaseLoad,
        (_, "STREAMING") => TableState::Streaming,
        (_, "RELOAD") => TableState::Reload,
        (_, "PAUSED") => TableState::Paused,
        _ => TableState::Unspecified,
    };
    let mode = match status.mode.as_str() {
        "TIMESTAMP" => CaptureMode::Timestamp,
        "TRIGGER" => CaptureMode::Trigger,
        "SNAPSHOT_DIFF" => CaptureMode::SnapshotDiff,
        _ => CaptureMode::Unspecified,
    };
    TableReport {
        name: status.table.to_string(),
        state: state.into(),
        mode: mode.into(),
        watermark: cut(status.watermark),
        lag_ms: status.lag_ms.unwrap_or_default(),
        held_by: cut(status.held_by),
        parked_code: cut(code),
        quarantined: status.quarantined,
        degraded: cut(status.degraded),
        differences: verified.map_or(0, |verified| verified.differences),
        verified_at: verified.and_then(|verified| verified.at).map_or(0, |at| at.0),
        unverified: cut(verified.and_then(|verified| verified.unverified.clone())),
    }
}

/// At most as much as a report may hold.
fn cut(text: Option<String>) -> String {
    let mut text = text.unwrap_or_default();
    text.truncate(text.floor_char_boundary(limits::FLEET_TEXT_BYTES));
    text
}

/// Whether the server is told now: it was not told yet, long ago, or something else.
pub(super) fn is_due(told: Option<(&Picture, Duration)>, now: &Picture) -> bool {
    told.is_none_or(|(told, age)| age >= limits::FLEET_REPORT || differ(told, now))
}

fn differ(told: &Picture, now: &Picture) -> bool {
    let standing = |picture: &Picture| {
        let still = |table: &TableReport| TableReport {
            watermark: String::new(),
            lag_ms: 0,
            ..table.clone()
        };
        picture.0.iter().map(still).collect::<Vec<_>>()
    };
    standing(told) != standing(now)
}

#[cfg(test)]
mod tests {
    use protocol::Code;
    use runtime::clock::Wall;

    use super::*;

    fn status(table: &str, state: &str) -> TableStatus {
        serde_json::from_value(serde_json::json!({
            "table": table, "state": state, "mode": "TIMESTAMP", "watermark": "2026-01-05T12:00:00", "lagMs": 1500,
            "heldBy": null, "degraded": null, "parked": null, "rowsSent": 1, "deletesSent": 0, "quarantined": 0,
            "loaded": null,
        }))
        .unwrap()
    }

    fn told(status: TableStatus) -> TableReport {
        picture(vec![status], &BTreeMap::new(), &BTreeMap::new()).0.remove(0)
    }

    #[test]
    fn every_state_and_mode_of_capture_has_its_place() {
        for (word, state) in [
            ("BASE_LOAD", TableState::BaseLoad),
            ("STREAMING", TableState::Streaming),
            ("RELOAD", TableState::Reload),
            ("PAUSED", TableState::Paused),
            ("PARKED", TableState::Parked),
        ] {
            assert_eq!(told(status("FLAN", word)).state(), state, "{word}");
        }
        let other = TableStatus { mode: "SNAPSHOT_DIFF".into(), ..status("FLAN", "STREAMING") };
        assert_eq!(told(other).mode(), CaptureMode::SnapshotDiff);
        let report = told(status("FLAN", "STREAMING"));
        assert_eq!((report.watermark.as_str(), report.lag_ms), ("2026-01-05T12:00:00", 1500));
    }

    #[test]
    fn what_the_server_refuses_is_told_as_parked_before_capture_says_so() {
        let parked =
            Parked { code: Code::PermissionDenied, words: "no".into(), retry: None, schema: None };
        let parked = BTreeMap::from([("flan".parse().unwrap(), parked)]);
        let of =
            |state| picture(vec![status("FLAN", state)], &parked, &BTreeMap::new()).0.remove(0);
        let report = of("STREAMING");
        assert_eq!(
            (report.state(), report.parked_code.as_str()),
            (TableState::Parked, "PERMISSION_DENIED")
        );
        assert_eq!(
            (of("PAUSED").state(), of("PAUSED").parked_code),
            (TableState::Paused, "".into())
        );
    }

    #[test]
    fn a_report_is_due_where_something_stands_otherwise_or_the_time_is_over() {
        let before = picture(vec![status("FLAN", "STREAMING")], &BTreeMap::new(), &BTreeMap::new());
        let due = |change: &dyn Fn(&mut TableStatus), age| {
            let mut status = status("FLAN", "STREAMING");
            change(&mut status);
            let now = picture(vec![status], &BTreeMap::new(), &BTreeMap::new());
            is_due(Some((&before, Duration::from_millis(age))), &now)
        };
        assert!(is_due(None, &before));
        assert!(!due(&|_| {}, 9_999));
        assert!(due(&|_| {}, 10_000));
        let moved = |status: &mut TableStatus| {
            (status.watermark, status.lag_ms) = (Some("2026-01-05T12:00:05".into()), Some(9));
            status.rows_sent = 700;
        };
        assert!(!due(&moved, 0), "a table that follows its ERP is no news");
        assert!(due(&|status| status.state = "PAUSED".into(), 0));
        assert!(due(&|status| status.quarantined = 1, 0));
        assert!(due(&|status| status.degraded = Some("overlap".into()), 0));
        assert!(due(&|status| status.held_by = Some("pid 7".into()), 0));
        assert!(due(&|status| status.table = "TMOV".parse().unwrap(), 0));
        assert!(is_due(Some((&before, Duration::ZERO)), &Picture::default()));
        let unverified = Some("TIMEOUT".to_owned());
        let standing = Standing { differences: 3, at: Some(Wall(7)), unverified };
        let standing = BTreeMap::from([("flan".parse().unwrap(), standing)]);
        let now = picture(vec![status("FLAN", "STREAMING")], &BTreeMap::new(), &standing);
        assert!(is_due(Some((&before, Duration::ZERO)), &now), "a verification found something");
        let told = &now.0[0];
        assert_eq!(
            (told.differences, told.verified_at, told.unverified.as_str()),
            (3, 7, "TIMEOUT")
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = TableStatus { degraded: Some("ç".repeat(400)), ..status("FLAN", "STREAMING") };
        assert_eq!(told(long).degraded.len(), limits::FLEET_TEXT_BYTES);
        let odd = TableStatus {
            held_by: Some(format!("x{}", "ç".repeat(400))),
            ..status("FLAN", "STREAMING")
        };
        assert_eq!(told(odd).held_by.len(), limits::FLEET_TEXT_BYTES - 1);
    }
}
