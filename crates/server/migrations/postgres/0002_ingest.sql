-- The twin of sqlite/0002_ingest.sql, which tells what each thing is.

SET LOCAL search_path TO malote;

CREATE TABLE ingest_stream (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL CHECK (erp = upper(erp) AND erp <> ''),
    epoch           bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    holder          text COLLATE "C" CHECK (length(holder) = 36),
    nonce           text COLLATE "C" CHECK (length(nonce) = 36),
    former          bytea NOT NULL DEFAULT '' CHECK (length(former) % 16 = 0),
    disputed        bigint NOT NULL DEFAULT 0 CHECK (disputed IN (0, 1)),
    expires_at      bigint NOT NULL DEFAULT 0,
    identity        bytea,
    offered         bytea,
    accept_seq      bigint NOT NULL DEFAULT 0 CHECK (accept_seq >= 0),
    open_batch      bigint,
    next_n          bigint NOT NULL DEFAULT 1 CHECK (next_n >= 1),
    last_batch      bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, environment_id, erp),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id),
    CHECK ((holder IS NULL) = (nonce IS NULL)),
    CHECK (open_batch IS NULL OR open_batch = last_batch)
);

CREATE TABLE cursor (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL,
    name_folded     text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,
    value           bytea NOT NULL CHECK (length(value) <= 1024),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
);

CREATE TABLE cursor_pending (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL,
    name_folded     text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,
    batch           bigint NOT NULL,
    value           bytea NOT NULL CHECK (length(value) <= 1024),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
);

CREATE TABLE batch (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL,
    id              bigint NOT NULL CHECK (id > 0),
    epoch           bigint NOT NULL CHECK (epoch >= 0),
    state           text COLLATE "C" NOT NULL CHECK (state IN ('open', 'complete', 'abandoned')),
    messages        bigint NOT NULL CHECK (messages >= 1),
    row_count       bigint NOT NULL CHECK (row_count >= 0),
    byte_count      bigint NOT NULL CHECK (byte_count >= 0),
    last_seq        bigint NOT NULL,
    opened_at       bigint NOT NULL,
    last_at         bigint NOT NULL,
    closed_at       bigint,
    range_start     bigint,
    range_end       bigint,
    refused_code    text COLLATE "C",
    refused_at      bigint,
    PRIMARY KEY (tenant_id, environment_id, erp, id),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp),
    CHECK ((state = 'open') = (closed_at IS NULL)),
    CHECK (range_start IS NULL OR range_end IS NULL OR range_start <= range_end)
);

CREATE UNIQUE INDEX one_open_batch_per_stream ON batch (tenant_id, environment_id, erp) WHERE state = 'open';

CREATE TABLE ingest_message (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL,
    batch           bigint NOT NULL,
    number          bigint NOT NULL CHECK (number >= 1),
    accept_seq      bigint NOT NULL CHECK (accept_seq >= 1),
    sha256          bytea NOT NULL CHECK (length(sha256) = 32),
    name_folded     text COLLATE "C" NOT NULL,
    row_count       bigint NOT NULL CHECK (row_count >= 0),
    byte_count      bigint NOT NULL CHECK (byte_count >= 0),
    is_base_load    bigint NOT NULL CHECK (is_base_load IN (0, 1)),
    rebuild         bigint NOT NULL CHECK (rebuild IN (0, 1)),
    received_at     bigint NOT NULL,
    body            bytea,
    PRIMARY KEY (tenant_id, environment_id, erp, batch, number),
    UNIQUE (tenant_id, environment_id, erp, accept_seq),
    FOREIGN KEY (tenant_id, environment_id, erp, batch) REFERENCES batch (tenant_id, environment_id, erp, id)
);

CREATE TABLE ingest_table (
    tenant_id       text COLLATE "C" NOT NULL,
    environment_id  text COLLATE "C" NOT NULL,
    erp             text COLLATE "C" NOT NULL,
    name_folded     text COLLATE "C" NOT NULL,
    key_columns     text COLLATE "C" NOT NULL CHECK (json_valid(key_columns)),
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp)
);

CALL keep_apart('ingest_stream', 'tenant_id');
CALL keep_apart('cursor', 'tenant_id');
CALL keep_apart('cursor_pending', 'tenant_id');
CALL keep_apart('batch', 'tenant_id');
CALL keep_apart('ingest_message', 'tenant_id');
CALL keep_apart('ingest_table', 'tenant_id');
