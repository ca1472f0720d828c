//! Budget: bytes of messages in flight per tenant, from the moment their length is known until the call ends (F64).
//!
//! Promises: a tenant never holds more than its share, whether its bodies are still coming, wait for a predecessor or
//! are being stored; what was taken comes back when the call ends, however it ends; Writes and the other calls have
//! shares of their own, so that neither stops the other.
//! Never: waits; who finds no room is told when to come again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::counter;
use protocol::{Code, Error, Result, ids::TenantId, limits};

/// When a sender that found no room should try again.
pub(super) const NO_ROOM: Duration = Duration::from_millis(500);

/// Which share of its tenant a call draws on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Share {
    /// Table messages.
    Writes,
    /// Prepare, Reconcile and reports.
    Control,
}

impl Share {
    const fn bytes(self) -> usize {
        match self {
            Self::Writes => limits::TENANT_IN_FLIGHT_BYTES,
            Self::Control => limits::TENANT_CONTROL_BYTES,
        }
    }
}

/// All shares of the process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Taken>>);

type Taken = HashMap<(TenantId, Share), usize>;

/// Room for the message of one call. Cheap to clone; when the last clone is dropped it is given back.
#[derive(Clone, Debug)]
pub struct Room(Arc<Held>);

#[derive(Debug)]
struct Held {
    budget: Budget,
    of: (TenantId, Share),
    bytes: Mutex<usize>,
}

impl Budget {
    /// Room that is empty so far.
    #[must_use]
    pub fn room(&self, tenant: TenantId, share: Share) -> Room {
        let (budget, of) = (self.clone(), (tenant, share));
        Room(Arc::new(Held { budget, of, bytes: Mutex::default() }))
    }

    /// What a tenant holds now.
    #[cfg(test)]
    pub(crate) fn held(&self, tenant: TenantId, share: Share) -> usize {
        lock(&self.0).get(&(tenant, share)).copied().unwrap_or_default()
    }

    /// Takes `more` where they fit.
    fn take(&self, of: (TenantId, Share), more: usize) -> bool {
        let mut taken = lock(&self.0);
        let before = taken.get(&of).copied().unwrap_or_default();
        let after = before.saturating_add(more);
        let fits = after <= of.1.bytes();
        if fits {
            taken.insert(of, after);
        }
        fits
    }
}

impl Room {
    /// Makes the room large enough for a message of that many bytes; it never shrinks.
    ///
    /// # Errors
    /// `RATE_LIMITED` where the tenant's share is used up.
    pub fn hold(&self, bytes: usize) -> Result<()> {
        let Held { budget, of, bytes: held } = &*self.0;
        let wanted = bytes.saturating_mul(limits::DECODE_FACTOR);
        let mut held = lock(held);
        let more = wanted.saturating_sub(*held);
        if more > 0 && !budget.take(*of, more) {
            if of.1 == Share::Writes {
                counter!("malote_writes_refused_total", "code" => Code::RateLimited.as_str())
                    .increment(1);
            }
            let words = "no room for more messages in flight";
            return Err(Error::new(Code::RateLimited, words).retry_in(NO_ROOM));
        }
        *held = wanted.max(*held);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *lock(&self.bytes);
        let mut taken = lock(&self.budget.0);
        if let Some(held) = taken.get_mut(&self.of) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                taken.remove(&self.of);
            }
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

const _: () = {
    assert!(limits::MESSAGE_BYTES * limits::DECODE_FACTOR <= limits::TENANT_IN_FLIGHT_BYTES);
    assert!(limits::MESSAGE_BYTES * limits::DECODE_FACTOR <= limits::TENANT_CONTROL_BYTES);
};

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const MB: usize = 1024 * 1024;

    fn tenant(n: u128) -> TenantId {
        TenantId(Uuid::from_u128(n))
    }

    #[test]
    fn a_tenant_has_64_mb_at_four_times_the_wire_and_others_have_their_own() {
        let budget = Budget::default();
        let room = |n, bytes: usize| {
            let room = budget.room(tenant(n), Share::Writes);
            room.hold(bytes).map(|()| room)
        };
        let rooms: Vec<_> = (0..16).map(|_| room(1, MB).unwrap()).collect();
        let error = room(1, 1).unwrap_err();
        assert_eq!((error.code, error.retry_after), (Code::RateLimited, Some(NO_ROOM)));
        assert!(room(2, MB).is_ok());
        assert!(budget.room(tenant(1), Share::Control).hold(MB).is_ok());
        drop(rooms);
        assert!(room(1, 16 * MB).is_ok());
        assert!(lock(&budget.0).is_empty());
    }

    #[test]
    fn a_room_grows_to_its_message_and_is_given_back_by_its_last_holder() {
        let budget = Budget::default();
        let held = || budget.held(tenant(1), Share::Writes);
        let room = budget.room(tenant(1), Share::Writes);
        for (bytes, expected) in [(MB, 4 * MB), (MB, 4 * MB), (10, 4 * MB), (2 * MB, 8 * MB)] {
            room.hold(bytes).unwrap();
            assert_eq!(held(), expected);
        }
        assert!(room.hold(17 * MB).is_err());
        assert_eq!(held(), 8 * MB, "a refusal takes nothing");
        let other = room.clone();
        drop(room);
        assert_eq!(held(), 8 * MB);
        drop(other);
        assert_eq!(held(), 0);
    }
}
