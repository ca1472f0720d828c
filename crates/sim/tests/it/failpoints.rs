//! Failpoints: every named place of agent and server fails, waits and dies once, in the real processes, and nothing is
//! lost or taken twice (`correctness.md` 4.2 T4f; F46; I1, I3, I7, I8).
//!
//! The names are read from the sources, so a place that is added is tested without a list to keep. A place that no
//! workload reaches fails the test. A consumer of webhooks listens all the while: in the end it was told of every
//! complete batch.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::{
    clock::{self, Mono},
    config,
};
use sim::{chance::Chance, process, servers};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::whole::{
    compare,
    erp::Erp,
    world::{Plan, World},
};

const VARIABLE: &str = "MALOTE_FAILPOINTS";

/// `t` has a stamp that may be empty, `u` is compared by its rows.
const SCHEMA: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
    CREATE INDEX ON t (changed_at, id);
    CREATE TABLE u (id bigint PRIMARY KEY, v text);
    INSERT INTO t SELECT g, repeat('x', 60), now() - interval '1 day' FROM generate_series(1, 600) g;
    INSERT INTO u SELECT g, repeat('y', 60) FROM generate_series(1, 300) g;
    ANALYZE";

/// Whose process a place is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Agent,
    Server,
}

type Place = (Side, String);

/// Every place that the sources of a crate name.
fn places_of(side: Side) -> Vec<Place> {
    let name = match side {
        Side::Agent => "agent",
        Side::Server => "server",
    };
    let mut names = Vec::new();
    let mut folders = vec![servers::crate_folder().join("..").join(name).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.extend(named_in(&path));
            }
        }
    }
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(all, names.len(), "a name stands at two places");
    names.into_iter().map(|name| (side, name)).collect()
}

fn named_in(path: &PathBuf) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let mut names = Vec::new();
    for mark in ["failpoint::reach(", "failpoint::pass("] {
        for call in text.split(mark).skip(1) {
            let name = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            names.push(name.expect("a place's name is written where it is").to_owned());
        }
    }
    names
}

fn places() -> Vec<Place> {
    let mut all = places_of(Side::Agent);
    all.extend(places_of(Side::Server));
    assert!(all.len() >= 60, "{} places", all.len());
    all
}

/// A world whose processes are started again as often as they end.
struct Tended {
    world: World,
    /// What is ordered and was not seen yet.
    ordered: BTreeSet<Place>,
    action: String,
    round: u32,
    /// The last batch from before there was a webhook.
    before: i64,
    /// Answers every event.
    _consumer: runtime::task::Task<()>,
}

impl Tended {
    async fn start() -> Self {
        let url = servers::shared().await.unwrap();
        let erp = Erp::postgres(&url).await;
        erp.run(SCHEMA).await.unwrap();
        let plan = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at");
        let mut world = World::start(plan, erp).await;
        let (url, _consumer) = consumer().await;
        world.cloud.command(&["webhook", "add", "warehouse", "--url", &url]);
        world.equal(Duration::from_secs(60)).await;
        let store = compare::staging(&world.cloud.store()).unwrap();
        let last = "SELECT coalesce(max(id), 0) FROM batch";
        let before = store.query_row(last, [], |row| row.get(0)).unwrap();
        Self { world, ordered: BTreeSet::new(), action: String::new(), round: 0, before, _consumer }
    }

    /// Waits until the consumer took the event of every complete batch. What was under way when a process died is told
    /// again only once its lease is over.
    async fn all_told(&self, within: Duration) {
        let store = compare::staging(&self.world.cloud.store()).unwrap();
        let untold = "SELECT count(*) FROM batch b WHERE state = 'complete' AND id > ?1 AND NOT EXISTS (
                        SELECT 1 FROM webhook_event e JOIN webhook_delivery d ON d.event_seq = e.seq
                         WHERE (e.tenant_id, e.environment_id, e.erp, e.batch) = (b.tenant_id, b.environment_id, b.erp, b.id)
                           AND e.type = 'batch.complete' AND d.state = 'done')";
        let begun = Mono::now();
        loop {
            let left: i64 = store.query_row(untold, [self.before], |row| row.get(0)).unwrap();
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < within, "{left} complete batches are not told");
            clock::sleep(Duration::from_millis(300)).await;
        }
    }

    fn orders(&self, side: Side) -> String {
        let mine = self.ordered.iter().filter(|(of, _)| *of == side);
        let words: Vec<_> = mine.map(|(_, name)| format!("{name}={}", self.action)).collect();
        words.join(",")
    }

    /// Both processes begin anew, with these orders; the agent without its journal, so that all of its ways are walked.
    async fn order(&mut self, places: &[Place], action: &str) {
        (self.ordered, self.action) = (places.iter().cloned().collect(), action.to_owned());
        // Asked to end it gives its lease back, or the next one would wait for it.
        self.world.end_agent().await;
        self.world.lose_journal();
        self.world.cloud.kill();
        for log in [self.world.agent_log(), self.world.cloud.log_file()] {
            fs::write(log, "").unwrap();
        }
        self.begin_server();
        self.begin_agent();
    }

    fn begin_server(&mut self) {
        let orders = self.orders(Side::Server);
        let quick = ("MALOTE_SERVER_WEBHOOKS__FIRST_RETRY_SECONDS", "1");
        self.world.cloud.launch_with(&[(VARIABLE, &orders), quick]);
    }

    fn begin_agent(&mut self) {
        let orders = self.orders(Side::Agent);
        self.world.start_agent_with(&[(VARIABLE, &orders)]);
    }

    /// Notes what was reached and starts again what ended.
    fn tend(&mut self) {
        // Looked at first: what it did before its end stands in its log.
        let ended = (self.world.cloud.ended(), self.world.agent_ended());
        self.tend_logs();
        if ended.0 {
            self.begin_server();
        }
        if ended.1 {
            self.begin_agent();
        }
    }

    fn tend_logs(&mut self) {
        for (side, log) in
            [(Side::Agent, self.world.agent_log()), (Side::Server, self.world.cloud.log_file())]
        {
            let log = fs::read_to_string(log).unwrap();
            let told: BTreeSet<_> = log.lines().filter_map(told).collect();
            self.ordered.retain(|(of, name)| *of != side || !told.contains(name));
        }
    }

    /// The ERP changes in every way that Malote follows. Now and then an operator takes the lease away just before,
    /// so that an open batch meets a fence, or the agent is killed and begins with its journal.
    async fn stir(&mut self) {
        self.round += 1;
        let round = self.round;
        match round % 5 {
            2 => {
                // Where nobody holds it there is nothing to take away.
                let words =
                    ["server", "--config", "server.toml", "session", "release", "--erp", "LOGIX"];
                let _ = process::command(self.world.cloud.folder.path(), &words);
            }
            4 if !self.world.agent_ended() => {
                self.world.kill_agent();
                self.tend_logs();
                self.begin_agent();
            }
            _ => {}
        }
        let statements = format!(
            "UPDATE t SET v = 'r{round}', changed_at = now() WHERE id % 20 = {round} % 20;
             UPDATE t SET v = 'n{round}', changed_at = NULL WHERE id % 97 = {round} % 97;
             INSERT INTO t (id, v) VALUES (10000 + {round}, 'new') ON CONFLICT DO NOTHING;
             DELETE FROM t WHERE id = 10000 + {round} - 2;
             UPDATE u SET v = 'r{round}' WHERE id % 20 = {round} % 20;
             INSERT INTO u VALUES (10000 + {round}, 'new') ON CONFLICT DO NOTHING;
             DELETE FROM u WHERE id = 10000 + {round} - 2"
        );
        self.world.erp.run(&statements).await.unwrap();
    }

    /// Stirs until every order was carried out.
    async fn all_reached(&mut self, within: Duration) {
        let begun = Mono::now();
        let mut stirred: Option<Mono> = None;
        loop {
            self.tend();
            if self.ordered.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < within,
                "not reached: {:?}\n{}",
                self.ordered,
                self.world.logs()
            );
            if stirred.is_none_or(|at| at.elapsed() > Duration::from_millis(700)) {
                self.stir().await;
                stirred = Some(Mono::now());
            }
            clock::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until staging is equal to the ERP, starting again whatever ends.
    async fn equal(&mut self, within: Duration) {
        let begun = Mono::now();
        loop {
            self.tend();
            let found = self.world.differences().await;
            if found.is_empty() {
                break;
            }
            assert!(begun.elapsed() < within, "{}\n{}", found.join("\n"), self.world.logs());
            clock::sleep(Duration::from_millis(200)).await;
        }
        ledger_holds_together(&self.world.cloud.store());
    }
}

/// A consumer that takes whatever it is told, and its address.
async fn consumer() -> (String, runtime::task::Task<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let task = runtime::task::spawn("consumer", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            let mut call = Vec::new();
            // A caller that died has nobody left to answer.
            while !is_whole(&call) && stream.read_buf(&mut call).await.is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(answer).await;
        }
    });
    (url, task)
}

/// Whether a call came with all of its body.
fn is_whole(call: &[u8]) -> bool {
    let text = String::from_utf8_lossy(call).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.trim().parse().ok()).unwrap_or_default()
}

/// The name in a line that tells of an order carried out.
fn told(line: &str) -> Option<String> {
    let rest = line.contains("as ordered").then(|| line.split_once("\"failpoint\":\""))??.1;
    rest.split('"').next().map(str::to_owned)
}

/// What is complete has all its messages, numbered from 1 on, each accepted once (I2, I3).
fn ledger_holds_together(store: &Path) {
    let store = compare::staging(store).unwrap();
    let broken = "SELECT count(*) FROM batch b WHERE state = 'complete' AND (messages, row_count, messages) IS NOT (
                    SELECT count(*), coalesce(sum(m.row_count), 0), coalesce(max(m.number), 0) FROM ingest_message m
                     WHERE (m.tenant_id, m.environment_id, m.erp, m.batch) = (b.tenant_id, b.environment_id, b.erp, b.id))";
    let broken: i64 = store.query_row(broken, [], |row| row.get(0)).unwrap();
    assert_eq!(broken, 0, "complete batches whose messages do not add up");
}

/// In another order with each seed, some at a time: what fails together is told apart by its name.
fn shuffled(mut places: Vec<Place>, chance: &mut Chance) -> Vec<Place> {
    for at in (1..places.len()).rev() {
        let other = usize::try_from(chance.below(at as u64 + 1)).unwrap();
        places.swap(at, other);
    }
    places
}

fn seeded() -> Chance {
    let chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    chance
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_place_fails_once_and_nothing_is_lost() {
    let mut chance = seeded();
    let mut tended = Tended::start().await;
    for group in shuffled(places(), &mut chance).chunks(12) {
        println!("{group:?}");
        tended.order(group, "error").await;
        tended.all_reached(Duration::from_secs(90)).await;
        tended.equal(Duration::from_secs(90)).await;
    }
    tended.all_told(Duration::from_secs(180)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_place_waits_and_nothing_is_lost() {
    let mut tended = Tended::start().await;
    tended.order(&places(), "delay:15").await;
    tended.all_reached(Duration::from_secs(120)).await;
    tended.equal(Duration::from_secs(120)).await;
    tended.all_told(Duration::from_secs(180)).await;
}

/// A few of them by chance, all in the full run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_each_place_a_process_may_die_and_nothing_is_lost() {
    let mut chance = seeded();
    let mut all = shuffled(places(), &mut chance);
    if config::variable("MALOTE_TEST_FULL").is_none() {
        all.truncate(6);
    }
    let mut tended = Tended::start().await;
    for place in all {
        println!("{place:?}");
        tended.order(std::slice::from_ref(&place), "crash").await;
        tended.all_reached(Duration::from_secs(60)).await;
        tended.equal(Duration::from_secs(60)).await;
    }
    tended.all_told(Duration::from_secs(180)).await;
}
