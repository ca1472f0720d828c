//! Tests of the profiles.
