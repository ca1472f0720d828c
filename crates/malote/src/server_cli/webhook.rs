//! Commands of webhooks: where consumers are told of batches, and how each telling stands.
//!
//! Promises: a secret is shown once, when it is made; an address that holds a key comes from standard input if wished.
//! Never: calls a consumer: what is ordered here a running server does.

use std::{io::Read as _, time::Duration};

use clap::{ArgGroup, Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, ids::EventId};
use runtime::clock::{Mono, sleep};
use serde_json::{Value, json};
use server::{
    model::{
        catalog::{At, Page},
        delivery::State,
        webhook::{Delivery, EventKind, Webhook},
    },
    service::{
        Services,
        webhooks::{NewWebhook, Replay, WebhookChange, WithSecret},
    },
};

use super::{
    OfTenant, Paging,
    admin::moment,
    lists::{Column, Form, print, show, show_page, when},
};
use crate::{lang::Lang, out};

const WEBHOOK: &[Column<Webhook>] = &[
    (["NAME", "NOME"], |w, _| w.name.clone()),
    (["URL", "URL"], |w, _| w.url.shown()),
    (["EVENTS", "EVENTOS"], |w, _| events(w)),
    (["ENVIRONMENT", "AMBIENTE"], |w, lang| {
        w.environment.map_or_else(|| lang.pick("every", "todos").to_owned(), |id| id.to_string())
    }),
    (["PAUSED", "EM PAUSA"], |w, lang| when(w.paused_at, lang)),
    (["PENDING", "PENDENTES"], |w, _| w.pending.to_string()),
    (["DEAD", "MORTAS"], |w, _| w.dead.to_string()),
    (["ID", "ID"], |w, _| w.id.to_string()),
];
const DELIVERY: &[Column<Delivery>] = &[
    (["ID", "ID"], |d, _| d.id.to_string()),
    (["TYPE", "TIPO"], |d, _| d.kind.as_str().to_owned()),
    (["BATCH", "PACOTE"], |d, _| d.batch.map_or_else(String::new, |batch| batch.to_string())),
    (["AT", "QUANDO"], |d, _| d.at.to_string()),
    (["STATE", "ESTADO"], |d, lang| state(d, lang)),
    (["TRIES", "TENTATIVAS"], |d, _| d.attempts.to_string()),
    (["STATUS", "STATUS"], |d, _| d.last_status.map_or_else(String::new, |s| s.to_string())),
    (["NEXT", "PRÓXIMA"], |d, _| d.next_at.map_or_else(String::new, |at| at.to_string())),
    (["REASON", "MOTIVO"], |d, _| d.last_error.clone().unwrap_or_default()),
];
/// How often the outcome of a test is looked for.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// Make a webhook; its secret is shown now and never again.
    Add(Add),
    /// Webhooks of a tenant; never their secrets.
    List {
        #[command(flatten)]
        paging: Paging,
        #[command(flatten)]
        of: OfTenant,
    },
    /// One webhook.
    Show(Named),
    /// Change name, address, events, description or environment; what waits goes to the new address.
    Edit(Edit),
    /// Hold deliveries back; events are noted meanwhile, and wait.
    Pause(Named),
    /// Let deliveries go out again, those that waited among them.
    Resume(Named),
    /// Make another secret; for a while each call is signed by both.
    Rotate {
        #[command(flatten)]
        named: Named,
        /// Hours for which the secret of before signs as well.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        keep_hours: u32,
        /// Put the secret of before out of force at once.
        #[arg(long, conflicts_with = "keep_hours")]
        at_once: bool,
    },
    /// Remove a webhook with its deliveries, those that wait among them.
    Remove {
        #[command(flatten)]
        named: Named,
        /// Tell what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Have the running server tell a test, once, and wait for the outcome.
    Test {
        #[command(flatten)]
        named: Named,
        /// Seconds to wait.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=300))]
        wait: u64,
    },
    /// Deliveries of a webhook, the newest first.
    Deliveries(Deliveries),
    /// Tell again what has ended, with all tries before it.
    Replay(ReplayCommand),
}

/// The webhook a command is about.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// Webhook, by id or name; may be left out where there is one.
    #[arg(default_value = "", hide_default_value = true)]
    webhook: String,
    #[command(flatten)]
    of: OfTenant,
}

/// `malote server webhook add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server webhook add warehouse --url https://etl.example/malote
  malote server webhook add alarms --url https://etl.example/alarms --events batch.incomplete,batch.stalled
  malote server webhook add lake --url - < address.txt    # an address that holds a key")]
pub(super) struct Add {
    /// Its name.
    name: String,
    /// Where the consumer listens: https://…; - reads it from standard input.
    #[arg(long)]
    url: String,
    /// What is told: batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved.
    #[arg(long, value_delimiter = ',', default_value = "batch.complete")]
    events: Vec<EventKind>,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// The one environment it is told of, by id or name; left out: every one of the tenant.
    #[arg(long, value_name = "ID|NAME")]
    environment: Option<String>,
    #[command(flatten)]
    of: OfTenant,
}

/// `malote server webhook edit`.
#[derive(Debug, Args)]
pub(super) struct Edit {
    #[command(flatten)]
    named: Named,
    /// Its new name.
    #[arg(long)]
    name: Option<String>,
    /// Where the consumer listens: https://…; - reads it from standard input.
    #[arg(long)]
    url: Option<String>,
    /// What is told: batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved.
    #[arg(long, value_delimiter = ',')]
    events: Option<Vec<EventKind>>,
    /// What it is for.
    #[arg(long)]
    description: Option<String>,
    /// The one environment it is told of, by id or name.
    #[arg(long, value_name = "ID|NAME", conflicts_with = "every_environment")]
    environment: Option<String>,
    /// Be told of every environment of the tenant.
    #[arg(long)]
    every_environment: bool,
}

/// `malote server webhook deliveries`.
#[derive(Debug, Args)]
pub(super) struct Deliveries {
    #[command(flatten)]
    named: Named,
    /// Only those that are ready, leased, done or dead.
    #[arg(long)]
    state: Option<State>,
    /// Only those of an event.
    #[arg(long = "type")]
    kind: Option<EventKind>,
    /// Only this one, by the event's id, with the body that is sent.
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["state", "kind", "limit", "after"])]
    id: Option<EventId>,
    /// At most this many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on behind this one (the first column of the last line).
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LAST")]
    after: String,
}

/// `malote server webhook replay`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["id", "dead", "done"])), after_help = "Examples:
  malote server webhook replay warehouse --dead --dry-run
  malote server webhook replay warehouse --done --since 2027-01-31")]
pub(super) struct ReplayCommand {
    #[command(flatten)]
    named: Named,
    /// One, by the event's id.
    #[arg(long, value_name = "EVENT")]
    id: Option<EventId>,
    /// All whose tries are used up.
    #[arg(long)]
    dead: bool,
    /// All that were taken.
    #[arg(long)]
    done: bool,
    /// Only what happened then or later: 2027-01-31 or 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "id")]
    since: Option<At>,
    /// Tell how many they are, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl WebhookCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let webhooks = &services.webhooks;
        match self {
            Self::Add(add) => return add.run(services, form).await,
            Self::Edit(edit) => return edit.run(services, form).await,
            Self::Deliveries(deliveries) => return deliveries.run(services, form).await,
            Self::Replay(replay) => return replay.run(services, form).await,
            Self::List { paging, of } => {
                let tenant = of.find(services).await?.id;
                let found = webhooks.list(tenant, paging.page()).await?;
                show_page(form, &found, WEBHOOK, paging.limit);
            }
            Self::Show(named) => show_one(form, &named.find(services).await?),
            Self::Pause(named) => {
                let paused = webhooks.pause(named.find(services).await?).await?;
                show(form, &[paused], WEBHOOK);
            }
            Self::Resume(named) => {
                let resumed = webhooks.resume(named.find(services).await?).await?;
                show(form, &[resumed], WEBHOOK);
            }
            Self::Rotate { named, keep_hours, at_once } => {
                let keep = if at_once { 0 } else { keep_hours };
                let made = webhooks.rotate(named.find(services).await?, keep).await?;
                show_secret(form, &made);
            }
            Self::Remove { named, dry_run } => {
                let webhook = named.find(services).await?;
                show(form, std::slice::from_ref(&webhook), WEBHOOK);
                if dry_run {
                    form.talk("dry run: nothing was removed", "simulação: nada foi removido");
                } else {
                    webhooks.remove(webhook).await?;
                    form.talk("removed", "removido");
                }
            }
            Self::Test { named, wait } => {
                let webhook = named.find(services).await?;
                return test(services, webhook, Duration::from_secs(wait), form).await;
            }
        }
        Ok(())
    }
}

impl Named {
    async fn find(&self, services: &Services) -> Result<Webhook> {
        let tenant = self.of.find(services).await?.id;
        services.webhooks.find(tenant, &self.webhook).await
    }
}

impl Add {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let tenant = self.of.find(services).await?.id;
        let environment = match &self.environment {
            Some(key) => Some(services.catalog.environment(tenant, key).await?.id),
            None => None,
        };
        let Self { name, events, description, .. } = self;
        let url = address(&self.url, form.lang)?;
        let new = NewWebhook { name, url, events, description, environment };
        show_secret(form, &services.webhooks.create(tenant, new).await?);
        Ok(())
    }
}

impl Edit {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let webhook = self.named.find(services).await?;
        let environment = match &self.environment {
            Some(key) => Some(Some(services.catalog.environment(webhook.tenant, key).await?.id)),
            None => self.every_environment.then_some(None),
        };
        let url = self.url.as_deref().map(|url| address(url, form.lang)).transpose()?;
        let Self { name, events, description, .. } = self;
        let change = WebhookChange { name, url, events, description, environment };
        show(form, &[services.webhooks.change(webhook, change).await?], WEBHOOK);
        Ok(())
    }
}

impl Deliveries {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let webhook = self.named.find(services).await?;
        if let Some(id) = self.id {
            let (delivery, body) = services.webhooks.delivery(webhook, id).await?;
            show_delivery(form, &delivery, &body);
            return Ok(());
        }
        let page = Page { after: self.after, limit: self.limit, ..Page::default() };
        let wanted = (self.state, self.kind);
        let found = services.webhooks.deliveries(webhook, wanted, page).await?;
        show_page(form, &found, DELIVERY, self.limit);
        Ok(())
    }
}

impl ReplayCommand {
    async fn run(self, services: &Services, form: Form) -> Result<()> {
        let webhook = self.named.find(services).await?;
        let since = self.since;
        let which = match self.id {
            Some(id) => Replay::One(id),
            None if self.dead => Replay::All { state: State::Dead, since },
            None => Replay::All { state: State::Done, since },
        };
        let count = services.webhooks.replay(webhook, which, self.dry_run).await?;
        if form.json {
            out::data(json!({ "applied": !self.dry_run, "deliveries": count }).to_string());
        } else if self.dry_run {
            form.talk(
                format!("dry run: {count} would be told again"),
                format!("simulação: seriam avisadas de novo: {count}"),
            );
        } else {
            form.talk(format!("{count} are told again"), format!("avisadas de novo: {count}"));
        }
        Ok(())
    }
}

/// Orders a test and waits for what it comes to; one that was not taken is an error, so that a script sees it.
async fn test(services: &Services, webhook: Webhook, wait: Duration, form: Form) -> Result<()> {
    let begun = Mono::now();
    let mut delivery = services.webhooks.test(webhook.clone()).await?;
    while matches!(delivery.state, State::Ready | State::Leased) && begun.elapsed() < wait {
        sleep(LOOK).await;
        delivery = services.webhooks.delivery(webhook.clone(), delivery.id).await?.0;
    }
    show(form, std::slice::from_ref(&delivery), DELIVERY);
    let words = match delivery.state {
        State::Done => {
            form.talk("the consumer took it", "o consumidor aceitou");
            return Ok(());
        }
        State::Dead => {
            form.lang.pick("the consumer did not take the test", "o consumidor não aceitou o teste")
        }
        State::Ready | State::Leased => form.lang.pick(
            "the test waits to be told; does a server run on this data folder?",
            "o teste aguarda envio; há um servidor em execução nesta pasta de dados?",
        ),
    };
    Err(Error::new(Code::WebhookUntold, words))
}

/// The one place where a webhook's secret is printed.
fn show_secret(form: Form, made: &WithSecret) {
    if form.json {
        let mut line = serde_json::to_value(&made.webhook).unwrap_or_default();
        line["secret"] = json!(made.reveal());
        out::data(line.to_string());
        return;
    }
    out::data(format!("{:<15} {}", "id", made.webhook.id));
    out::data(format!("{:<15} {}", "url", made.webhook.url.shown()));
    out::data(format!("{:<15} {}", "secret", made.reveal()));
    form.only_now("secret");
}

fn show_one(form: Form, webhook: &Webhook) {
    show(form, std::slice::from_ref(webhook), WEBHOOK);
    if form.json {
        return;
    }
    let facts = [
        (["description", "descrição"], webhook.description.clone()),
        (["secret made", "secret criado em"], webhook.secret_at.to_string()),
        (["former secret until", "secret anterior até"], when(webhook.former_until, form.lang)),
        (["failures in a row", "falhas seguidas"], webhook.failures.to_string()),
        (["rests until", "descansa até"], when(webhook.rests_until, form.lang)),
    ];
    facts_of(form, facts.to_vec());
}

fn show_delivery(form: Form, delivery: &Delivery, body: &str) {
    if form.json {
        let mut line = serde_json::to_value(delivery).unwrap_or_default();
        line["body"] = serde_json::from_str(body).unwrap_or(Value::Null);
        out::data(line.to_string());
        return;
    }
    show(form, std::slice::from_ref(delivery), DELIVERY);
    facts_of(form, vec![(["body", "corpo"], body.to_owned())]);
}

fn facts_of(form: Form, facts: Vec<([&str; 2], String)>) {
    let line = |([en, pt], value): ([&str; 2], String)| vec![form.lang.pick(en, pt).into(), value];
    let head = [["WHAT", "O QUE"], ["VALUE", "VALOR"]];
    print(form, &head, facts.into_iter().map(line).collect());
}

fn events(webhook: &Webhook) -> String {
    webhook.events.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",")
}

fn state(delivery: &Delivery, lang: Lang) -> String {
    let waits = lang.pick(" (waits for staging)", " (aguarda a staging)");
    let waits = if delivery.waits_for_staging { waits } else { "" };
    format!("{}{waits}", delivery.state.as_str())
}

/// An address, or what standard input says it is.
fn address(given: &str, lang: Lang) -> Result<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let unread = lang.pick(
        "the address could not be read from standard input",
        "não foi possível ler o endereço da entrada padrão",
    );
    let longest = protocol::limits::WEBHOOK_URL_BYTES as u64 + 2;
    std::io::stdin().take(longest).read_to_string(&mut text).coded(Code::BadRequest, unread)?;
    Ok(text.trim().to_owned())
}
