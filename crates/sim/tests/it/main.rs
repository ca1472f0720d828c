//! Integration tests of the whole: models, real servers, real input, foreign clients, faults.

#[cfg(test)]
mod abuse;
#[cfg(test)]
mod acceptance;
#[cfg(test)]
mod agent_beside;
#[cfg(test)]
mod agent_states;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod bulk;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod clock_jump;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod failpoints;
#[cfg(test)]
mod faults_keys;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod mails;
#[cfg(test)]
mod masking;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod pace;
#[cfg(test)]
mod postgres_faults;
#[cfg(test)]
mod real_input;
#[cfg(test)]
mod replaced;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod same_key;
#[cfg(test)]
mod sealed;
#[cfg(test)]
mod server_process;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod set_apart;
#[cfg(test)]
mod silent_line;
#[cfg(test)]
mod source_contract;
#[cfg(test)]
mod source_erp;
#[cfg(test)]
mod source_faults;
#[cfg(test)]
mod source_postgres;
#[cfg(test)]
mod source_values;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod store_postgres;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod verification;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod whole;
#[cfg(test)]
mod world;
