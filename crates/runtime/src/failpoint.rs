//! Failpoints: named places where a debug build can be told to fail, to wait or to die (`correctness.md` 4.2, T4f).
//!
//! Promises: where nothing is ordered a place costs one look at a constant; each place that did something says so in
//! the log, by its name.
//! Never: exists in a release build; does anything that was not ordered, by `MALOTE_FAILPOINTS` when the process began
//! or by the simulated world that this thread is in.
//!
//! The variable holds orders with commas between them: `NAME=ACTION@N`. The action is `error` (the place fails once, at
//! its N-th visit), `crash` (the process ends there without a word, as `kill -9` would end it) or `delay:MILLIS`
//! (every visit from the N-th on waits). `@N` may be left out and is 1 then.
//!
//! Names are `room.place`; a place before the work has the work's name, one behind it its past: `cloud.write` fails
//! before the call goes out, `cloud.written` when its answer is there and nothing learned of it yet.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use protocol::{Code, Error, Result};

use crate::{clock, config, world};

/// Environment variable with the orders.
const ORDERS: &str = "MALOTE_FAILPOINTS";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Error,
    Crash,
    Delay(Duration),
}

#[derive(Debug)]
struct Order {
    name: String,
    action: Action,
    from: u64,
    visits: AtomicU64,
}

/// A place in code that blocks (a thread of its own, a transaction). `code` is what an ordered error carries: the one
/// that a real failure of this place would have.
///
/// # Errors
/// The ordered one.
pub fn reach(name: &'static str, code: Code) -> Result<()> {
    if let Some(time) = pause(name, code)? {
        std::thread::sleep(time);
    }
    Ok(())
}

/// As [`reach`], in code that must not block.
///
/// # Errors
/// The ordered one.
pub async fn pass(name: &'static str, code: Code) -> Result<()> {
    if let Some(time) = pause(name, code)? {
        clock::sleep(time).await;
    }
    Ok(())
}

/// Carries out what is ordered for this visit, but for the wait, which is the caller's.
fn pause(name: &'static str, code: Code) -> Result<Option<Duration>> {
    match due(name) {
        None => Ok(None),
        Some(Action::Delay(time)) => Ok(Some(time)),
        Some(Action::Error) => Err(Error::new(code, format!("failpoint {name}"))),
        Some(Action::Crash) => crash(),
    }
}

fn crash() -> ! {
    // No destructor, no flush, no answer: what is not on disk is gone.
    std::process::abort()
}

/// What is ordered for this visit; told where it is something.
fn due(name: &'static str) -> Option<Action> {
    if cfg!(not(debug_assertions)) {
        return None;
    }
    if let Some(world) = world::current() {
        return world.fails(name).then_some(Action::Error);
    }
    static ALL: OnceLock<Vec<Order>> = OnceLock::new();
    let all = ALL.get_or_init(|| parse(&config::variable(ORDERS).unwrap_or_default()));
    let action = all.iter().find(|order| order.name == name)?.visit()?;
    tracing::warn!(failpoint = name, ?action, "as ordered");
    Some(action)
}

impl Order {
    fn visit(&self) -> Option<Action> {
        let visit = self.visits.fetch_add(1, Ordering::Relaxed) + 1;
        let delays = matches!(self.action, Action::Delay(_));
        (visit == self.from || (delays && visit > self.from)).then_some(self.action)
    }
}

/// Orders that make no sense are told and left out: they are a test's own.
fn parse(text: &str) -> Vec<Order> {
    let orders = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    orders
        .filter_map(|word| {
            let order = order(word);
            if order.is_none() {
                tracing::error!(word, "{ORDERS}: not an order, e.g. name=error@2");
            }
            order
        })
        .collect()
}

fn order(word: &str) -> Option<Order> {
    let (name, rest) = word.split_once('=')?;
    let (action, from) = match rest.split_once('@') {
        Some((action, from)) => (action, from.parse().ok()?),
        None => (rest, 1),
    };
    let action = match action.split_once(':') {
        Some(("delay", millis)) => Action::Delay(Duration::from_millis(millis.parse().ok()?)),
        None if action == "error" => Action::Error,
        None if action == "crash" => Action::Crash,
        _ => return None,
    };
    Some(Order { name: name.to_owned(), action, from, visits: AtomicU64::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visits(word: &str, count: usize) -> Vec<bool> {
        let order = order(word).unwrap();
        (0..count).map(|_| order.visit().is_some()).collect()
    }

    #[test]
    fn an_error_comes_once_and_a_delay_from_then_on() {
        assert_eq!(visits("store.commit=error", 3), [true, false, false]);
        assert_eq!(visits("store.commit=crash@2", 3), [false, true, false]);
        assert_eq!(visits("store.commit=delay:5@2", 4), [false, true, true, true]);
    }

    #[test]
    fn what_is_no_order_is_left_out() {
        for word in
            ["", "x", "x=", "x=fail", "x=error@", "x=error@y", "x=delay", "x=delay:", "x=delay:1@"]
        {
            assert!(parse(word).is_empty(), "{word}");
        }
        let all = parse(" a=error , b=delay:20@3,");
        let seen: Vec<_> =
            all.iter().map(|order| (order.name.as_str(), order.action, order.from)).collect();
        assert_eq!(
            seen,
            [("a", Action::Error, 1), ("b", Action::Delay(Duration::from_millis(20)), 3)]
        );
    }

    #[test]
    fn a_place_without_an_order_does_nothing() {
        reach("nowhere.at_all", Code::Internal).unwrap();
    }
}
