-- Relations of Malote's own in every staging file; the tables of the ERP stand beside them. `postgres.sql` is its twin.
CREATE TABLE IF NOT EXISTS malote_progress (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    applied_seq INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO malote_progress (one, applied_seq) VALUES (1, 0);
-- The message of that number: a store that was restored gives the same numbers to other messages.
CREATE TABLE IF NOT EXISTS malote_applied (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    applied_seq  INTEGER NOT NULL,
    batch        INTEGER NOT NULL,
    message      INTEGER NOT NULL,
    sha256       BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT;
CREATE TABLE IF NOT EXISTS malote_batches (
    batch        INTEGER PRIMARY KEY,
    state        TEXT NOT NULL CHECK (state IN ('open', 'complete', 'abandoned')),
    completed_at TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS malote_tables (
    name_folded TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    key_columns TEXT NOT NULL CHECK (json_valid(key_columns)),
    -- Rows accepted before this number may be older than what was taken away: a rebuild, or an old tombstone.
    floor_seq   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS malote_columns (
    table_folded TEXT NOT NULL,
    position     INTEGER NOT NULL,
    name_folded  TEXT NOT NULL,
    name         TEXT NOT NULL,
    type         TEXT NOT NULL,
    storage      TEXT NOT NULL CHECK (storage IN ('integer', 'boolean', 'base64', 'text')),
    PRIMARY KEY (table_folded, position),
    UNIQUE (table_folded, name_folded)
) STRICT, WITHOUT ROWID;
-- Tables whose rows were lost with an older file: they lack rows until the load of this generation is done.
CREATE TABLE IF NOT EXISTS malote_lost (
    name_folded TEXT PRIMARY KEY,
    generation  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS malote_quarantine (
    batch        INTEGER NOT NULL,
    message      INTEGER NOT NULL,
    row_at       INTEGER NOT NULL,
    table_folded TEXT NOT NULL,
    code         TEXT NOT NULL,
    reason       TEXT NOT NULL,
    cells        TEXT NOT NULL,
    at           INTEGER NOT NULL,
    -- Its message's place in the order of acceptance; NULL where an older program wrote the row.
    accept_seq   INTEGER,
    PRIMARY KEY (batch, message, row_at)
) STRICT, WITHOUT ROWID;
