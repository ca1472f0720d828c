//! Commands of the quarantine: rows that could not be staged.
//!
//! Promises: a row is tried again in the place its message was accepted in, so that it never replaces a newer image;
//! a row that is given up is kept in the audit with the reason.
//! Never: shows values in a list; `show` alone does.

use clap::{ArgGroup, Args, Subcommand};
use protocol::{Code, Result, names::TableName};
use runtime::clock::Wall;
use serde_json::{Map, Value, json};
use server::{
    model::catalog::{At, Page},
    service::{
        Services,
        staging::{Outcome, Quarantined, Shown, Tried, code, which},
    },
};

use super::{
    OfPlace, RowPaging,
    lists::{Form, print},
};
use crate::{lang::Lang, out};

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// Rows in quarantine, the newest batch first; `show` tells their values.
    List {
        /// Only rows of this table.
        #[arg(long)]
        table: Option<TableName>,
        /// Only rows refused with this code.
        #[arg(long, value_parser = code)]
        code: Option<Code>,
        #[command(flatten)]
        rows: RowPaging,
        #[command(flatten)]
        at: OfPlace,
    },
    /// One row with its columns as they came.
    Show {
        /// The row, as the list names it.
        row: String,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Try rows again against what is staged now; a newer image stays.
    Retry(Retry),
    /// Give a row up: it leaves quarantine unstaged, the audit keeps why.
    Discard {
        /// The row, as the list names it.
        row: String,
        /// Why; the audit keeps it.
        #[arg(long)]
        reason: String,
        /// Tell which row it is, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: OfPlace,
    },
}

/// `quarantine retry`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["row", "table", "all"])))]
pub(super) struct Retry {
    /// The row, as the list names it.
    row: Option<String>,
    /// Every row of a table.
    #[arg(long)]
    table: Option<TableName>,
    /// Every row.
    #[arg(long)]
    all: bool,
    /// Tell what would become of them, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: OfPlace,
}

impl QuarantineCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { table, code, rows, at } => {
                list(services, &at, ((table, code), rows.page()), form).await
            }
            Self::Show { row, at } => {
                let place = at.find(services).await?;
                show(&services.staging.quarantined_row(&place, &row).await?, form);
                Ok(())
            }
            Self::Retry(retry) => retry.run(services, form).await,
            Self::Discard { row, reason, dry_run, at } => {
                let place = at.find(services).await?;
                let row = services.staging.discard(&place, &row, (&reason, dry_run)).await?;
                show_rows(std::slice::from_ref(&row), form);
                if dry_run {
                    form.talk("would be discarded", "seria descartada");
                } else {
                    form.talk("discarded", "descartada");
                }
                Ok(())
            }
        }
    }
}

/// Prints a page of rows that could not be staged.
pub(super) async fn list(
    services: &Services,
    at: &OfPlace,
    (which, page): ((Option<TableName>, Option<Code>), Page),
    form: Form,
) -> Result<()> {
    let place = at.find(services).await?;
    let limit = page.limit as usize;
    let found = services.staging.quarantined(&place, which, page).await?;
    if let Some(last) = found.last().filter(|_| found.len() >= limit && !form.json) {
        form.more(&last.id());
    }
    show_rows(&found, form);
    Ok(())
}

fn show_rows(rows: &[Quarantined], form: Form) {
    if form.json {
        rows.iter().map(described).for_each(|row| out::data(row.to_string()));
        return;
    }
    let cells = rows
        .iter()
        .map(|row| vec![row.id(), row.table.clone(), row.code.clone(), row.reason.clone()]);
    let head = [["ROW", "LINHA"], ["TABLE", "TABELA"], ["CODE", "CÓDIGO"], ["REASON", "MOTIVO"]];
    print(form, &head, cells.collect());
}

fn described(row: &Quarantined) -> Value {
    json!({ "id": row.id(), "table": row.table, "batch": row.batch, "message": row.message, "row": row.row,
        "code": row.code, "reason": row.reason, "at": At(row.at.0).to_string() })
}

fn show(shown: &Shown, form: Form) {
    let object = |cells: &[(String, String)]| -> Map<String, Value> {
        cells.iter().map(|(name, value)| (name.clone(), json!(value))).collect()
    };
    if form.json {
        let mut all = described(&shown.row);
        all["key"] = object(&shown.key).into();
        all["keyHash"] = json!(shown.key_hash);
        all["columns"] = object(&shown.columns).into();
        out::data(all.to_string());
        return;
    }
    let row = &shown.row;
    let facts = [
        (["row", "linha"], row.id()),
        (["table", "tabela"], row.table.clone()),
        (["batch", "pacote"], row.batch.to_string()),
        (["message", "mensagem"], row.message.to_string()),
        (["at", "em"], At(row.at.0).to_string()),
        (["code", "código"], row.code.clone()),
        (["reason", "motivo"], row.reason.clone()),
        (["key hash", "hash da chave"], shown.key_hash.clone().unwrap_or_default()),
    ];
    let fact = |([en, pt], value): ([&str; 2], String)| vec![form.lang.pick(en, pt).into(), value];
    let head = [["WHAT", "O QUE"], ["VALUE", "VALOR"]];
    print(form, &head, facts.into_iter().map(fact).collect());
    let of_key = form.lang.pick("key", "chave");
    let columns = shown.columns.iter().map(|(name, value)| {
        let is_key = shown.key.iter().any(|(key, _)| key == name);
        vec![if is_key { format!("{name} ({of_key})") } else { name.clone() }, value.clone()]
    });
    // A message that stands here whole has no columns of its own.
    if !shown.columns.is_empty() {
        print(form, &[["COLUMN", "COLUNA"], ["VALUE", "VALOR"]], columns.collect());
    }
}

impl Retry {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let place = self.at.find(services).await?;
        let which = which(self.row.as_deref(), self.table, self.all)?;
        let (mut after, mut lines) = (String::new(), Vec::new());
        let (mut applied, mut superseded, mut refused) = (0_u64, 0_u64, 0_u64);
        loop {
            let how = (after.as_str(), self.dry_run);
            let done = services.staging.retry(&place, which.clone(), how, Wall::now()).await?;
            for tried in &done.rows {
                *match tried.outcome {
                    Outcome::Applied => &mut applied,
                    Outcome::Superseded => &mut superseded,
                    Outcome::Refused { .. } => &mut refused,
                } += 1;
                if form.json {
                    out::data(told(tried, self.dry_run).to_string());
                } else {
                    lines.push(line(tried, form.lang));
                }
            }
            match done.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if !lines.is_empty() {
            let head = [
                ["ROW", "LINHA"],
                ["TABLE", "TABELA"],
                ["OUTCOME", "RESULTADO"],
                ["REASON", "MOTIVO"],
            ];
            print(form, &head, lines);
        }
        let dry = |words| if self.dry_run { words } else { "" };
        form.talk(
            format!(
                "{applied} applied, {superseded} superseded by a newer image, {refused} still refused{}",
                dry(" (dry run: nothing was changed)")
            ),
            format!(
                "aplicadas: {applied}; superadas por imagem mais nova: {superseded}; ainda recusadas: {refused}{}",
                dry(" (simulação: nada foi mudado)")
            ),
        );
        Ok(())
    }
}

fn told(tried: &Tried, dry_run: bool) -> Value {
    let mut line = json!({ "id": tried.id, "table": tried.table, "outcome": tried.outcome.as_str(),
        "applied": !dry_run });
    if let Outcome::Refused { code, reason } = &tried.outcome {
        line["code"] = json!(code.as_str());
        line["reason"] = json!(reason);
    }
    line
}

fn line(tried: &Tried, lang: Lang) -> Vec<String> {
    let (outcome, reason) = match &tried.outcome {
        Outcome::Applied => (lang.pick("applied", "aplicada"), String::new()),
        Outcome::Superseded => (lang.pick("superseded", "superada"), String::new()),
        Outcome::Refused { code, reason } => {
            (lang.pick("refused", "recusada"), format!("{code}: {reason}"))
        }
    };
    vec![tried.id.clone(), tried.table.clone(), outcome.to_owned(), reason]
}

#[cfg(test)]
mod tests {
    use protocol::Code;

    use super::*;

    #[test]
    fn what_became_of_a_row_is_told_to_people_in_their_language_and_to_programs_alike() {
        let tried = |outcome| Tried { id: "1.1.0".into(), table: "flan".into(), outcome };
        let refused = Outcome::Refused { code: Code::ValueUnfit, reason: "a key".into() };
        for (outcome, word, en, pt, reason) in [
            (Outcome::Applied, "applied", "applied", "aplicada", ""),
            (Outcome::Superseded, "superseded", "superseded", "superada", ""),
            (refused, "refused", "refused", "recusada", "VALUE_UNFIT: a key"),
        ] {
            let tried = tried(outcome);
            assert_eq!(line(&tried, Lang::En), ["1.1.0", "flan", en, reason]);
            assert_eq!(line(&tried, Lang::Pt), ["1.1.0", "flan", pt, reason]);
            let told = told(&tried, true);
            assert_eq!((&told["outcome"], &told["applied"]), (&json!(word), &json!(false)));
        }
    }
}
