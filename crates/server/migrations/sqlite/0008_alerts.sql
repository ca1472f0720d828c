-- Alerts: what is wrong, who is told of it, and the mails that wait to be sent.
--
-- Keeps: one alert at a time for each thing that can be wrong (tenant, environment, ERP, rule, subject); what is told of
-- an alert is noted in the transaction that changes it, as an event for webhooks and as a notice for each address, so
-- that an end of the process between the two loses nothing. A notice is `ready`, `leased` under the receipt of one mail,
-- `done` or `dead`. The mail server's password is kept only sealed. What is of the server itself has no tenant. Times are
-- microseconds since 1970 UTC. Ids are UUID text with dashes.
--
-- Events of webhooks may be about an alert from here on, so their table is made anew with its rows, and with it the one
-- that names it.

CREATE TABLE alert (
    id              TEXT PRIMARY KEY CHECK (length(id) = 36),
    tenant_id       TEXT REFERENCES tenant (id),
    environment_id  TEXT,
    erp             TEXT,
    rule            TEXT NOT NULL CHECK (rule IN ('agent-dead', 'batch-incomplete', 'batch-stalled', 'differences', 'disk',
                        'freshness', 'not-verified', 'quarantine', 'staging-behind', 'table-parked')),
    -- Table, or empty.
    subject         TEXT NOT NULL,
    -- How much, since when, by which code: of the last look that found something else.
    amount          INTEGER NOT NULL,
    since           INTEGER,
    code            TEXT,
    raised_at       INTEGER NOT NULL,
    clear_since     INTEGER,
    resolved_at     INTEGER,
    told_at         INTEGER,
    returns         INTEGER NOT NULL CHECK (returns >= 0),
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    silenced_until  INTEGER,
    silenced_by     TEXT,
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id),
    CHECK ((environment_id IS NULL) = (erp IS NULL)),
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)),
    CHECK ((silenced_until IS NULL) = (silenced_by IS NULL))
) STRICT;

-- Tables that are parked by one code may be told together; then the code says which they are.
CREATE UNIQUE INDEX one_open_alert ON alert (coalesce(tenant_id, ''), coalesce(environment_id, ''), coalesce(erp, ''), rule,
    subject, iif(rule = 'table-parked' AND subject = '', coalesce(code, ''), '')) WHERE resolved_at IS NULL;
CREATE INDEX alert_by_tenant ON alert (tenant_id, raised_at);
CREATE INDEX alert_resolved ON alert (resolved_at) WHERE resolved_at IS NOT NULL;

CREATE TABLE alert_threshold (
    tenant_id       TEXT NOT NULL REFERENCES tenant (id),
    -- Empty: every environment.
    environment_id  TEXT NOT NULL,
    -- Folded; empty: every table.
    table_folded    TEXT NOT NULL,
    rule            TEXT NOT NULL,
    value           INTEGER NOT NULL CHECK (value >= 0),
    PRIMARY KEY (tenant_id, environment_id, table_folded, rule)
) STRICT, WITHOUT ROWID;

-- Addresses; the server's own have no tenant.
CREATE TABLE alert_route (
    tenant_id       TEXT REFERENCES tenant (id),
    address         TEXT NOT NULL CHECK (address <> ''),
    language        TEXT NOT NULL CHECK (language IN ('en', 'pt')),
    -- NULL: every environment of the tenant.
    environment_id  TEXT,
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id)
) STRICT;

CREATE UNIQUE INDEX alert_route_once ON alert_route (coalesce(tenant_id, ''), address);

CREATE TABLE alert_mail_server (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    host            TEXT NOT NULL CHECK (host <> ''),
    port            INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    tls             TEXT NOT NULL CHECK (tls IN ('starttls', 'tls', 'none')),
    sender          TEXT NOT NULL CHECK (sender <> ''),
    login           TEXT,
    -- The password's own key, sealed; and the password, sealed under it.
    sealed_key      BLOB,
    sealed_secret   BLOB,
    set_at          INTEGER NOT NULL,
    CHECK ((login IS NULL) = (sealed_key IS NULL) AND (login IS NULL) = (sealed_secret IS NULL))
) STRICT;

-- One notice for one address; several that wait become one mail.
CREATE TABLE alert_notice (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id       TEXT REFERENCES tenant (id),
    address         TEXT NOT NULL,
    language        TEXT NOT NULL,
    notice          TEXT NOT NULL CHECK (notice IN ('raised', 'again', 'resolved')),
    at              INTEGER NOT NULL,
    environment_id  TEXT,
    environment     TEXT,
    erp             TEXT,
    rule            TEXT NOT NULL,
    subject         TEXT NOT NULL,
    amount          INTEGER NOT NULL,
    since           INTEGER,
    code            TEXT,
    state           TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'done', 'dead')),
    -- Counted before the mail is sent.
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    not_before      INTEGER NOT NULL,
    receipt         TEXT,
    lease_until     INTEGER,
    last_error      TEXT,
    ended_at        INTEGER,
    CHECK ((state = 'leased') = (receipt IS NOT NULL) AND (receipt IS NULL) = (lease_until IS NULL)),
    CHECK ((state IN ('done', 'dead')) = (ended_at IS NOT NULL))
) STRICT;

CREATE INDEX alert_notice_waits ON alert_notice (address, seq) WHERE state IN ('ready', 'leased');
CREATE INDEX alert_notice_ended ON alert_notice (address, ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE webhook_event_new (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    tenant_id      TEXT NOT NULL REFERENCES tenant (id),
    type           TEXT NOT NULL CHECK (type IN ('batch.complete', 'batch.incomplete', 'batch.stalled', 'webhook.test',
                       'alert.raised', 'alert.resolved')),
    -- What it is about: a batch of a stream; an alert may be about a stream, a test is about none.
    environment_id TEXT,
    erp            TEXT,
    batch          INTEGER,
    at             INTEGER NOT NULL,
    data           TEXT NOT NULL CHECK (json_valid(data)),
    -- Number of acceptance that has to be staged first; NULL: it may be told.
    held_for       INTEGER,
    UNIQUE (tenant_id, environment_id, erp, batch, type),
    CHECK ((type LIKE 'batch.%') = (batch IS NOT NULL)),
    CHECK ((environment_id IS NULL) = (erp IS NULL)),
    CHECK (batch IS NULL OR environment_id IS NOT NULL),
    CHECK (type <> 'webhook.test' OR environment_id IS NULL)
) STRICT;

INSERT INTO webhook_event_new (seq, id, tenant_id, type, environment_id, erp, batch, at, data, held_for)
SELECT seq, id, tenant_id, type, environment_id, erp, batch, at, data, held_for FROM webhook_event;

CREATE TABLE webhook_delivery_new (
    tenant_id      TEXT NOT NULL,
    webhook_id     TEXT NOT NULL,
    event_seq      INTEGER NOT NULL REFERENCES webhook_event_new (seq),
    -- 1: a test, which a pause does not hold back and which is tried once.
    test           INTEGER NOT NULL DEFAULT 0 CHECK (test IN (0, 1)),
    state          TEXT NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'leased', 'done', 'dead')),
    -- Counted before the call, so that a process that dies in it reaches the end as well.
    attempts       INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    not_before     INTEGER NOT NULL,
    receipt        TEXT,
    lease_until    INTEGER,
    -- Of the last try: its end, the status that came, and in words why it was not the end.
    last_at        INTEGER,
    last_status    INTEGER,
    last_error     TEXT,
    ended_at       INTEGER,
    PRIMARY KEY (tenant_id, webhook_id, event_seq),
    FOREIGN KEY (tenant_id, webhook_id) REFERENCES webhook (tenant_id, id),
    CHECK ((state = 'leased') = (receipt IS NOT NULL) AND (receipt IS NULL) = (lease_until IS NULL)),
    CHECK ((state IN ('done', 'dead')) = (ended_at IS NOT NULL)),
    CHECK (state <> 'dead' OR last_error IS NOT NULL)
) STRICT, WITHOUT ROWID;

INSERT INTO webhook_delivery_new (tenant_id, webhook_id, event_seq, test, state, attempts, not_before, receipt, lease_until,
    last_at, last_status, last_error, ended_at)
SELECT tenant_id, webhook_id, event_seq, test, state, attempts, not_before, receipt, lease_until, last_at, last_status,
    last_error, ended_at FROM webhook_delivery;

DROP TABLE webhook_delivery;
DROP TABLE webhook_event;
ALTER TABLE webhook_event_new RENAME TO webhook_event;
ALTER TABLE webhook_delivery_new RENAME TO webhook_delivery;

CREATE INDEX webhook_event_held ON webhook_event (tenant_id, environment_id, erp, batch) WHERE held_for IS NOT NULL;
CREATE INDEX webhook_event_by_age ON webhook_event (at);
CREATE INDEX webhook_delivery_ready ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'ready';
CREATE INDEX webhook_delivery_test ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'ready' AND test = 1;
CREATE UNIQUE INDEX webhook_delivery_leased ON webhook_delivery (tenant_id, webhook_id) WHERE state = 'leased';
CREATE INDEX webhook_delivery_receipt ON webhook_delivery (receipt) WHERE receipt IS NOT NULL;
CREATE INDEX webhook_delivery_dead ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'dead';
CREATE INDEX webhook_delivery_done ON webhook_delivery (ended_at) WHERE state = 'done';
CREATE INDEX webhook_delivery_of_event ON webhook_delivery (event_seq);
