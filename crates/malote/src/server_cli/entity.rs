//! Commands of entities: which tables are shared, with which filter, and when they are sent again.
//!
//! Promises: a filter is checked before it is kept.
//! Never: touches staged rows.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, limits, names::TableName};
use serde_json::json;
use server::{
    model::{
        catalog::Entity,
        exchange::{Change, Format, Listed, Warning, YEARS},
    },
    service::{
        Services,
        catalog::{Import, NewEntity},
    },
};

use super::{
    OfPlace, Paging,
    lists::{Column, Form, show, show_page, when},
};
use crate::{lang::Lang, out};

const ENTITY: &[Column<Entity>] = &[
    (["TABLE", "TABELA"], |e, _| e.table.to_string()),
    (["ERP", "ERP"], |e, _| e.place.erp.to_string()),
    (["RELOAD", "RECARGA"], |e, lang| {
        if e.force_reload() {
            format!("{} ({})", lang.pick("asked", "pedida"), e.generation)
        } else {
            match e.done_generation {
                protocol::ids::Generation(0) => "-".to_owned(),
                done => format!("{} ({done})", lang.pick("done", "feita")),
            }
        }
    }),
    (["CUSTOM", "PRÓPRIA"], |e, lang| lang.yes(e.is_custom).to_owned()),
    (["WITHDRAWN", "RETIRADA"], |e, lang| when(e.withdrawn_at, lang)),
    (["FILTER", "FILTRO"], |e, _| e.filter.clone().unwrap_or_default()),
];

#[derive(Debug, Subcommand)]
pub(super) enum EntityCommand {
    /// Share tables: all that are named, or none.
    Add {
        /// Tables, by their names on the wire (SE1, FLAN).
        #[arg(required = true)]
        tables: Vec<TableName>,
        /// Predicate for the base load of each of them, such as "FLAN.IDLAN > 1000".
        #[arg(long)]
        filter: Option<String>,
        /// They are the customer's own tables.
        #[arg(long)]
        custom: bool,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Tables that are shared, each with its filter and its reload.
    List {
        /// Also those that were withdrawn.
        #[arg(long)]
        withdrawn: bool,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        paging: Paging,
    },
    /// Stop sharing a table; its staged rows stay.
    Remove {
        /// The table.
        table: TableName,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Write the list of shared tables to standard output.
    Export {
        /// toml or csv.
        #[arg(long, default_value = "toml")]
        format: Format,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Take a list of tables in, all or nothing, and tell each change.
    Import(ImportFile),
    /// Set the filter of a table; without one it is taken away. It counts from the next base load on.
    SetFilter {
        /// The table.
        table: TableName,
        /// The predicate, in quotes; left out: none.
        filter: Option<String>,
        #[command(flatten)]
        at: OfPlace,
    },
}

/// `malote server entity import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server entity export > tables.toml
  malote server entity import tables.toml --dry-run
  malote server entity import tables.csv --withdraw-missing")]
pub(super) struct ImportFile {
    /// The file; its ending (.toml, .csv) says how it is written.
    file: PathBuf,
    /// Tell what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Withdraw what the list does not name; its staged rows stay.
    #[arg(long)]
    withdraw_missing: bool,
    #[command(flatten)]
    at: OfPlace,
}

impl ImportFile {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let ending = self.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let format: Format = ending.to_ascii_lowercase().parse()?;
        let file = self.file.display();
        let unread = || {
            form.lang.pick(format!("cannot read {file}"), format!("não foi possível ler {file}"))
        };
        let size = std::fs::metadata(&self.file).coded(Code::BadRequest, unread())?.len();
        if size > limits::ADMIN_BODY_BYTES as u64 {
            let most = limits::ADMIN_BODY_BYTES;
            let words = form.lang.pick(
                format!("a list has at most {most} bytes"),
                format!("uma lista tem no máximo {most} bytes"),
            );
            return Err(Error::new(Code::BodyTooLarge, words));
        }
        let text = std::fs::read_to_string(&self.file).coded(Code::BadRequest, unread())?;
        let how = Import { dry_run: self.dry_run, withdraw_missing: self.withdraw_missing };
        let place = self.at.find(services).await?;
        let plan = services.catalog.import(&place, (&text, format), how).await?;
        if form.json {
            out::data(serde_json::to_string(&plan).unwrap_or_default());
            return Ok(());
        }
        plan.changes.iter().for_each(|change| out::data(line(change, form.lang)));
        for change in &plan.changes {
            if let Change::Add(new) | Change::Alter { after: new, .. } = change {
                warn(services, (&new.table, new.filter.as_deref()), form);
            }
        }
        out::talk(outcome(plan.changes.len(), plan.applied, form.lang));
        Ok(())
    }
}

/// One line for a change: `+` added, `~` altered, `-` withdrawn.
fn line(change: &Change, lang: Lang) -> String {
    let of = |listed: &Listed| {
        let filter = listed.filter.as_deref().unwrap_or(lang.pick("no filter", "sem filtro"));
        let custom = if listed.is_custom { lang.pick(", custom", ", própria") } else { "" };
        format!("{filter}{custom}")
    };
    match change {
        Change::Add(new) => format!("+ {}  {}", new.table, of(new)),
        Change::Alter { before, after } => {
            format!("~ {}  {}  =>  {}", after.table, of(before), of(after))
        }
        Change::Withdraw(old) => format!("- {}  {}", old.table, of(old)),
    }
}

fn outcome(changes: usize, applied: bool, lang: Lang) -> String {
    let count = lang.count(changes as u64, ["change", "changes"], ["mudança", "mudanças"]);
    match (changes, applied) {
        (0, _) => lang.pick("nothing differs", "nada difere").to_owned(),
        (1, true) => lang.pick(format!("{count} made"), format!("{count} feita")),
        (_, true) => lang.pick(format!("{count} made"), format!("{count} feitas")),
        (1, false) => lang.pick(
            format!("{count} would be made; nothing was changed"),
            format!("{count} seria feita; nada foi alterado"),
        ),
        (_, false) => lang.pick(
            format!("{count} would be made; nothing was changed"),
            format!("{count} seriam feitas; nada foi alterado"),
        ),
    }
}

pub(super) fn warn(services: &Services, (table, filter): (&TableName, Option<&str>), form: Form) {
    let Some(warning) = services.catalog.warning(table, filter) else { return };
    let words = match warning {
        Warning::NoFilter => {
            "sem filtro: a carga inicial leva todas as linhas da tabela".to_owned()
        }
        Warning::NoLowerBound => {
            "o filtro cita um dia, mas nenhum limite para linhas antigas; a carga inicial leva também as mais antigas"
                .to_owned()
        }
        Warning::ReachesBack(from) => format!(
            "o filtro alcança desde {from}, mais de {YEARS} anos; a carga inicial leva tudo isso"
        ),
    };
    form.talk(format!("warning: {table}: {warning}"), format!("aviso: {table}: {words}"));
}

impl EntityCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let catalog = &services.catalog;
        match self {
            Self::Add { tables, filter, custom, at } => {
                let place = at.find(services).await?;
                let new = tables
                    .into_iter()
                    .map(|table| NewEntity { table, filter: filter.clone(), is_custom: custom })
                    .collect();
                let added = catalog.add_entities(&place, new).await?;
                show(form, &added, ENTITY);
                for entity in &added {
                    warn(services, (&entity.table, entity.filter.as_deref()), form);
                }
            }
            Self::List { withdrawn, at, paging } => {
                let place = at.find(services).await?;
                let found = catalog.entities(&place, withdrawn, paging.page()).await?;
                show_page(form, &found, ENTITY, paging.limit);
            }
            Self::Export { format, at } => {
                let place = at.find(services).await?;
                out::data(catalog.export(&place, format).await?.trim_end());
            }
            Self::Import(import) => import.run(services, form).await?,
            Self::Remove { table, at } => {
                catalog.withdraw(&at.find(services).await?, &table).await?;
                form.talk(
                    format!("{table} is not shared any more; its staged rows stay"),
                    format!("{table} não é mais compartilhada; as suas linhas ficam na staging"),
                );
            }
            Self::SetFilter { table, filter, at } => {
                let place = at.find(services).await?;
                catalog.set_filter(&place, &table, filter).await?;
                let entity = catalog.entity(&place, &table).await?;
                warn(services, (&table, entity.filter.as_deref()), form);
                if form.json {
                    show(form, &[entity], ENTITY);
                    return Ok(());
                }
                form.talk(
                    "kept; it counts from the next base load on (malote server reload)",
                    "gravado; vale a partir da próxima carga inicial (malote server reload)",
                );
            }
        }
        Ok(())
    }
}

/// `malote server reload`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["table", "all"])), after_help = "Examples:
  malote server reload FLAN
  malote server reload --all --environment production
  malote server reload FLAN --rebuild    # the answer to PRIMARY_KEY_CHANGED")]
pub(super) struct Reload {
    /// The table.
    table: Option<TableName>,
    /// Every shared table.
    #[arg(long)]
    all: bool,
    /// The load may bring another primary key: the staging table is made anew.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    at: OfPlace,
}

impl Reload {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let place = self.at.find(services).await?;
        let asked = services.catalog.reload(&place, self.table.as_ref(), self.rebuild).await?;
        for (table, generation) in asked {
            out::data(if form.json {
                json!({ "table": table, "reloadGeneration": generation }).to_string()
            } else {
                form.lang.pick(
                    format!("{table}: load {generation} is asked for"),
                    format!("{table}: carga {generation} pedida"),
                )
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line_in_both_languages() {
        let listed = |filter: Option<&str>, is_custom| Listed {
            table: "FLAN".parse().unwrap(),
            filter: filter.map(str::to_owned),
            is_custom,
        };
        let added = Change::Add(listed(None, true));
        assert_eq!(line(&added, Lang::En), "+ FLAN  no filter, custom");
        assert_eq!(line(&added, Lang::Pt), "+ FLAN  sem filtro, própria");
        let altered =
            Change::Alter { before: listed(Some("x"), false), after: listed(None, false) };
        assert_eq!(line(&altered, Lang::En), "~ FLAN  x  =>  no filter");
        assert_eq!(line(&Change::Withdraw(listed(Some("x"), false)), Lang::Pt), "- FLAN  x");
    }

    #[test]
    fn changes_are_counted_in_singular_and_plural() {
        assert_eq!(outcome(1, true, Lang::En), "1 change made");
        assert_eq!(outcome(2, true, Lang::Pt), "2 mudanças feitas");
        assert_eq!(outcome(1, false, Lang::Pt), "1 mudança seria feita; nada foi alterado");
        assert_eq!(outcome(0, true, Lang::Pt), "nada difere");
    }
}
