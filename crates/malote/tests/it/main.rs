//! The one integration-test binary of the `malote` crate: the laws of the house, and the shipped program itself.

#[cfg(test)]
mod laws;
