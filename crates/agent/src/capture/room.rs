//! Room: what is left on the disk of the data folder (`correctness.md` 3 j).
//!
//! Promises: where it cannot be told, reading goes on.
//! Never: writes, or frees anything.

use std::{fmt, path::PathBuf, sync::Arc};

use protocol::limits;

/// Reads the free bytes; `None` = not to be had.
type Reading = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// The disk below the data folder. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Reading);

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

impl Room {
    pub(super) fn of(folder: PathBuf) -> Self {
        Self(Arc::new(move || runtime::files::free(&folder)))
    }

    /// By another reading than the file system's.
    #[cfg(test)]
    pub(super) fn by(reading: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reading))
    }

    /// Free bytes, where they are too few to read on.
    #[must_use]
    pub(super) fn lacks(&self) -> Option<u64> {
        (self.0)().filter(|free| *free < limits::DISK_FREE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_limit_there_is_no_room_and_an_unknown_disk_has_room() {
        let limit = limits::DISK_FREE_BYTES;
        for (free, lacks) in [
            (Some(0), Some(0)),
            (Some(limit - 1), Some(limit - 1)),
            (Some(limit), None),
            (None, None),
        ] {
            assert_eq!(Room::by(move || free).lacks(), lacks);
        }
        assert_eq!(Room::of("no such folder".into()).lacks(), None);
    }
}
