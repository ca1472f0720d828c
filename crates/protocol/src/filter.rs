//! Filter: a server-sent predicate, parsed to a small tree.
/// A parsed predicate (seam; grammar follows).
#[derive(Clone, PartialEq, Debug)]
pub struct Filter;
