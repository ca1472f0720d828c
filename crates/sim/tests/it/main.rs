//! Integration tests of the whole: models, real servers, real input, foreign clients, faults.

mod comparison;
mod servers;
mod whole;
