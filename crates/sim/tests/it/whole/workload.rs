//! A busy ERP on PostgreSQL: many sessions with long transactions, savepoints, key updates, rollbacks and deletes.
//!
//! Promises: a seed repeats each session's statements (their interleaving is the database's).

use std::time::Duration;

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

/// Runs `sessions` sessions of `transactions` transactions each and waits for their end.
pub(crate) async fn run(url: &str, sessions: u64, transactions: u32, chance: &mut Chance) {
    let mut running = Vec::new();
    for number in 0..sessions {
        let (url, chance) = (url.to_owned(), Chance::new(chance.draw()));
        running.push(task::spawn("session", async move {
            session(&url, number, transactions, chance).await
        }));
    }
    for session in running {
        session.join().await.unwrap();
    }
}

async fn session(url: &str, number: u64, transactions: u32, mut chance: Chance) {
    let client = servers::connect(url).await.unwrap();
    client.batch_execute("SET lock_timeout = '3s'").await.unwrap();
    for _ in 0..transactions {
        client.batch_execute("BEGIN").await.unwrap();
        // A transaction may wait before its first write (F02) and long after it (F01).
        if chance.percent(15) {
            clock::sleep(Duration::from_millis(chance.below(1500))).await;
        }
        for _ in 0..=chance.below(6) {
            if !statement(&client, number, &mut chance).await {
                break;
            }
        }
        if chance.percent(10) {
            clock::sleep(Duration::from_millis(chance.below(4000))).await;
        }
        let end = if chance.percent(15) { "ROLLBACK" } else { "COMMIT" };
        client.batch_execute(end).await.unwrap();
    }
}

/// One statement, sometimes in a savepoint that is rolled back; false where the transaction is lost (a lock).
async fn statement(client: &tokio_postgres::Client, session: u64, chance: &mut Chance) -> bool {
    let sql = change(session, chance);
    if chance.percent(20) {
        let inner = format!("SAVEPOINT s; {sql}; ROLLBACK TO s");
        return client.batch_execute(&inner).await.is_ok();
    }
    client.batch_execute(&sql).await.is_ok()
}

fn change(session: u64, chance: &mut Chance) -> String {
    let (id, fresh) = (chance.below(2500) + 1, 1_000_000 * (session + 1) + chance.below(900_000));
    let (sku, level, n) = (chance.below(220), chance.below(5), chance.below(100_000));
    match chance.below(13) {
        0 | 1 => format!(
            "INSERT INTO orders (id, customer, amount) VALUES ({fresh}, 'novo ç {n}', {n}.5) ON CONFLICT DO NOTHING"
        ),
        2 | 3 => format!("UPDATE orders SET amount = {n}, note = 'n{n}' WHERE id = {id}"),
        4 => format!("UPDATE orders SET customer = '' WHERE id BETWEEN {id} AND {id} + 20"),
        5 => format!("DELETE FROM orders WHERE id = {id}"),
        6 => format!(
            "UPDATE orders SET id = {fresh} WHERE id = {id} AND NOT EXISTS (SELECT FROM orders WHERE id = {fresh})"
        ),
        7 => format!(
            "UPDATE stock SET quantity = {n}, seen = '2024-01-02 03:04:05.{n:06}' WHERE id = {id} % 500"
        ),
        8 => format!(
            "INSERT INTO stock (id, quantity) VALUES ({fresh}, NULL) ON CONFLICT DO NOTHING"
        ),
        9 => format!("DELETE FROM stock WHERE id = {id} % 500"),
        10 => format!(
            "INSERT INTO prices VALUES ('sku {sku}', {level}, {n}.10) ON CONFLICT (sku, level) DO UPDATE SET price = EXCLUDED.price"
        ),
        11 => format!(
            "UPDATE prices SET sku = 'moved {n}' WHERE sku = 'sku {sku}' AND level = {level}"
        ),
        _ => format!("DELETE FROM prices WHERE sku = 'sku {sku}' AND level = {level}"),
    }
}
