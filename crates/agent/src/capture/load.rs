//! Load: when a table is loaded, and when it is loaded again.
//!
//! Promises: a request is run once, however often it is told (F20); a load under way is not started again by the
//! request it answers; a changed filter starts it again.
//! Never: reads anything; what is to be read is for the cycle.

use protocol::{ids::Generation, json::EntityQuery};

use super::cursor::{Cursor, Load, hash_of};

/// What the plan and the admin door want of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    pub(super) force: bool,
    pub(super) generation: Option<Generation>,
    /// Highest request of the admin door.
    pub(super) local: u64,
    /// Hash of the filter; zero = none.
    pub(super) filter: u64,
    /// Hash of table and filter: what a server without generations is known by.
    pub(super) request: u64,
}

impl Wish {
    #[must_use]
    pub(super) fn of(query: &EntityQuery, local: u64) -> Self {
        let filter = query.filter.as_deref().map(str::trim).filter(|text| !text.is_empty());
        Self {
            force: query.force_reload,
            generation: query.reload_generation,
            local,
            filter: filter.map_or(0, |text| hash_of(&[text])),
            request: hash_of(&[query.table.folded(), filter.unwrap_or_default()]),
        }
    }

    fn is_new_to(&self, cursor: &Cursor) -> bool {
        let forced = self.force
            && match self.generation {
                Some(generation) => cursor.generation.is_none_or(|done| done < generation),
                None => cursor.spent != Some(self.request),
            };
        !cursor.loaded || forced || self.local > cursor.local
    }
}

/// Starts a load where one is due. Tells whether one was started.
pub(super) fn settle(cursor: &mut Cursor, wish: &Wish) -> bool {
    if !wish.force {
        cursor.spent = None;
    }
    let due = match &cursor.load {
        Some(load) => load.filter != wish.filter,
        None => wish.is_new_to(cursor),
    };
    if due {
        cursor.load = Some(Load {
            generation: wish.generation.unwrap_or_default(),
            local: wish.local,
            filter: wish.filter,
            ..Load::default()
        });
        if wish.force {
            cursor.spent = wish.generation.is_none().then_some(wish.request);
        }
    }
    due
}

/// The last rows of the load were sent; gives the request it answers.
pub(super) fn finish(cursor: &mut Cursor) -> Option<Generation> {
    let load = cursor.load.take()?;
    cursor.loaded = true;
    cursor.generation = Some(load.generation).max(cursor.generation).filter(|g| g.0 != 0);
    cursor.local = load.local.max(cursor.local);
    Some(load.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(force: bool, generation: Option<i64>, filter: Option<&str>) -> EntityQuery {
        EntityQuery {
            table: "FLAN".parse().unwrap(),
            filter: filter.map(str::to_owned),
            force_reload: force,
            reload_generation: generation.map(Generation),
            is_native: true,
            is_custom: false,
            metadata: None,
        }
    }

    fn wish(force: bool, generation: Option<i64>) -> Wish {
        Wish::of(&query(force, generation, None), 0)
    }

    #[test]
    fn a_table_without_a_finished_load_starts_one_and_goes_on_with_it() {
        let mut cursor = Cursor::default();
        assert!(settle(&mut cursor, &wish(true, Some(4))));
        assert!(!settle(&mut cursor, &wish(true, Some(4))), "the flag stays up while it runs");
        assert!(!settle(&mut cursor, &wish(true, Some(5))), "a newer request waits for its end");
        assert_eq!(finish(&mut cursor), Some(Generation(4)));
        assert!(settle(&mut cursor, &wish(true, Some(5))));
    }

    #[test]
    fn f20_a_generation_that_stays_up_is_run_once() {
        let mut cursor = Cursor { loaded: true, ..Cursor::default() };
        let mut started = 0;
        for _poll in 0..20 {
            if settle(&mut cursor, &wish(true, Some(7))) {
                started += 1;
            }
            finish(&mut cursor);
        }
        assert_eq!((started, cursor.generation), (1, Some(Generation(7))));
        assert!(!settle(&mut cursor, &wish(false, Some(7))));
        assert!(settle(&mut cursor, &wish(true, Some(8))));
    }

    #[test]
    fn f20_without_generations_a_falling_edge_must_be_seen_first() {
        let mut cursor = Cursor { loaded: true, ..Cursor::default() };
        assert!(settle(&mut cursor, &wish(true, None)));
        finish(&mut cursor);
        for _poll in 0..20 {
            assert!(!settle(&mut cursor, &wish(true, None)));
        }
        assert!(!settle(&mut cursor, &wish(false, None)));
        assert!(settle(&mut cursor, &wish(true, None)));
    }

    #[test]
    fn f20_a_first_load_answers_a_flag_without_generation_too() {
        let mut cursor = Cursor::default();
        settle(&mut cursor, &wish(true, None));
        finish(&mut cursor);
        assert!(!settle(&mut cursor, &wish(true, None)));
    }

    #[test]
    fn an_order_of_the_admin_door_is_run_once() {
        let mut cursor = Cursor { loaded: true, ..Cursor::default() };
        let order = Wish { local: 3, ..wish(false, None) };
        assert!(settle(&mut cursor, &order));
        finish(&mut cursor);
        assert!(!settle(&mut cursor, &order));
    }

    #[test]
    fn another_filter_starts_a_load_under_way_again_and_leaves_a_finished_one_alone() {
        let mut cursor = Cursor::default();
        settle(&mut cursor, &Wish::of(&query(false, None, Some("A > 1")), 0));
        cursor.load.as_mut().unwrap().rows = 9;
        assert!(!settle(&mut cursor, &Wish::of(&query(false, None, Some(" A > 1 ")), 0)));
        let other = Wish::of(&query(false, None, Some("A > 2")), 0);
        assert!(settle(&mut cursor, &other));
        assert_eq!(cursor.load.as_ref().unwrap().rows, 0);
        finish(&mut cursor);
        assert!(!settle(&mut cursor, &Wish::of(&query(false, None, None), 0)));
    }
}
