//! Session: who may send a stream, and under which epoch.
//!
//! Promises: epochs rise; one live holder; two copies of one instance stop each other until the lease lapses, and for good
//! once each was heard again and again after the other.
//! Never: forgets the identity of the database it was opened for.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Code;

const SECOND: i64 = 1_000_000;
const TTL: i64 = 30 * SECOND;
/// For how long after another one followed it a nonce may be one of a dead process whose calls come late.
const LATE: i64 = 150 * SECOND;
/// Times that each of two has to come back after another.
const RETURNS: usize = 4;
/// Times that one has to come back after whichever others.
const ALONE: usize = 12;
/// The latest nonces of an instance, which alone are remembered.
const REMEMBERED: usize = 8;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    pub instance: u8,
    pub nonce: u8,
    /// Facts of the database, as one text.
    pub facts: String,
    /// Log position; 0 = the database has none.
    pub position: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opening {
    Granted(u64),
    Held,
    Refused(Code),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub epoch: u64,
    pub cursors: BTreeMap<String, Vec<u8>>,
    pub last_batch: i64,
}

/// The lease of one stream.
#[derive(Clone, Default, Debug)]
pub struct Lease {
    pub epoch: u64,
    holder: Option<Holder>,
    /// Facts and position of the last grant.
    database: Option<(String, u64)>,
    /// The database that was refused last, for a person to accept.
    offered: Option<(String, u64)>,
    /// Nonces of each instance as they were heard in turns, the last one last, and since when.
    turns: BTreeMap<u8, Vec<(u8, i64)>>,
}

#[derive(Clone, Debug)]
struct Holder {
    instance: u8,
    nonce: u8,
    /// Nonces that a later one replaced.
    former: BTreeSet<u8>,
    until: i64,
    /// Two copies of one data folder were seen: both are refused until the lease lapses.
    twice: bool,
}

impl Lease {
    fn live(&self, now: i64) -> Option<&Holder> {
        self.holder.as_ref().filter(|holder| now < holder.until)
    }

    /// The fence of Write and Summary.
    ///
    /// # Errors
    /// `FENCED`, or `EPOCH_REQUIRED` where a lease is live and the call names no epoch.
    pub fn admit(&self, now: i64, epoch: Option<u64>) -> Result<(), Code> {
        match epoch {
            Some(epoch) if epoch == self.epoch => Ok(()),
            Some(_) => Err(Code::Fenced),
            None if self.live(now).is_some() => Err(Code::EpochRequired),
            None => Ok(()),
        }
    }

    /// The fence of Prepare: the lease must be live.
    ///
    /// # Errors
    /// `FENCED`.
    pub fn live_epoch(&self, now: i64, epoch: u64) -> Result<(), Code> {
        if self.epoch == epoch && self.live(now).is_some() { Ok(()) } else { Err(Code::Fenced) }
    }

    /// Another database is refused before anything else: a clone must not stop the original.
    pub fn open(&mut self, now: i64, sender: &Sender) -> Opening {
        let database = (sender.facts.clone(), sender.position);
        if self.database.as_ref().is_some_and(|seen| seen.0 != database.0 || database.1 < seen.1) {
            self.offered = Some(database);
            return Opening::Refused(Code::DatabaseChanged);
        }
        let twins = self.hear(now, sender.instance, sender.nonce);
        if let Some(holder) = self.holder.as_mut().filter(|holder| now < holder.until) {
            // Written before the clock stepped back: nobody is kept out for longer than a lease lives.
            holder.until = holder.until.min(now + TTL);
            if holder.instance != sender.instance {
                return Opening::Held;
            }
            if holder.twice || holder.nonce != sender.nonce {
                holder.twice = true;
                return Opening::Refused(Code::InstanceTwice);
            }
        }
        // One that was replaced and lives after all learns of the other, once.
        let lapsed = self.holder.as_mut().filter(|holder| holder.instance == sender.instance);
        let replaced = lapsed.is_some_and(|holder| holder.former.remove(&sender.nonce));
        if twins || replaced {
            return Opening::Refused(Code::InstanceTwice);
        }
        self.epoch += 1;
        self.database = Some(database);
        self.offered = None;
        let (instance, nonce, until) = (sender.instance, sender.nonce, now + TTL);
        self.holder =
            Some(Holder { instance, nonce, former: BTreeSet::new(), until, twice: false });
        Opening::Granted(self.epoch)
    }

    /// Notes who was heard; gives whether two processes live that are both this instance.
    fn hear(&mut self, now: i64, instance: u8, nonce: u8) -> bool {
        let turns = self.turns.entry(instance).or_default();
        if turns.last().is_none_or(|(last, _)| *last != nonce) && !is_late(turns, nonce, now) {
            turns.push((nonce, now));
        }
        // Whoever is not among the latest few is forgotten, with all his turns.
        let mut latest: Vec<u8> = Vec::new();
        for (nonce, _) in turns.iter().rev() {
            if !latest.contains(nonce) {
                latest.push(*nonce);
            }
        }
        latest.truncate(REMEMBERED);
        turns.retain(|(nonce, _)| latest.contains(nonce));
        let back = |nonce: &u8| turns.iter().filter(|(turn, _)| turn == nonce).count() - 1;
        let returns: Vec<usize> = latest.iter().map(back).collect();
        returns.iter().filter(|back| **back >= RETURNS).count() > 1
            || returns.iter().any(|back| *back >= ALONE)
    }

    /// A person takes the database that was refused last for the stream's own.
    ///
    /// # Errors
    /// `NOT_FOUND` where none waits.
    pub fn accept_database(&mut self) -> Result<(), Code> {
        self.database = Some(self.offered.take().ok_or(Code::NotFound)?);
        Ok(())
    }

    /// # Errors
    /// `FENCED` where the epoch is not the live one, `INSTANCE_TWICE` for a nonce that was replaced.
    pub fn renew(&mut self, now: i64, epoch: u64, nonce: u8) -> Result<(), Code> {
        let of = self.holder.as_ref().filter(|_| self.epoch == epoch).map(|holder| holder.instance);
        let twins = of.is_some_and(|instance| self.hear(now, instance, nonce));
        self.live_epoch(now, epoch)?;
        let holder = self.holder.as_mut().ok_or(Code::Fenced)?;
        if holder.twice || holder.former.contains(&nonce) {
            holder.twice = true;
            return Err(Code::InstanceTwice);
        }
        if twins {
            return Err(Code::InstanceTwice);
        }
        if holder.nonce != nonce {
            holder.former.insert(holder.nonce);
            holder.nonce = nonce;
        }
        holder.until = now + TTL;
        Ok(())
    }

    /// Ends the lease; the same release again is answered alike.
    ///
    /// # Errors
    /// `FENCED` for an older epoch.
    pub fn release(&mut self, epoch: u64) -> Result<(), Code> {
        if epoch != self.epoch || epoch == 0 {
            return Err(Code::Fenced);
        }
        self.holder = None;
        Ok(())
    }
}

/// Whether a nonce that had one turn so far may be heard from before that turn ended.
fn is_late(turns: &[(u8, i64)], nonce: u8, now: i64) -> bool {
    let own: Vec<usize> = (0..turns.len()).filter(|turn| turns[*turn].0 == nonce).collect();
    let next = own.first().and_then(|turn| turns.get(turn + 1));
    own.len() == 1 && next.is_some_and(|(_, since)| (*since..since + LATE).contains(&now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(instance: u8, nonce: u8) -> Sender {
        Sender { instance, nonce, facts: "erp".into(), position: 7 }
    }

    #[test]
    fn one_instance_sends_until_its_lease_lapses() {
        let mut lease = Lease::default();
        assert_eq!(lease.open(0, &sender(1, 1)), Opening::Granted(1));
        assert_eq!(lease.open(1, &sender(2, 1)), Opening::Held);
        assert_eq!(lease.admit(1, None), Err(Code::EpochRequired));
        assert_eq!(lease.renew(TTL - 1, 1, 1), Ok(()));
        assert_eq!(lease.open(TTL + 1, &sender(2, 1)), Opening::Held);
        assert_eq!(lease.open(TTL * 2, &sender(2, 1)), Opening::Granted(2));
        assert_eq!(lease.renew(TTL * 2, 1, 1), Err(Code::Fenced));
        assert_eq!(lease.admit(TTL * 2, Some(1)), Err(Code::Fenced));
    }

    #[test]
    fn two_copies_of_one_instance_stop_each_other() {
        let mut lease = Lease::default();
        assert_eq!(lease.open(0, &sender(1, 1)), Opening::Granted(1));
        assert_eq!(lease.renew(1, 1, 2), Ok(()));
        assert_eq!(lease.renew(2, 1, 1), Err(Code::InstanceTwice));
        assert_eq!(lease.renew(3, 1, 2), Err(Code::InstanceTwice));
        assert_eq!(lease.open(4, &sender(1, 2)), Opening::Refused(Code::InstanceTwice));
        assert_eq!(lease.open(TTL + 2, &sender(1, 3)), Opening::Granted(2));
    }

    #[test]
    fn copies_that_are_heard_in_turns_are_refused_whoever_lapses() {
        let mut lease = Lease::default();
        let later = |turn: i64| turn * 20 * SECOND;
        let granted = (0..100).filter(|turn| {
            let who = sender(1, u8::try_from(turn % 2).unwrap());
            matches!(lease.open(later(*turn), &who), Opening::Granted(_))
        });
        assert_eq!(granted.collect::<Vec<_>>(), (0..=24).step_by(2).collect::<Vec<_>>());
        assert_eq!(lease.open(later(110), &sender(2, 1)), Opening::Granted(14));
    }

    #[test]
    fn another_database_or_one_set_back_in_time_waits_for_a_person() {
        let mut lease = Lease::default();
        assert_eq!(lease.open(0, &sender(1, 1)), Opening::Granted(1));
        assert_eq!(lease.release(1), Ok(()));
        let clone = Sender { facts: "clone".into(), ..sender(1, 1) };
        let restored = Sender { position: 6, ..sender(1, 1) };
        assert_eq!(lease.open(1, &clone), Opening::Refused(Code::DatabaseChanged));
        assert_eq!(lease.open(1, &restored), Opening::Refused(Code::DatabaseChanged));
        assert_eq!(lease.open(1, &sender(1, 1)), Opening::Granted(2));
        assert_eq!(lease.accept_database(), Err(Code::NotFound));
        assert_eq!(lease.open(2, &clone), Opening::Refused(Code::DatabaseChanged));
        assert_eq!(lease.accept_database(), Ok(()));
        assert_eq!(lease.open(TTL * 2, &clone), Opening::Granted(3));
    }
}
