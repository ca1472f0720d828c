//! Tests of the worker, to follow.
