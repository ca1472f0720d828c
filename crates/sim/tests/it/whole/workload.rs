//! A busy ERP on PostgreSQL: many sessions with long transactions, savepoints, key updates, keys used again, rollbacks,
//! deletes and two-phase commits.
//!
//! Promises: a seed repeats each session's statements (their interleaving is the database's).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::{clock, task};
use sim::{chance::Chance, servers};

/// With a stamp, without one, and with a key of text and number.
pub(crate) const TABLES: [&str; 3] = ["orders", "stock", "prices"];

/// `orders` is stamped by default and trigger with the start of the transaction, the hard case of F01 and F02.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, amount numeric(14,4), note text,
        changed_at timestamptz NOT NULL DEFAULT now());
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.changed_at := now(); RETURN NEW; END';
    CREATE TRIGGER stamp BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE INDEX ON orders (changed_at, id);
    CREATE TABLE stock (id integer PRIMARY KEY, quantity integer, seen timestamp, fresh boolean, image bytea);
    CREATE TABLE prices (sku text, level smallint, price numeric, PRIMARY KEY (sku, level));
    INSERT INTO orders SELECT g, 'customer ' || g % 97, g * 1.25, NULL, now() - interval '1 day' FROM generate_series(1, 2000) g;
    INSERT INTO stock SELECT g, g % 50, NULL, g % 2 = 0, '\\x00ff' FROM generate_series(1, 500) g;
    INSERT INTO prices SELECT 'sku ' || g % 200, g / 200, g FROM generate_series(0, 999) g;
    ANALYZE";

/// What happened between all sessions: rows by kind of change, ends of transactions, and how many were open at once.
#[derive(Debug, Default)]
pub(crate) struct Told {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl Told {
    fn add(&self, what: &'static str, rows: u64) {
        *self.counts.lock().unwrap().entry(what).or_default() += rows;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// Transactions that were open at the same time, at the most.
    pub(crate) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::Relaxed)
    }

    fn begins(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
    }

    fn ends(&self, how: &'static str) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.add(how, 1);
    }
}

/// Each kind of change and of end that a run must have come to.
pub(crate) const KINDS: [&str; 19] = [
    "order inserted",
    "order updated",
    "orders updated at once",
    "order deleted",
    "order under another key",
    "order under a key that was deleted",
    "stock inserted",
    "stock updated",
    "stock deleted",
    "price inserted or updated",
    "price under another key",
    "price deleted",
    "savepoint released",
    "savepoint rolled back",
    "committed",
    "committed late",
    "committed longer than the allowance",
    "committed in two phases",
    "rolled back",
];

/// Runs `sessions` sessions of `transactions` transactions each and waits for their end. The first session begins with
/// a transaction that is longer than what a stamp may err.
pub(crate) async fn run(
    url: &str,
    sessions: u64,
    transactions: u32,
    chance: &mut Chance,
) -> Arc<Told> {
    let told = Arc::new(Told::default());
    let mut running = Vec::new();
    for number in 0..sessions {
        let chance = Chance::new(chance.draw());
        let client = servers::connect(url).await.unwrap();
        let session = Session { number, client, chance, told: Arc::clone(&told) };
        running.push(task::spawn("session", session.run(transactions)));
    }
    for session in running {
        session.join().await.unwrap();
    }
    told
}

struct Session {
    number: u64,
    client: tokio_postgres::Client,
    chance: Chance,
    told: Arc<Told>,
}

/// PostgreSQL's stamps may err by 10 s, as the agent takes it.
const ALLOWANCE: Duration = Duration::from_secs(10);

impl Session {
    async fn run(mut self, transactions: u32) {
        self.client.batch_execute("SET lock_timeout = '3s'").await.unwrap();
        if self.number == 0 {
            self.longer_than_the_allowance().await;
        }
        for nth in 0..transactions {
            self.transaction(nth).await;
        }
    }

    /// Nobody else touches what it writes, so it cannot lose a lock.
    async fn longer_than_the_allowance(&self) {
        self.told.begins();
        let write = "BEGIN; INSERT INTO orders (id, customer, amount) VALUES (900001, 'long', 1)";
        self.client.batch_execute(write).await.unwrap();
        clock::sleep(ALLOWANCE + Duration::from_secs(2)).await;
        self.client.batch_execute("COMMIT").await.unwrap();
        self.told.ends("committed longer than the allowance");
    }

    async fn transaction(&mut self, nth: u32) {
        self.client.batch_execute("BEGIN").await.unwrap();
        self.told.begins();
        // A transaction may wait before its first write (F02) and long after it (F01).
        if self.chance.percent(15) {
            clock::sleep(Duration::from_millis(self.chance.below(1500))).await;
        }
        let mut lost = false;
        for _ in 0..=self.chance.below(6) {
            lost = !self.statement().await;
            if lost {
                break;
            }
        }
        let late = self.chance.percent(10);
        if late {
            clock::sleep(Duration::from_millis(self.chance.below(4000))).await;
        }
        let how = if lost || self.chance.percent(15) {
            self.client.batch_execute("ROLLBACK").await.unwrap();
            "rolled back"
        } else if self.chance.percent(4) {
            self.in_two_phases(nth).await;
            "committed in two phases"
        } else {
            self.client.batch_execute("COMMIT").await.unwrap();
            if late { "committed late" } else { "committed" }
        };
        self.told.ends(how);
    }

    /// Prepared by this session, committed by itself a moment later (F06).
    async fn in_two_phases(&mut self, nth: u32) {
        let id = format!("s{}t{nth}", self.number);
        self.client.batch_execute(&format!("PREPARE TRANSACTION '{id}'")).await.unwrap();
        clock::sleep(Duration::from_millis(self.chance.below(2500))).await;
        self.client.batch_execute(&format!("COMMIT PREPARED '{id}'")).await.unwrap();
    }

    /// One statement, sometimes in a savepoint that is kept or rolled back; false where the transaction is lost (a lock).
    async fn statement(&mut self) -> bool {
        let (kind, sql) = change(self.number, &mut self.chance);
        if !self.chance.percent(30) {
            return self.execute(kind, &sql).await;
        }
        self.client.batch_execute("SAVEPOINT s").await.unwrap();
        let done = self.execute(kind, &sql).await;
        if !done || self.chance.percent(60) {
            // Rolled back by choice, or because the statement failed: the transaction itself goes on.
            self.client.batch_execute("ROLLBACK TO s; RELEASE s").await.unwrap();
            self.told.add("savepoint rolled back", 1);
            return true;
        }
        let (kind, sql) = change(self.number, &mut self.chance);
        self.client.batch_execute("SAVEPOINT inner_one").await.unwrap();
        let end = if self.execute(kind, &sql).await { "RELEASE" } else { "ROLLBACK TO" };
        self.client.batch_execute(&format!("{end} inner_one; RELEASE s")).await.unwrap();
        self.told.add("savepoint released", 1);
        true
    }

    async fn execute(&self, kind: &'static str, sql: &str) -> bool {
        match self.client.execute(sql, &[]).await {
            Ok(rows) => {
                self.told.add(kind, rows);
                true
            }
            Err(_) => false,
        }
    }
}

fn change(session: u64, chance: &mut Chance) -> (&'static str, String) {
    let (id, fresh) = (chance.below(2500) + 1, 1_000_000 * (session + 1) + chance.below(900_000));
    let (sku, level, n) = (chance.below(220), chance.below(5), chance.below(100_000));
    match chance.below(15) {
        0 => (
            "order inserted",
            format!(
                "INSERT INTO orders (id, customer, amount) VALUES ({fresh}, 'novo ç {n}', {n}.5) ON CONFLICT DO NOTHING"
            ),
        ),
        1 | 2 => (
            "order updated",
            format!("UPDATE orders SET amount = {n}, note = 'n{n}' WHERE id = {id}"),
        ),
        3 => (
            "orders updated at once",
            format!("UPDATE orders SET customer = '' WHERE id BETWEEN {id} AND {id} + 20"),
        ),
        4 | 5 => ("order deleted", format!("DELETE FROM orders WHERE id = {id}")),
        6 => (
            "order under another key",
            format!(
                "UPDATE orders SET id = {fresh} WHERE id = {id} AND NOT EXISTS (SELECT FROM orders WHERE id = {fresh})"
            ),
        ),
        // Keys up to 2000 were all there once: a free one was deleted, or went to another key.
        7 | 8 => (
            "order under a key that was deleted",
            format!(
                "INSERT INTO orders (id, customer, amount) SELECT g, 'again {n}', {n} FROM generate_series(1, 2000) g
                  WHERE NOT EXISTS (SELECT FROM orders WHERE id = g) ORDER BY (g + {id}) % 2000 LIMIT 1
                 ON CONFLICT DO NOTHING"
            ),
        ),
        9 => (
            "stock updated",
            format!(
                "UPDATE stock SET quantity = {n}, seen = '2024-01-02 03:04:05.{n:06}' WHERE id = {id} % 500"
            ),
        ),
        10 => (
            "stock inserted",
            format!(
                "INSERT INTO stock (id, quantity) VALUES ({fresh}, NULL) ON CONFLICT DO NOTHING"
            ),
        ),
        11 => ("stock deleted", format!("DELETE FROM stock WHERE id = {id} % 500")),
        12 => (
            "price inserted or updated",
            format!(
                "INSERT INTO prices VALUES ('sku {sku}', {level}, {n}.10) ON CONFLICT (sku, level) DO UPDATE SET price = EXCLUDED.price"
            ),
        ),
        13 => (
            "price under another key",
            format!(
                "UPDATE prices SET sku = 'moved {n}' WHERE sku = 'sku {sku}' AND level = {level}"
            ),
        ),
        _ => (
            "price deleted",
            format!("DELETE FROM prices WHERE sku = 'sku {sku}' AND level = {level}"),
        ),
    }
}
