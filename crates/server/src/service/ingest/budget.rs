//! Budget: bytes of Writes in flight per tenant, waiting ones included (F64).
//!
//! Promises: a tenant never holds more than its share; what was taken comes back when the call ends, however it ends.
//! Never: waits; who finds no room is told to come again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{ids::TenantId, limits};

#[derive(Debug, Default)]
pub(super) struct Budget {
    taken: Mutex<HashMap<TenantId, usize>>,
}

/// A share; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Budget>,
    tenant: TenantId,
    bytes: usize,
}

impl Budget {
    /// Room for a message of that many wire bytes, or `None`.
    pub(super) fn take(self: &Arc<Self>, tenant: TenantId, wire: usize) -> Option<Room> {
        let bytes = wire.saturating_mul(limits::DECODE_FACTOR);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.entry(tenant).or_default();
        let after = held.saturating_add(bytes);
        if after > limits::TENANT_IN_FLIGHT_BYTES {
            return None;
        }
        *held = after;
        Some(Room { budget: Arc::clone(self), tenant, bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = taken.get_mut(&self.tenant) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_tenant_has_64_mb_at_four_times_the_wire_and_others_have_their_own() {
        let budget = Arc::new(Budget::default());
        let tenant = |n| TenantId(Uuid::from_u128(n));
        let mb = 1024 * 1024;
        let rooms: Vec<_> = (0..16).map(|_| budget.take(tenant(1), mb).unwrap()).collect();
        assert!(budget.take(tenant(1), 1).is_none());
        assert!(budget.take(tenant(2), mb).is_some());
        drop(rooms);
        assert!(budget.take(tenant(1), 16 * mb).is_some());
        assert!(budget.taken.lock().unwrap().is_empty());
    }
}
