//! Commands of alerts: what is wrong, where it is told, and from which threshold on.
//!
//! Promises: the mail server's password comes from standard input, so that no list of processes and no history of a shell
//! holds it; a command that changes one address or threshold leaves the others as they are.
//! Never: prints the password.

use std::io::Read as _;

use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, ids::TenantId};
use runtime::clock::Wall;
use secrecy::SecretString;
use server::{
    model::{
        alert::{Alert, Language, MailRoute, MailServer, MailTls, Rule, Wanted, rules::Threshold},
        catalog::At,
    },
    service::{
        Services,
        alerts::{NewMailServer, NewRoute, Routes},
    },
};

use super::{
    OfTenant, RowPaging,
    admin::moment,
    lists::{Column, Form, show, show_page, show_some, when},
};
use crate::lang::Lang;

const ALERT: &[Column<Alert>] = &[
    (["ID", "ID"], |a, _| a.id.to_string()),
    (["RULE", "REGRA"], |a, _| a.rule.as_str().to_owned()),
    (["ERP", "ERP"], |a, _| a.erp.clone().unwrap_or_default()),
    (["TABLE", "TABELA"], |a, _| a.subject.clone()),
    (["AMOUNT", "QUANTIDADE"], |a, _| a.amount.to_string()),
    (["RAISED", "DESDE"], |a, _| a.raised_at.to_string()),
    (["RESOLVED", "RESOLVIDO"], |a, lang| when(a.resolved_at, lang)),
    (["ACKNOWLEDGED", "RECONHECIDO"], |a, lang| when(a.acknowledged_at, lang)),
    (["SILENT UNTIL", "EM SILÊNCIO ATÉ"], |a, lang| when(a.silenced_until, lang)),
    (["CODE", "CÓDIGO"], |a, _| a.code.clone().unwrap_or_default()),
];
const ROUTE: &[Column<MailRoute>] = &[
    (["ADDRESS", "ENDEREÇO"], |r, _| r.address.clone()),
    (["LANGUAGE", "IDIOMA"], |r, _| r.language.as_str().to_owned()),
    (["ENVIRONMENT", "AMBIENTE"], |r, lang| {
        r.environment.map_or_else(|| lang.pick("every", "todos").to_owned(), |id| id.to_string())
    }),
    (["WAITING", "AGUARDANDO"], |r, _| r.waiting.to_string()),
    (["DEAD", "MORTOS"], |r, _| r.dead.to_string()),
    (["REASON", "MOTIVO"], |r, _| r.last_error.clone().unwrap_or_default()),
];
const THRESHOLD: &[Column<Threshold>] = &[
    (["RULE", "REGRA"], |t, _| t.rule.as_str().to_owned()),
    (["ENVIRONMENT", "AMBIENTE"], |t, lang| {
        t.environment.map_or_else(|| lang.pick("every", "todos").to_owned(), |id| id.to_string())
    }),
    (["TABLE", "TABELA"], |t, lang| {
        t.table.clone().unwrap_or_else(|| lang.pick("every", "todas").to_owned())
    }),
    (["VALUE", "VALOR"], |t, _| t.value.to_string()),
];
const MAIL: &[Column<MailServer>] = &[
    (["HOST", "SERVIDOR"], |m, _| m.host.clone()),
    (["PORT", "PORTA"], |m, _| m.port.to_string()),
    (["TLS", "TLS"], |m, _| m.tls.as_str().to_owned()),
    (["FROM", "REMETENTE"], |m, _| m.from.clone()),
    (["USER", "USUÁRIO"], |m, _| m.user.clone().unwrap_or_default()),
    (["SET", "DEFINIDO EM"], |m, _| m.set_at.to_string()),
];

/// The longest password that is read.
const PASSWORD_BYTES: u64 = 4_096;

#[derive(Debug, Subcommand)]
pub(super) enum AlertCommand {
    /// Alerts of a tenant, the newest first.
    List {
        /// Only those that are open, resolved, or all.
        #[arg(long, default_value = "open")]
        state: Wanted,
        #[command(flatten)]
        paging: RowPaging,
        #[command(flatten)]
        of: OfWhom,
    },
    /// One alert.
    Show(One),
    /// Note that it was seen: it is not told again until it ends.
    Acknowledge(One),
    /// Have nothing told of an alert for a while, but its end.
    Silence {
        #[command(flatten)]
        one: One,
        /// Hours from now.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=2_160))]
        hours: u32,
        /// Until that time: 2027-01-31 or 2027-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "hours")]
        until: Option<At>,
        /// End a silence.
        #[arg(long, conflicts_with_all = ["hours", "until"])]
        end: bool,
    },
    /// Where alerts go beside the log and this list.
    #[command(subcommand)]
    Route(RouteCommand),
    /// From where on alerts are raised.
    #[command(subcommand)]
    Threshold(ThresholdCommand),
    /// The mail server that mails go through.
    #[command(subcommand)]
    Mail(MailCommand),
    /// Send one mail now, to see whether it arrives.
    Test {
        /// Address that it goes to.
        address: String,
        /// Language of the mail: en or pt.
        #[arg(long, default_value = "en")]
        language: Language,
    },
}

/// Whose alerts are meant.
#[derive(Debug, Args)]
pub(super) struct OfWhom {
    /// Those of the server itself, such as its disk.
    #[arg(long, conflicts_with = "tenant")]
    of_server: bool,
    #[command(flatten)]
    of: OfTenant,
}

/// The alert a command is about.
#[derive(Debug, Args)]
pub(super) struct One {
    /// Alert, by its id.
    alert: String,
    #[command(flatten)]
    of: OfWhom,
}

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// Addresses and webhooks that are told.
    List {
        #[command(flatten)]
        of: OfWhom,
    },
    /// Mail alerts to an address; one that is there already is replaced.
    Add {
        /// Address that mails go to.
        address: String,
        /// Language of the mails: en or pt.
        #[arg(long, default_value = "en")]
        language: Language,
        /// The one environment whose alerts go there, by id or name; left out: every one of the tenant.
        #[arg(long, value_name = "ID|NAME", conflicts_with = "of_server")]
        environment: Option<String>,
        #[command(flatten)]
        of: OfWhom,
    },
    /// Mail no more alerts to an address; what waits for it is not sent.
    Remove {
        /// Address that mails go to.
        address: String,
        #[command(flatten)]
        of: OfWhom,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ThresholdCommand {
    /// Thresholds that are not the defaults.
    List {
        #[command(flatten)]
        of: OfTenant,
    },
    /// Set a threshold; 0 switches the rule off there.
    Set {
        #[command(flatten)]
        place: ThresholdPlace,
        /// Minutes, batches or rows, by the rule.
        value: u32,
    },
    /// Go back to the wider threshold or the default.
    Remove {
        #[command(flatten)]
        place: ThresholdPlace,
    },
}

/// Where a threshold holds.
#[derive(Debug, Args)]
pub(super) struct ThresholdPlace {
    /// Rule: agent-dead, batch-incomplete, batch-stalled, differences, freshness, not-verified, quarantine, staging-behind, table-parked.
    rule: Rule,
    /// The one environment it holds for, by id or name; left out: every one of the tenant.
    #[arg(long, value_name = "ID|NAME")]
    environment: Option<String>,
    /// The one table it holds for; left out: every table.
    #[arg(long)]
    table: Option<String>,
    #[command(flatten)]
    of: OfTenant,
}

#[derive(Debug, Subcommand)]
pub(super) enum MailCommand {
    /// Set the mail server, or replace it; a password is read from standard input and kept sealed.
    Set(SetMail),
    /// The mail server, without its password.
    Show,
    /// Take it away; mails wait from then on.
    Remove,
}

/// `malote server alert mail set`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server alert mail set --host smtp.example.com --from malote@example.com --user malote < password.txt
  malote server alert mail set --host localhost --tls none --from malote@example.com")]
pub(super) struct SetMail {
    /// Name or address of the mail server.
    #[arg(long)]
    host: String,
    /// Its port; left out: 587 with starttls, 465 with tls, 25 with none.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How mails are protected on their way there: starttls, tls or none.
    #[arg(long, default_value = "starttls")]
    tls: MailTls,
    /// Whom mails come from: name@host, or "Name <name@host>".
    #[arg(long)]
    from: String,
    /// Whom to log in as; left out: no login.
    #[arg(long)]
    user: Option<String>,
}

impl AlertCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let alerts = &services.alerts;
        match self {
            Self::List { state, paging, of } => {
                let tenant = of.find(services).await?;
                let found = alerts.list(tenant, state, paging.page()).await?;
                show_page(form, &found, ALERT, paging.limit);
            }
            Self::Show(one) => show(form, &[one.find(services).await?], ALERT),
            Self::Acknowledge(one) => {
                let seen = alerts.acknowledge(one.find(services).await?).await?;
                show(form, &[seen], ALERT);
            }
            Self::Silence { one, hours, until, end } => {
                let later = Wall::now().0.saturating_add(i64::from(hours) * 3_600_000_000);
                let until = if end { None } else { Some(until.unwrap_or(At(later))) };
                let silent = alerts.silence(one.find(services).await?, until).await?;
                show(form, &[silent], ALERT);
            }
            Self::Route(command) => return command.run(services, form).await,
            Self::Threshold(command) => return command.run(services, form).await,
            Self::Mail(command) => return command.run(services, form).await,
            Self::Test { address, language } => {
                alerts.test(&address, language).await?;
                form.talk("the mail server took it", "o servidor de e-mail aceitou");
            }
        }
        Ok(())
    }
}

impl OfWhom {
    async fn find(&self, services: &Services) -> Result<Option<TenantId>> {
        if self.of_server {
            return Ok(None);
        }
        Ok(Some(self.of.find(services).await?.id))
    }
}

impl One {
    async fn find(&self, services: &Services) -> Result<Alert> {
        let tenant = self.of.find(services).await?;
        services.alerts.find(tenant, &self.alert).await
    }
}

impl RouteCommand {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let alerts = &services.alerts;
        match self {
            Self::List { of } => {
                let tenant = of.find(services).await?;
                show_routes(form, &alerts.routes(tenant).await?);
            }
            Self::Add { address, language, environment, of } => {
                let tenant = of.find(services).await?;
                let environment = match (environment, tenant) {
                    (Some(key), Some(tenant)) => {
                        Some(services.catalog.environment(tenant, &key).await?.id)
                    }
                    _ => None,
                };
                let mut all = kept(alerts.routes(tenant).await?, &address);
                all.push(NewRoute { address, language, environment });
                show_routes(form, &alerts.set_routes(tenant, all).await?);
            }
            Self::Remove { address, of } => {
                let tenant = of.find(services).await?;
                let before = alerts.routes(tenant).await?;
                let count = before.mails.len();
                let all = kept(before, &address);
                if all.len() == count {
                    let words = "no alerts go to that address";
                    return Err(Error::new(Code::NotFound, words));
                }
                show_routes(form, &alerts.set_routes(tenant, all).await?);
            }
        }
        Ok(())
    }
}

/// The routes there are, but for that address.
fn kept(routes: Routes, but: &str) -> Vec<NewRoute> {
    let others = routes.mails.into_iter().filter(|route| route.address != but.trim());
    others
        .map(|MailRoute { address, language, environment, .. }| NewRoute {
            address,
            language,
            environment,
        })
        .collect()
}

fn show_routes(form: Form, routes: &Routes) {
    show_some(form, &routes.mails, ROUTE);
    if form.json {
        return;
    }
    let webhooks = routes.webhooks.join(", ");
    if webhooks.is_empty() {
        form.talk(
            "no webhook asks for alert.raised or alert.resolved; the log and the list are told of everything",
            "nenhum webhook pede alert.raised ou alert.resolved; o log e a lista são avisados de tudo",
        );
    } else {
        form.talk(
            format!("webhooks: {webhooks}; the log and the list are told of everything"),
            format!("webhooks: {webhooks}; o log e a lista são avisados de tudo"),
        );
    }
    if !routes.mail_server && !routes.mails.is_empty() {
        form.talk(
            "no mail server is set, so mails wait: malote server alert mail set",
            "não há servidor de e-mail definido, então os e-mails aguardam: malote server alert mail set",
        );
    }
}

impl ThresholdCommand {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let alerts = &services.alerts;
        let found = match self {
            Self::List { of } => {
                let tenant = of.find(services).await?.id;
                alerts.thresholds(tenant).await?
            }
            Self::Set { place, value } => {
                let (tenant, new) = place.find(services, value).await?;
                let mut all = others(alerts.thresholds(tenant).await?, &new);
                all.push(new);
                alerts.set_thresholds(tenant, all).await?
            }
            Self::Remove { place } => {
                let (tenant, gone) = place.find(services, 0).await?;
                let before = alerts.thresholds(tenant).await?;
                let count = before.len();
                let all = others(before, &gone);
                if all.len() == count {
                    return Err(Error::new(Code::NotFound, "there is no such threshold"));
                }
                alerts.set_thresholds(tenant, all).await?
            }
        };
        show(form, &found, THRESHOLD);
        Ok(())
    }
}

impl ThresholdPlace {
    async fn find(self, services: &Services, value: u32) -> Result<(TenantId, Threshold)> {
        let tenant = self.of.find(services).await?.id;
        let environment = match &self.environment {
            Some(key) => Some(services.catalog.environment(tenant, key).await?.id),
            None => None,
        };
        let table = match self.table.as_deref() {
            Some(table) => Some(table.parse::<protocol::names::TableName>()?.folded().to_owned()),
            None => None,
        };
        Ok((tenant, Threshold { rule: self.rule, environment, table, value }))
    }
}

fn others(all: Vec<Threshold>, but: &Threshold) -> Vec<Threshold> {
    let place = |of: &Threshold| (of.rule, of.environment, of.table.clone());
    all.into_iter().filter(|of| place(of) != place(but)).collect()
}

impl MailCommand {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let alerts = &services.alerts;
        match self {
            Self::Set(SetMail { host, port, tls, from, user }) => {
                let login = match user {
                    Some(user) => Some((user, password(form.lang)?)),
                    None => None,
                };
                let new = NewMailServer { host, port, tls, from, login };
                show(form, &[alerts.set_mail_server(new).await?], MAIL);
            }
            Self::Show => show(form, &[alerts.mail_server().await?], MAIL),
            Self::Remove => {
                alerts.remove_mail_server().await?;
                form.talk("removed", "removido");
            }
        }
        Ok(())
    }
}

fn password(lang: Lang) -> Result<SecretString> {
    let mut text = String::new();
    let unread = lang.pick(
        "the password could not be read from standard input",
        "não foi possível ler a senha da entrada padrão",
    );
    let read = std::io::stdin().take(PASSWORD_BYTES).read_to_string(&mut text);
    read.coded(Code::BadRequest, unread)?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}
