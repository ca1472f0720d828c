-- Relations of Malote's own in the schema of each environment and ERP; the tables of the ERP stand beside them.
-- Folded names compare as bytes, as the program compares them. `sqlite.sql` is its twin.
CREATE TABLE IF NOT EXISTS malote_progress (
    one         bigint PRIMARY KEY CHECK (one = 1),
    applied_seq bigint NOT NULL
);
INSERT INTO malote_progress (one, applied_seq) VALUES (1, 0) ON CONFLICT DO NOTHING;
-- The message of that number: a store that was restored gives the same numbers to other messages.
CREATE TABLE IF NOT EXISTS malote_applied (
    one          bigint PRIMARY KEY CHECK (one = 1),
    applied_seq  bigint NOT NULL,
    batch        bigint NOT NULL,
    message      bigint NOT NULL,
    sha256       bytea NOT NULL CHECK (length(sha256) = 32)
);
CREATE TABLE IF NOT EXISTS malote_batches (
    batch        bigint PRIMARY KEY,
    state        text NOT NULL CHECK (state IN ('open', 'complete', 'abandoned')),
    completed_at timestamptz
);
CREATE TABLE IF NOT EXISTS malote_tables (
    name_folded text COLLATE "C" PRIMARY KEY,
    name        text NOT NULL,
    key_columns text NOT NULL,
    -- Rows accepted before this number may be older than what was taken away: a rebuild, or an old tombstone.
    floor_seq   bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS malote_columns (
    table_folded text COLLATE "C" NOT NULL,
    position     bigint NOT NULL,
    name_folded  text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    type         text NOT NULL,
    storage      text NOT NULL CHECK (storage IN
        ('integer', 'boolean', 'base64', 'numeric', 'date', 'timestamp', 'timestamptz', 'text')),
    PRIMARY KEY (table_folded, position),
    UNIQUE (table_folded, name_folded)
);
-- Tables whose rows were lost with an older file: they lack rows until the load of this generation is done.
CREATE TABLE IF NOT EXISTS malote_lost (
    name_folded text COLLATE "C" PRIMARY KEY,
    generation  bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS malote_quarantine (
    batch        bigint NOT NULL,
    message      bigint NOT NULL,
    row_at       bigint NOT NULL,
    table_folded text COLLATE "C" NOT NULL,
    code         text NOT NULL,
    reason       text NOT NULL,
    cells        text NOT NULL,
    at           bigint NOT NULL,
    -- Its message's place in the order of acceptance; NULL where an older program wrote the row.
    accept_seq   bigint,
    PRIMARY KEY (batch, message, row_at)
);
