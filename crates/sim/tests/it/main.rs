//! Integration tests of the whole: models, real servers, real input, foreign clients, faults.

mod acceptance;
mod comparison;
mod foreign;
mod kill;
mod postgres_faults;
mod real_input;
mod servers;
mod source_contract;
mod source_erp;
mod source_postgres;
mod source_values;
mod whole;
