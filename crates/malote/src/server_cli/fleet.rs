//! Commands of the fleet: agents as they were seen, their tables, and orders to them.
//!
//! Promises: what is shown is the store's state now, whether or not a server runs; an order given here is taken by the
//! running server within a second.
//! Never: reaches an agent itself: agents call the server.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use protocol::{Result, names::TableName};
use runtime::clock::Wall;
use serde_json::json;
use server::{
    model::{
        fleet::{AgentView, Doing, TableQuery, TableView},
        order::{OrderQuery, OrderState, OrderView, OrderWish, Verb},
    },
    service::Services,
};

use super::{
    OfPlace, OfTenant, Paging, RowPaging,
    lists::{Column, Form, show, show_page},
};
use crate::{lang::Lang, out};

const AGENT: &[Column<AgentView>] = &[
    (["AGENT", "AGENTE"], |a, _| a.agent.clone()),
    (["LINK", "SITUAÇÃO"], link),
    (["SINCE", "DESDE"], |a, _| a.since.map_or_else(String::new, |at| at.to_string())),
    (["LAST SEEN", "VISTO POR ÚLTIMO"], |a, _| a.last_seen.to_string()),
    (["LAST REPORT", "ÚLTIMO RELATO"], |a, _| {
        a.last_report.map_or_else(String::new, |at| at.to_string())
    }),
    (["VERSION", "VERSÃO"], |a, _| a.version.clone()),
    (["DATABASE", "BANCO"], |a, _| a.database.clone()),
    (["TABLES", "TABELAS"], |a, _| a.tables.to_string()),
    (["PARKED", "PARADAS"], |a, _| a.parked.to_string()),
    (["DEGRADED", "DEGRADADAS"], |a, _| a.degraded.to_string()),
    (["QUARANTINED", "QUARENTENA"], |a, _| a.quarantined.to_string()),
    (["WAITS FOR YOU", "ESPERA POR VOCÊ"], waits),
];
const TABLE: &[Column<TableView>] = &[
    (["TABLE", "TABELA"], |t, _| t.table.to_string()),
    (["STATE", "ESTADO"], |t, _| match &t.parked_code {
        Some(code) => format!("{}: {code}", t.state.as_str()),
        None => t.state.as_str().to_owned(),
    }),
    (["SINCE", "DESDE"], |t, _| t.since.to_string()),
    (["MODE", "MODO"], |t, _| t.mode.as_str().to_owned()),
    (["WATERMARK", "MARCA"], |t, _| t.watermark.clone().unwrap_or_default()),
    (["LAG S", "ATRASO S"], |t, _| (t.lag_ms / 1_000).to_string()),
    (["QUARANTINED", "QUARENTENA"], |t, _| t.quarantined.to_string()),
    (["DIFFERENCES", "DIFERENÇAS"], |t, _| t.differences.to_string()),
    (["VERIFIED", "VERIFICADA"], |t, _| {
        let at = t.verified_at.map(|at| at.to_string());
        let last = t.unverified.as_ref().map(|code| format!("({code})"));
        [at, last].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }),
    (["HELD BY", "RETIDA POR"], |t, _| t.held_by.clone().unwrap_or_default()),
    (["DEGRADED", "DEGRADADA"], |t, _| t.degraded.clone().unwrap_or_default()),
    (["REPORTED", "RELATADO"], |t, _| t.reported_at.to_string()),
];
const ORDER: &[Column<OrderView>] = &[
    (["ORDER", "ORDEM"], |o, _| o.order.map_or_else(String::new, |number| number.to_string())),
    (["WHAT", "O QUÊ"], |o, _| o.verb.as_str().to_owned()),
    (["TABLE", "TABELA"], |o, lang| match &o.table {
        Some(table) => table.to_string(),
        None => lang.pick("all", "todas").to_owned(),
    }),
    (["STATE", "ESTADO"], state),
    (["ORDERED", "ORDENADO"], |o, _| o.ordered_at.to_string()),
    (["ENDED", "TERMINOU"], |o, _| o.ended_at.map_or_else(String::new, |at| at.to_string())),
    (["WHO", "QUEM"], |o, _| o.who.clone()),
    (["WITH", "COM"], |o, _| {
        let args = o.args.iter().map(|(name, value)| format!("{name}={value}"));
        args.collect::<Vec<_>>().join(" ")
    }),
];

fn link(agent: &AgentView, lang: Lang) -> String {
    use server::model::fleet::AgentLink::{Ended, Refused, Sending, Silent, Standby};
    let word = match agent.link {
        Sending => lang.pick("sending", "enviando"),
        Standby => lang.pick("standby", "em espera"),
        Refused => lang.pick("refused", "recusado"),
        Ended => lang.pick("ended", "encerrado"),
        Silent => lang.pick("silent", "em silêncio"),
    };
    word.to_owned()
}

/// What a person has to decide of an agent, and how.
fn waits(agent: &AgentView, lang: Lang) -> String {
    let Some(code) = &agent.code else { return String::new() };
    match code.as_str() {
        "DATABASE_CHANGED" => format!("{code} ({}): session accept", agent.differs),
        "INSTANCE_TWICE" => {
            let how = lang.pick(
                "stop one agent, then session release",
                "pare um dos agentes, depois session release",
            );
            format!("{code}: {how}")
        }
        "VERSION_UNSUPPORTED" => {
            let how = lang.pick("update the older side", "atualize o lado mais antigo");
            format!("{code}: {how}")
        }
        _ => code.clone(),
    }
}

fn state(order: &OrderView, lang: Lang) -> String {
    let word = match order.state {
        OrderState::Waiting => lang.pick("waiting", "aguardando"),
        OrderState::Sent => lang.pick("sent", "enviada"),
        OrderState::UnderWay => lang.pick("under way", "em andamento"),
        OrderState::Done => lang.pick("done", "concluída"),
        OrderState::Failed => lang.pick("failed", "falhou"),
        OrderState::Withdrawn => lang.pick("withdrawn", "retirada"),
    };
    match &order.code {
        Some(code) => format!("{word}: {code}"),
        None => word.to_owned(),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Agents of a tenant: who sends, who stands by, who is refused, who fell silent.
    Agents {
        #[command(flatten)]
        of: OfTenant,
        #[command(flatten)]
        paging: Paging,
    },
    /// Tables of a stream as its agent reported them last.
    Tables {
        /// Only those in this state: BASE_LOAD, STREAMING, RELOAD, PAUSED, PARKED or UNKNOWN.
        #[arg(long)]
        state: Option<Doing>,
        /// Only those that are parked, degraded, or have rows in quarantine.
        #[arg(long)]
        troubled: bool,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        paging: Paging,
    },
    /// Order the agent of a stream to do something; it does it once.
    #[command(subcommand)]
    Order(OrderCommand),
    /// Orders to the agents of a stream, the newest first.
    Orders {
        /// Only those that are waiting, sent, under-way, done, failed or withdrawn.
        #[arg(long)]
        state: Option<OrderState>,
        /// Only those with this verb: RELOAD, PAUSE, RESUME, RETRY, VERIFY, REPAIR or LOG_LEVEL.
        #[arg(long)]
        verb: Option<Verb>,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        rows: RowPaging,
    },
    /// Take an order back that no agent has yet.
    Withdraw {
        /// The order's number, as the list shows it.
        order: i64,
        #[command(flatten)]
        at: OfPlace,
    },
}

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  malote server fleet order reload FLAN
  malote server fleet order pause FLAN --why \"month end\"
  malote server fleet order resume --all
  malote server fleet order log-level debug --minutes 15")]
pub(super) enum OrderCommand {
    /// Load a table again, by the agent's own count of loads.
    Reload(OfTable),
    /// Leave a table alone until it is resumed.
    Pause {
        #[command(flatten)]
        of: OfTable,
        /// Why, for those who look at the agent's status.
        #[arg(long, value_name = "WORDS")]
        why: Option<String>,
    },
    /// Follow a paused table again; with --all, lift every pause.
    Resume(OfTable),
    /// Try again at once what is parked or in the agent's quarantine.
    Retry(OfTable),
    /// Compare a table with what is staged of it.
    Verify {
        #[command(flatten)]
        of: OfTable,
        #[command(flatten)]
        range: KeyRange,
    },
    /// Compare a table with what is staged of it, and send again what differs.
    Repair {
        #[command(flatten)]
        of: OfTable,
        #[command(flatten)]
        range: KeyRange,
    },
    /// Have the agent write a detailed log for a while.
    LogLevel {
        /// How much it says; off ends it.
        #[arg(value_enum)]
        level: Level,
        /// For how long.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_440))]
        minutes: u32,
        #[command(flatten)]
        how: How,
    },
}

/// Where an order goes, and whether it is meant.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Tell whether it could be given, and give nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: OfPlace,
}

/// The tables of an order.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["table", "all"])))]
pub(super) struct OfTable {
    /// The table.
    table: Option<TableName>,
    /// Every table.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: How,
}

/// A range of keys.
#[derive(Debug, Args)]
pub(super) struct KeyRange {
    /// First key of the range.
    #[arg(long, value_name = "KEY", conflicts_with = "all")]
    from: Option<String>,
    /// Key behind the range.
    #[arg(long, value_name = "KEY", conflicts_with = "all")]
    to: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Level {
    Info,
    Debug,
    Trace,
    Off,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
            Self::Off => "off",
        }
    }
}

impl OrderCommand {
    /// Verb, tables, arguments that were given, and where it goes.
    fn read(self) -> (OrderWish, How) {
        let (verb, of, args) = match self {
            Self::Reload(of) => (Verb::Reload, of, vec![]),
            Self::Pause { of, why } => (Verb::Pause, of, vec![("why", why)]),
            Self::Resume(of) => (Verb::Resume, of, vec![]),
            Self::Retry(of) => (Verb::Retry, of, vec![]),
            Self::Verify { of, range } => (Verb::Verify, of, range.args()),
            Self::Repair { of, range } => (Verb::Repair, of, range.args()),
            Self::LogLevel { level, minutes, how } => {
                let level = Some(level.as_str().to_owned());
                let args = vec![("level", level), ("minutes", Some(minutes.to_string()))];
                (Verb::LogLevel, OfTable { table: None, all: true, how }, args)
            }
        };
        let args = args.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let args: BTreeMap<String, String> = args.collect();
        (OrderWish { verb, table: of.table, args }, of.how)
    }
}

impl KeyRange {
    fn args(self) -> Vec<(&'static str, Option<String>)> {
        vec![("from", self.from), ("to", self.to)]
    }
}

impl FleetCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let (fleet, now) = (&services.fleet, Wall::now());
        match self {
            Self::Agents { of, paging } => {
                let tenant = of.find(services).await?.id;
                let found = fleet.agents(tenant, paging.page(), now).await?;
                show_page(form, &found, AGENT, paging.limit);
            }
            Self::Tables { state, troubled, at, paging } => {
                let (place, query) = (at.find(services).await?, TableQuery { state, troubled });
                let found = fleet.tables(place, query, paging.page(), now).await?;
                show_page(form, &found, TABLE, paging.limit);
            }
            Self::Order(order) => {
                let (wish, how) = order.read();
                let place = how.at.find(services).await?;
                let done = fleet.order(place, wish, how.dry_run, now).await?;
                if form.json {
                    let mut line = json!(done.order);
                    line["applied"] = json!(done.applied);
                    out::data(line.to_string());
                    return Ok(());
                }
                show(form, &[done.order], ORDER);
                match done.applied {
                    true => form.talk(
                        "given; fleet orders tells what becomes of it",
                        "dada; fleet orders mostra o que acontece com ela",
                    ),
                    false => form.talk("would be given", "seria dada"),
                }
            }
            Self::Orders { state, verb, at, rows } => {
                let (place, query) = (at.find(services).await?, OrderQuery { state, verb });
                let found = fleet.orders(place, query, rows.page()).await?;
                show_page(form, &found, ORDER, rows.limit);
            }
            Self::Withdraw { order, at } => {
                let withdrawn = fleet.withdraw(at.find(services).await?, order, now).await?;
                show(form, &[withdrawn], ORDER);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        order: OrderCommand,
    }

    fn read(line: &str) -> Option<OrderWish> {
        let words = std::iter::once("order").chain(line.split_whitespace());
        let line = <Line as clap::Parser>::try_parse_from(words).ok()?;
        Some(line.order.read().0)
    }

    #[test]
    fn an_order_is_read_with_what_its_verb_takes_and_all_tables_are_named_as_such() {
        let wish = read("pause FLAN --why closing").unwrap();
        assert_eq!((wish.verb, wish.table), (Verb::Pause, Some("FLAN".parse().unwrap())));
        assert_eq!(wish.args["why"], "closing");
        let wish = read("verify FLAN --from 1").unwrap();
        assert_eq!((wish.verb, wish.args.len()), (Verb::Verify, 1));
        let wish = read("log-level trace --minutes 5").unwrap();
        assert_eq!((wish.args["level"].as_str(), wish.args["minutes"].as_str()), ("trace", "5"));
        assert_eq!(read("resume --all").unwrap().table, None);
        for bad in [
            "reload",
            "reload FLAN --all",
            "verify --all --from 1",
            "log-level loud",
            "log-level debug --minutes 1441",
            "explode FLAN",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
        for line in ["reload --all", "retry FLAN", "repair FLAN --from 1 --to 9", "log-level off"] {
            assert!(read(line).unwrap().checked().is_ok(), "{line}");
        }
    }
}
