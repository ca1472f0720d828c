//! Mutants: wrong variants of a design that stand beside the right one, so that a checker can be seen to catch them
//! (`correctness.md` 4.2, T1m).
//!
//! Promises: where the feature `mutants` is off, a place is a constant and the wrong variant is not in the program; where
//! it is on, none is in force but those that the world of this thread names, with `+` between them.
//! Never: is chosen by a configuration or the environment.

/// Whether the wrong variant of that name is in force.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is(name: &str) -> bool {
    crate::world::current()
        .is_some_and(|world| world.mutant().split('+').any(|mutant| mutant == name))
}

/// Whether the wrong variant of that name is in force: never in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_name: &str) -> bool {
    false
}
