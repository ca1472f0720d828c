//! Every limit both processes must agree on, each with its reason.
//!
//! Promises: relations between limits are checked when this file compiles.
//! Never: differs under test.

use std::time::Duration;

// --- names ---
/// Catalogues of the ERPs stay below 64; PostgreSQL at 63, SQL Server and Oracle at 128.
pub const TABLE_NAME_BYTES: usize = 128;
/// The contract's own limit (`contracts.md` 5.2).
pub const COLUMN_NAME_BYTES: usize = 128;
/// The known names have at most eight letters.
pub const ERP_NAME_BYTES: usize = 32;

// --- table messages ---
/// "5 MB" of document 001, measured on the encoded `Table` before compression.
pub const MESSAGE_BYTES: usize = 5 * 1024 * 1024;
/// Where Malote's sender stops: below the server's limit by room for the header fields.
pub const SENDER_MESSAGE_BYTES: usize = 5_000_000;
/// RM's figure (document 001, 3), used for every ERP.
pub const SENDER_MESSAGE_ROWS: usize = 200;
/// Fifty times RM's figure; more would only make one transaction long.
pub const MESSAGE_ROWS: usize = 10_000;
/// 2.6 M empty cells in 5 MB decode to 123 MB; 200,000 stay below 10 MB (F64).
pub const MESSAGE_CELLS: usize = 200_000;
/// SQLite's default of 2,000 columns a table, less the five of staging.
pub const TABLE_COLUMNS: usize = 1_995;
/// The wire pre-scan keeps offsets of this many key columns; catalogues allow 16 to 32.
pub const KEY_COLUMNS: usize = 32;
/// Type names are words of the contract; this only bounds hostile input.
pub const TYPE_NAME_BYTES: usize = 64;

// --- batches ---
/// A batch ends after this much reading, so that a long base load gives way to deltas.
pub const BATCH_READING: Duration = Duration::from_secs(5);
/// What a batch may hold: a quarter of the journal's disk budget.
pub const BATCH_BYTES: usize = 64 * 1024 * 1024;
/// At 200 rows a message 400,000 rows: a batch stays small enough to be read again.
pub const BATCH_MESSAGES: usize = 2_000;
/// An id further ahead of the server's clock burns the number space (`correctness.md` f).
pub const BATCH_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// People see an open batch as stalled after this silence.
pub const BATCH_STALLED: Duration = Duration::from_secs(60);
/// The server abandons an open batch after this silence.
pub const BATCH_SILENCE: Duration = Duration::from_secs(600);
/// What RM documents: a change leaves after five seconds.
pub const CYCLE: Duration = Duration::from_secs(5);

// --- the server's disk ---
/// Below this the server says that it is not ready: three messages of the largest size and their rows would not fit.
pub const STORE_FREE_BYTES: u64 = 16 * 1024 * 1024;

// --- the agent's disk ---
/// Room for the open batch in the journal (`correctness.md` j): twice a batch's bytes, since each row's key is kept beside
/// its message, and its hash.
pub const SPOOL_BYTES: u64 = 256 * 1024 * 1024;
/// Below this the agent stops reading: the open batch, the journal's own log and the known rows still find room.
pub const DISK_FREE_BYTES: u64 = 100 * 1024 * 1024;

/// Rows of history kept whatever their age: about 150 MB in the journal, a month of one batch every two seconds.
pub const HISTORY_ROWS: u64 = 1_000_000;
/// Rows that one SELECT over the journal gives at most: what a person or a script takes in one look.
pub const SQL_ROWS: usize = 10_000;
/// Text that one SELECT over the journal gives at most; it is held in memory whole.
pub const SQL_BYTES: usize = 8 * 1024 * 1024;

// --- refused rows ---
/// Rows refused one after another, with none of their table taken between them, before the table is parked. Each costs
/// a batch, and what refuses ten in a row refuses the table: its schema, not a value.
pub const REFUSED_IN_A_ROW: u32 = 10;
/// Rows refused of a table, taken ones between them or not, before one batch with rows of it was accepted: past this a
/// person's look is cheaper than a batch for every row.
pub const REFUSED_UNACCEPTED: u32 = 100;

// --- flight ---
/// Writes the sender keeps in flight; below the server's calls per connection. Of 200 rows each they carry 100,000 rows/s
/// where an answer takes 110 ms (design note 0006).
pub const SENDER_IN_FLIGHT: usize = 56;
/// Bytes the sender keeps in flight: 40 MB/s over a round trip of 200 ms. Each is held twice, as the message and as what
/// of it still waits for the network.
pub const SENDER_IN_FLIGHT_BYTES: usize = 8 * 1024 * 1024;
/// HTTP/2 streams a connection may hold open.
pub const CONNECTION_STREAMS: u32 = 64;
/// Calls the server works on per connection; leaves free slots for `Renew` and `Prepare`.
pub const CONNECTION_CALLS: usize = 62;
/// Bytes of Writes in flight per tenant, counted at [`DECODE_FACTOR`] times the wire.
pub const TENANT_IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of Prepare, Reconcile and reports in flight per tenant, counted alike: of their own, since Writes must not stop
/// them.
pub const TENANT_CONTROL_BYTES: usize = 32 * 1024 * 1024;
/// Body of Summary, Open, Renew, Release, Commands, Progress: names, numbers, and the facts of a database.
pub const CONTROL_BYTES: usize = 64 * 1024;
/// What decoding may cost over the wire bytes within the pre-scan's limits.
pub const DECODE_FACTOR: usize = 4;
/// How long a Write waits for its predecessor on the same connection.
pub const REORDER_WAIT: Duration = Duration::from_secs(2);
/// How many Writes wait for a predecessor.
pub const REORDER_WINDOW: usize = 56;
/// Header list of a call: the token has about 1 KB.
pub const HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Deadline of a call that names none.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server that stops waits for the calls under way: the longest may just have begun.
pub const DRAIN: Duration = Duration::from_secs(35);
/// Connections of one tenant.
pub const TENANT_CONNECTIONS: usize = 8;
/// Connections of one address over gRPC.
pub const ADDRESS_CONNECTIONS: usize = 64;
/// Connections of one address over HTTP: a quarter of all; a browser opens six, an agent two.
pub const ADDRESS_HTTP_CONNECTIONS: usize = 128;

// --- session ---
/// Life of a lease without renewal (`correctness.md` e).
pub const SESSION_TTL: Duration = Duration::from_secs(30);
/// How often the holder renews: two losses are survived.
pub const SESSION_RENEW: Duration = Duration::from_secs(10);
/// The holder stops sending this long before its lease may lapse.
pub const SESSION_MARGIN: Duration = Duration::from_secs(5);
/// How far a restore of the server moves each stream's epoch at least: beyond what a store of before can have granted
/// since its copy was made, one every second for a century. A sender that sees such a step knows what happened.
pub const RESTORE_EPOCHS: u64 = 1 << 32;
/// Text of the base loads that end in one batch: it goes into a header of its Summary, twice this at most, well below
/// [`HEADER_LIST_BYTES`].
pub const LOADS_DONE_BYTES: usize = 4 * 1024;
/// How often rows of stamped tables are compared whole (`correctness.md`, designs a and d: nightly).
pub const COMPARE: Duration = Duration::from_secs(86_400);
/// The holder gives its lease back where it could read nothing of the ERP for so long (`correctness.md`, F41).
pub const SOURCE_AWAY: Duration = Duration::from_secs(60);
/// When a standby asks again.
pub const SESSION_RETRY: Duration = Duration::from_secs(5);
/// One cursor entry; opaque to the server.
pub const CURSOR_BYTES: usize = 1_024;
/// Tables of one stream.
pub const STREAM_TABLES: usize = 2_000;
/// Version of the session's protocol.
pub const PROTOCOL_VERSION: u32 = 1;

// --- fleet ---
/// How often an agent reports where nothing changed (`contracts.md` 5.6).
pub const FLEET_REPORT: Duration = Duration::from_secs(10);
/// Two reports are no closer than this: what changes in between is told together.
pub const FLEET_REPORT_GAP: Duration = Duration::from_secs(1);
/// An agent that was silent for so long counts as away: a holder renews every 10 s, a refused one asks every 30 s.
pub const FLEET_SILENT: Duration = Duration::from_secs(60);
/// When a server without the fleet's service is asked again: it may have been updated.
pub const FLEET_ABSENT: Duration = Duration::from_secs(3_600);
/// A text of a report: a watermark, a session that holds the bound back, why a table is degraded.
pub const FLEET_TEXT_BYTES: usize = 500;
/// Instances remembered of a stream: its sender, its standbys, and those that were replaced over the years.
pub const STREAM_INSTANCES: usize = 32;
/// Orders of a stream that wait or are under way: a person looks at what became of some before more are given.
pub const STREAM_ORDERS_OPEN: usize = 100;
/// Orders of a stream that ended and are kept to be looked at; the audit keeps who gave them for ever.
pub const STREAM_ORDERS_KEPT: usize = 1_000;
/// One argument of an order; a key in `from` and `to` is the longest.
pub const ORDER_ARGUMENT_BYTES: usize = 1_000;
/// Streams of commands of one tenant: a connection needs one, and at most [`TENANT_CONNECTIONS`] are open; as many again
/// may still be ending.
pub const TENANT_COMMAND_STREAMS: usize = 16;
/// A stream of commands ends after this and is asked for again: who asks is looked up then, so that a revoked client has
/// none within a minute, whoever holds the lease.
pub const COMMAND_STREAM_LIFE: Duration = Duration::from_secs(25);
/// Orders that an agent's journal remembers after their outcome was told: ten times what a server leaves unfinished.
pub const AGENT_ORDERS: usize = 1_000;

// --- reconcile ---
/// Bounds of one `Ranges` call.
pub const RECONCILE_BOUNDS: usize = 1_000;
/// Rows of one `Rows` page.
pub const RECONCILE_ROWS: usize = 10_000;
/// Bytes of one `Rows` page.
pub const RECONCILE_BYTES: usize = 1_000_000;
/// How long a question waits until what was accepted before it is staged; whoever asked comes again then. The rest of the
/// call's time is for the rows themselves.
pub const RECONCILE_CATCH_UP: Duration = Duration::from_secs(10);
/// Rows of one range of a verification (`correctness.md` d 4): about a page, so that one that differs is read at once.
pub const VERIFY_RANGE_ROWS: usize = 10_000;
/// Bytes of the bounds that a verification asks sums for: long keys make fewer and larger ranges, far below a message.
pub const VERIFY_BOUNDS_BYTES: usize = 1_000_000;
/// Rows about which one question of a verification is, as far as the ERP has them: hashed by a server in a second or two.
pub const VERIFY_ASKED_ROWS: u64 = 100_000;
/// Ranges of one such question, so that long keys make no long one.
pub const VERIFY_ASKED_RANGES: usize = 50;
/// Verifications that wait: one and a repair for every table of a stream.
pub const VERIFY_WAITING: usize = 2 * STREAM_TABLES;
/// Verifications kept of each table: a month of nights.
pub const VERIFY_KEPT: usize = 30;

// --- identity ---
/// Life of a token.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long a look-up of the client may be cached: a revoked one is refused within 60 s.
pub const CLIENT_CACHE: Duration = Duration::from_secs(30);
/// Body of a token call: five short fields.
pub const TOKEN_BODY_BYTES: usize = 8 * 1024;
/// Body of an administrative call.
pub const ADMIN_BODY_BYTES: usize = 1024 * 1024;
/// Items of one page of an administrative list.
pub const ADMIN_PAGE: u32 = 1_000;
/// Values of one page of rows: a thousand rows of 8 KB; a page of larger rows is shorter.
pub const ADMIN_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Why a person gave a row up, as the audit keeps it: a sentence or two.
pub const REASON_BYTES: usize = 500;
/// Answer of a registry that an agent reads (`correctness.md` k 6).
pub const REGISTRY_BYTES: usize = 64 * 1024;
/// Answer of Entities: 2,000 tables with filters of 2 KB.
pub const ENTITIES_BYTES: usize = 8 * 1024 * 1024;

// --- webhooks ---
/// Webhooks of one tenant: each costs a row per batch, and a consumer needs one.
pub const TENANT_WEBHOOKS: usize = 20;
/// What browsers and proxies take of an address without trouble.
pub const WEBHOOK_URL_BYTES: usize = 2_048;
/// Deliveries under way at once in one server.
pub const WEBHOOK_CALLS: usize = 32;
/// Of them of one tenant, so that one with slow consumers leaves room for the others.
pub const TENANT_WEBHOOK_CALLS: usize = 4;
/// What is read of a consumer's answer: its status counts, its body only ends the call.
pub const WEBHOOK_ANSWER_BYTES: usize = 4 * 1024;
/// How long a consumer's address may take to be connected to.
pub const WEBHOOK_CONNECT: Duration = Duration::from_secs(5);
/// How long a delivery may take until its status is there: a consumer notes the event and works on it later.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// After that a delivery whose outcome nobody wrote down may be tried again.
pub const WEBHOOK_LEASE: Duration = Duration::from_secs(30);
/// Longest pause between two tries of one delivery (`correctness.md` i).
pub const WEBHOOK_PAUSE: Duration = Duration::from_secs(3_600);
/// How long the secret of before may stay in force after a rotation.
pub const WEBHOOK_SECRET_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

// --- alerts ---
/// E-mail addresses of one tenant that alerts go to: people behind them have lists of their own.
pub const ALERT_ADDRESSES: usize = 10;
/// Thresholds of one tenant: one for each table of a large stream, and room for the rest.
pub const ALERT_THRESHOLDS: usize = 4_000;
/// Longest e-mail address (RFC 5321, 4.5.3.1.3, without the brackets).
pub const MAIL_ADDRESS_BYTES: usize = 254;
/// At most one mail to an address within this: what happens meanwhile goes into the next one.
pub const MAIL_PAUSE: Duration = Duration::from_secs(60);
/// Notices of one mail; what is above goes into the next one.
pub const MAIL_NOTICES: usize = 100;
/// How long a mail may take from connecting to the server's last word.
pub const MAIL_TIMEOUT: Duration = Duration::from_secs(30);
/// After that a mail whose outcome nobody wrote down may be tried again.
pub const MAIL_LEASE: Duration = Duration::from_secs(120);
/// A mail that was sent, or given up, is shown for so long.
pub const MAIL_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// A resolved alert is shown for so long.
pub const ALERT_KEPT: Duration = Duration::from_secs(90 * 86_400);

// --- what people keep and ask for beside the agent ---
/// A password or key; PEM keys of 8,192 bits have 6.5 KB.
pub const SEALED_BYTES: usize = 8 * 1024;
/// Secrets of one data folder; a configuration has two places for them.
pub const SEALED_SECRETS: usize = 64;
/// Longest name of a sealed secret.
pub const SEALED_NAME_BYTES: usize = 64;
/// Longest time of a detailed log: nobody remembers one that is on for longer.
pub const DETAIL_TIME: Duration = Duration::from_secs(24 * 3600);
/// Largest file of a detailed log.
pub const DETAIL_BYTES: u64 = 1_000_000_000;
/// Smallest: some hundred lines.
pub const DETAIL_LEAST_BYTES: u64 = 64_000;
/// Part of a detailed log that one call shows.
pub const DETAIL_PAGE_BYTES: u64 = 1_000_000;

// --- filter ---
/// Longest filter text (`correctness.md` k 1).
pub const FILTER_BYTES: usize = 2_048;
/// Deepest nesting of a filter.
pub const FILTER_DEPTH: usize = 32;
/// Literals of one filter; databases bind at least 999.
pub const FILTER_LITERALS: usize = 256;

const _: () = {
    assert!(SENDER_MESSAGE_BYTES < MESSAGE_BYTES);
    assert!(SENDER_MESSAGE_ROWS <= MESSAGE_ROWS);
    assert!(VERIFY_BOUNDS_BYTES < MESSAGE_BYTES);
    assert!(VERIFY_ASKED_RANGES < RECONCILE_BOUNDS);
    assert!(VERIFY_ASKED_ROWS >= VERIFY_RANGE_ROWS as u64);
    assert!(RECONCILE_CATCH_UP.as_secs() * 2 < CALL_TIMEOUT.as_secs());
    assert!(BATCH_BYTES * 2 + BATCH_MESSAGES * SENDER_MESSAGE_ROWS * 32 <= SPOOL_BYTES as usize);
    assert!(BATCH_BYTES < DISK_FREE_BYTES as usize);
    assert!(REFUSED_IN_A_ROW < REFUSED_UNACCEPTED);
    assert!(SENDER_IN_FLIGHT < CONNECTION_CALLS);
    assert!(CONNECTION_CALLS <= CONNECTION_STREAMS as usize);
    assert!(REORDER_WINDOW >= SENDER_IN_FLIGHT);
    assert!(DRAIN.as_secs() >= CALL_TIMEOUT.as_secs());
    assert!(SENDER_IN_FLIGHT_BYTES * DECODE_FACTOR <= TENANT_IN_FLIGHT_BYTES);
    assert!(SESSION_RENEW.as_secs() * 2 + SESSION_MARGIN.as_secs() < SESSION_TTL.as_secs());
    assert!(BATCH_STALLED.as_secs() < BATCH_SILENCE.as_secs());
    assert!(SESSION_RENEW.as_secs() * 2 < FLEET_SILENT.as_secs());
    assert!(STREAM_TABLES * (TABLE_NAME_BYTES + 4 * FLEET_TEXT_BYTES) < MESSAGE_BYTES);
    assert!(STREAM_ORDERS_OPEN < AGENT_ORDERS);
    assert!(TENANT_CONNECTIONS < TENANT_COMMAND_STREAMS);
    assert!(CLIENT_CACHE.as_secs() + COMMAND_STREAM_LIFE.as_secs() <= 60);
    assert!(TENANT_WEBHOOK_CALLS < WEBHOOK_CALLS);
    assert!(WEBHOOK_CONNECT.as_secs() < WEBHOOK_TIMEOUT.as_secs());
    assert!(WEBHOOK_TIMEOUT.as_secs() < WEBHOOK_LEASE.as_secs());
    assert!(MAIL_TIMEOUT.as_secs() < MAIL_LEASE.as_secs());
};
