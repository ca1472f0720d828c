//! Analysts: who may read staged tables in the database itself.
//!
//! Promises: each change is in the audit, noted before it is made; a dry run changes nothing.
//! Never: makes a role.

use protocol::{Code, Error, Result};

use super::Staging;
use crate::{model::catalog::Place, store::staging::Spaces};

/// Who may read the staged tables of a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readers {
    /// Schema in which they stand.
    pub schema: String,
    /// By name.
    pub roles: Vec<String>,
}

impl Staging {
    /// Roles of the database that may read the staged tables.
    ///
    /// # Errors
    /// `BAD_REQUEST` where they stand in a file.
    pub async fn analysts(&self, place: &Place) -> Result<Readers> {
        let roles = match self.found(place.environment, &place.erp).await? {
            Some(space) if !space.has_analysts() => return Err(of_a_file()),
            Some(space) => space.analysts().await?,
            None => Vec::new(),
        };
        Ok(Readers { schema: Spaces::schema(place.environment, &place.erp), roles })
    }

    /// Lets a role read the staged tables, those that come later too.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such role, or nothing is staged yet; `BAD_REQUEST` where the role could read more
    /// than that, or the tables stand in a file.
    pub async fn add_analyst(&self, place: &Place, role: &str, dry_run: bool) -> Result<()> {
        let space = self.space(place.environment, &place.erp).await?;
        if !space.has_analysts() {
            return Err(of_a_file());
        }
        space.add_analyst(role.to_owned(), true).await?;
        if dry_run {
            return Ok(());
        }
        self.store.note_analyst("staging.analyst.add", place.clone(), role.to_owned()).await?;
        space.add_analyst(role.to_owned(), false).await
    }

    /// From now on the role reads nothing of them.
    ///
    /// # Errors
    /// As [`Self::add_analyst`]; `NOT_FOUND` also where it reads nothing.
    pub async fn remove_analyst(&self, place: &Place, role: &str, dry_run: bool) -> Result<()> {
        let space = self.space(place.environment, &place.erp).await?;
        if !space.has_analysts() {
            return Err(of_a_file());
        }
        if !space.analysts().await?.iter().any(|known| known == role) {
            let words = format!("{role:?} reads nothing of these tables");
            return Err(Error::new(Code::NotFound, words));
        }
        if dry_run {
            return Ok(());
        }
        self.store.note_analyst("staging.analyst.remove", place.clone(), role.to_owned()).await?;
        space.remove_analyst(role.to_owned()).await
    }
}

fn of_a_file() -> Error {
    let words = "these tables stand in a file of the data folder, which whoever may read the file reads; roles are of a \
                 store in PostgreSQL";
    Error::new(Code::BadRequest, words)
}

#[cfg(test)]
mod tests {
    use protocol::Code;

    use crate::service::trial::stage::{Cells, Stage};

    const COLUMNS: Cells<'static> = &[("ID", "integer"), ("N", "long")];

    #[tokio::test]
    async fn a_role_reads_the_staged_tables_and_nothing_else_until_it_is_removed() {
        let stage = Stage::new();
        let place = stage.whole_place();
        let add = async |role: &str, dry_run| {
            stage.staging.add_analyst(&place, role, dry_run).await.map_err(|error| error.code)
        };
        assert_eq!(add("ana", false).await, Err(Code::NotFound), "nothing is staged yet");
        stage.send((100, 1), COLUMNS, &[&[("ID", "1")], &[("ID", "2"), ("N", "x")]]).await;
        stage.caught_up().await;
        if stage.trial.is_a_file() {
            assert_eq!(add("ana", false).await, Err(Code::BadRequest));
            assert_eq!(stage.staging.analysts(&place).await.unwrap_err().code, Code::BadRequest);
            let removed = stage.staging.remove_analyst(&place, "ana", false).await;
            assert_eq!(removed.unwrap_err().code, Code::BadRequest);
            return;
        }
        let role = stage.trial.role("ana \"b\"");
        let may = |sql: &str| stage.trial.may(&role, &stage.within(sql));
        assert_eq!(add("nobody", false).await, Err(Code::NotFound));
        assert_eq!(add("malote", false).await, Err(Code::BadRequest), "the server's own");
        add(&role, true).await.unwrap();
        assert!(!may("SELECT * FROM flan"), "that was a dry run");
        add(&role, false).await.unwrap();
        add(&role, false).await.unwrap();
        let readers = stage.staging.analysts(&place).await.unwrap();
        assert_eq!(readers.roles, std::slice::from_ref(&role));
        assert!(may("SELECT \"ID\", _key FROM flan JOIN malote_batches ON batch = _batch"));
        for sql in [
            "SELECT * FROM malote_quarantine",
            "UPDATE flan SET \"ID\" = 3",
            "DELETE FROM malote_batches",
            "CREATE TABLE mine (a text)",
            "SELECT * FROM malote.tenant",
        ] {
            assert!(!may(sql), "{sql}");
        }
        // A table that comes later can be read, and one that is made anew.
        stage
            .send_with((100, 2), COLUMNS, &[&[("ID", "1")]], |table| {
                table.table_name = "TMOV".into()
            })
            .await;
        stage.caught_up().await;
        assert!(may("SELECT * FROM tmov"));
        stage.staging.remove_analyst(&place, &role, true).await.unwrap();
        assert!(may("SELECT * FROM flan"), "that was a dry run");
        stage.staging.remove_analyst(&place, &role, false).await.unwrap();
        assert!(!may("SELECT * FROM flan") && !may("SELECT * FROM tmov"));
        let removed = stage.staging.remove_analyst(&place, &role, false).await;
        assert_eq!(removed.unwrap_err().code, Code::NotFound);
        let noted = "SELECT count(*) FROM audit WHERE action LIKE 'staging.analyst.%'";
        assert_eq!(stage.trial.count(noted), 3);
    }
}
