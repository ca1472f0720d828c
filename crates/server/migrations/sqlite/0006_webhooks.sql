-- Webhooks: where events of batches are told, the events that wait to be told, and how each telling stands.
--
-- Keeps: an event is written in the transaction that made it true, once per batch and type, and with it one delivery
-- for each webhook that asked for it; what tells of staged rows is held until they are staged. A delivery is `ready`
-- (from not_before on), `leased` under one receipt, `done` or `dead`; none ends without a word of why. Secrets are
-- kept only sealed, each under a key of its own, which is sealed under the key file beside the store; at most two are
-- in force. Times are microseconds since 1970 UTC. Ids are UUID text with dashes. Tenant first in every key.

CREATE TABLE webhook (
    tenant_id      TEXT NOT NULL REFERENCES tenant (id),
    id             TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    name           TEXT NOT NULL CHECK (name <> ''),
    -- NULL: every environment of the tenant.
    environment_id TEXT,
    url            TEXT NOT NULL CHECK (url <> ''),
    -- Types of events, as a JSON array.
    events         TEXT NOT NULL CHECK (json_valid(events)),
    description    TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    -- NULL: deliveries go out. Else they wait.
    paused_at      INTEGER,
    -- The secret's own key, sealed; and the secret, sealed under it.
    sealed_key     BLOB NOT NULL,
    sealed_secret  BLOB NOT NULL,
    secret_at      INTEGER NOT NULL,
    -- The secret of before, in force until then.
    former_key     BLOB,
    former_secret  BLOB,
    former_until   INTEGER,
    -- Tries in a row that failed, whatever the delivery; before not_before the address is left in peace.
    failures       INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
    not_before     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id),
    CHECK ((former_key IS NULL) = (former_secret IS NULL) AND (former_key IS NULL) = (former_until IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_event (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    tenant_id      TEXT NOT NULL REFERENCES tenant (id),
    type           TEXT NOT NULL CHECK (type IN ('batch.complete', 'batch.incomplete', 'batch.stalled', 'webhook.test')),
    -- The batch it is about; a test is about none.
    environment_id TEXT,
    erp            TEXT,
    batch          INTEGER,
    at             INTEGER NOT NULL,
    data           TEXT NOT NULL CHECK (json_valid(data)),
    -- Number of acceptance that has to be staged first; NULL: it may be told.
    held_for       INTEGER,
    UNIQUE (tenant_id, environment_id, erp, batch, type),
    CHECK ((type = 'webhook.test') = (batch IS NULL)),
    CHECK ((batch IS NULL) = (environment_id IS NULL) AND (batch IS NULL) = (erp IS NULL))
) STRICT;

CREATE INDEX webhook_event_held ON webhook_event (tenant_id, environment_id, erp, batch) WHERE held_for IS NOT NULL;
CREATE INDEX webhook_event_by_age ON webhook_event (at);

CREATE TABLE webhook_delivery (
    tenant_id      TEXT NOT NULL,
    webhook_id     TEXT NOT NULL,
    event_seq      INTEGER NOT NULL REFERENCES webhook_event (seq),
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

CREATE INDEX webhook_delivery_ready ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'ready';
CREATE INDEX webhook_delivery_test ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'ready' AND test = 1;
CREATE UNIQUE INDEX webhook_delivery_leased ON webhook_delivery (tenant_id, webhook_id) WHERE state = 'leased';
CREATE INDEX webhook_delivery_receipt ON webhook_delivery (receipt) WHERE receipt IS NOT NULL;
CREATE INDEX webhook_delivery_dead ON webhook_delivery (tenant_id, webhook_id, event_seq) WHERE state = 'dead';
CREATE INDEX webhook_delivery_done ON webhook_delivery (ended_at) WHERE state = 'done';
CREATE INDEX webhook_delivery_of_event ON webhook_delivery (event_seq);
