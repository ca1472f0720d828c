-- Ingest: streams, sessions, cursors and the ledger of batches and table messages.
--
-- Keeps: one row per stream (tenant, environment, erp) that fences, numbers and orders acceptance (correctness.md e, g);
-- at most one open batch per stream, the one the stream's row names; one content per (stream, batch, number); numbers
-- of acceptance come from the stream's row, so their order is the order of commits (F48); cursor entries move only with
-- the Summary they were prepared for (I10). Bodies are the bytes as received, since a repeat is told by their sha256.
-- Times are microseconds since 1970 UTC. Ids are UUID text with dashes. Tenant first in every key.

CREATE TABLE ingest_stream (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL CHECK (erp = upper(erp) AND erp <> ''),
    -- Session: epoch 0 = none was ever open; holder NULL = free.
    epoch           INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    holder          TEXT CHECK (length(holder) = 36),
    nonce           TEXT CHECK (length(nonce) = 36),
    -- Nonces that a later one replaced under this epoch, 16 bytes each: who shows one again is a second copy.
    former          BLOB NOT NULL DEFAULT x'' CHECK (length(former) % 16 = 0),
    -- 1: two copies of one instance were seen; nobody is served until the lease lapses.
    disputed        INTEGER NOT NULL DEFAULT 0 CHECK (disputed IN (0, 1)),
    expires_at      INTEGER NOT NULL DEFAULT 0,
    -- Encoded DatabaseIdentity of the last grant, and the one refused last (what an operator accepts).
    identity        BLOB,
    offered         BLOB,
    -- Acceptance.
    accept_seq      INTEGER NOT NULL DEFAULT 0 CHECK (accept_seq >= 0),
    open_batch      INTEGER,
    next_n          INTEGER NOT NULL DEFAULT 1 CHECK (next_n >= 1),
    last_batch      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, environment_id, erp),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id),
    CHECK ((holder IS NULL) = (nonce IS NULL)),
    CHECK (open_batch IS NULL OR open_batch = last_batch)
) STRICT, WITHOUT ROWID;

-- Where a sender resumes, per table; opaque.
CREATE TABLE cursor (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    name            TEXT NOT NULL,
    value           BLOB NOT NULL CHECK (length(value) <= 1024),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
) STRICT, WITHOUT ROWID;

-- Prepared for one batch, committed by its Summary, else forgotten.
CREATE TABLE cursor_pending (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    name            TEXT NOT NULL,
    batch           INTEGER NOT NULL,
    value           BLOB NOT NULL CHECK (length(value) <= 1024),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
) STRICT, WITHOUT ROWID;

CREATE TABLE batch (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    id              INTEGER NOT NULL CHECK (id > 0),
    -- 0: opened by a sender without a session (legacy mode).
    epoch           INTEGER NOT NULL CHECK (epoch >= 0),
    state           TEXT NOT NULL CHECK (state IN ('open', 'complete', 'abandoned')),
    messages        INTEGER NOT NULL CHECK (messages >= 1),
    row_count       INTEGER NOT NULL CHECK (row_count >= 0),
    byte_count      INTEGER NOT NULL CHECK (byte_count >= 0),
    -- Number of acceptance of its newest message: a batch is staged when the apply cursor has passed it.
    last_seq        INTEGER NOT NULL,
    opened_at       INTEGER NOT NULL,
    last_at         INTEGER NOT NULL,
    closed_at       INTEGER,
    -- Of the accepted Summary.
    range_start     INTEGER,
    range_end       INTEGER,
    -- Last Summary that was refused, if any.
    refused_code    TEXT,
    refused_at      INTEGER,
    PRIMARY KEY (tenant_id, environment_id, erp, id),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (range_start IS NULL OR range_end IS NULL OR range_start <= range_end)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX one_open_batch_per_stream ON batch (tenant_id, environment_id, erp) WHERE state = 'open';

CREATE TABLE ingest_message (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    batch           INTEGER NOT NULL,
    number          INTEGER NOT NULL CHECK (number >= 1),
    accept_seq      INTEGER NOT NULL CHECK (accept_seq >= 1),
    sha256          BLOB NOT NULL CHECK (length(sha256) = 32),
    name_folded     TEXT NOT NULL,
    row_count       INTEGER NOT NULL CHECK (row_count >= 0),
    byte_count      INTEGER NOT NULL CHECK (byte_count >= 0),
    is_base_load    INTEGER NOT NULL CHECK (is_base_load IN (0, 1)),
    -- 1: the staging table is made anew under this message's key before its rows are applied.
    rebuild         INTEGER NOT NULL CHECK (rebuild IN (0, 1)),
    received_at     INTEGER NOT NULL,
    -- NULL once retention has taken it.
    body            BLOB,
    PRIMARY KEY (tenant_id, environment_id, erp, batch, number),
    UNIQUE (tenant_id, environment_id, erp, accept_seq),
    FOREIGN KEY (tenant_id, environment_id, erp, batch) REFERENCES batch (tenant_id, environment_id, erp, id)
) STRICT;

-- The key each staging table stands under; a message with another one is PRIMARY_KEY_CHANGED.
CREATE TABLE ingest_table (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    -- Folded column names in key order, as a JSON array.
    key_columns     TEXT NOT NULL CHECK (json_valid(key_columns)),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
) STRICT, WITHOUT ROWID;
