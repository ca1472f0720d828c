//! Copy: the store of a data folder goes into the database that the configuration names.
//!
//! Promises: no server runs on the data folder meanwhile; all of the store goes over and is compared, or nothing does.
//! Never: changes the store's file; copies staged tables, which the server makes again from the ledger.

use protocol::{Code, Error, Result};
use runtime::backup;

use super::alone;
use crate::{
    config::ServerConfig,
    store::{
        Site,
        copy::{self, Copied},
    },
};

/// Copies it; a dry run tells what it would copy, and changes nothing.
///
/// # Errors
/// `CONFIG_INVALID` where no database is named, `NOT_FOUND` where the data folder has no store, `STORE_BUSY`,
/// `STORE_VERSION` where one of both schemas is not current, `ALREADY_EXISTS` where the database holds a store,
/// `STORE_FAILED`, `DISK_FULL`, `RESTORE_UNFINISHED`.
pub async fn store(config: &ServerConfig, dry_run: bool, who: &str) -> Result<Vec<Copied>> {
    let Site::Postgres(address) = config.site()? else {
        let words = "it is not set; name the database to copy into";
        return Err(Error::new(Code::ConfigInvalid, words).at("store.url"));
    };
    backup::refuse_pending(&config.data)?;
    let file = config.store_file();
    if !file.exists() {
        let words = format!("there is no store {}", file.display());
        return Err(Error::new(Code::NotFound, words));
    }
    let _alone = alone(&config.data).await?;
    if dry_run {
        return copy::foreseen(&file, &address).await;
    }
    copy::copy(&file, &address, who).await
}
