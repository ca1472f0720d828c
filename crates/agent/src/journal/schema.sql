-- Journal of the agent: one SQLite file, one writer thread, WAL, synchronous = FULL (correctness.md 3 j).
--
-- fact        single values: instance, epoch, granted_batch, opened_batch, reload_number, plan, registry; known_lost
--             counts how often all known rows were lost, known/N holds that count for each table learned since;
--             deletes/N is the JSON of a table's deletes above the cap; opening is the nonce of an Open without an answer.
-- named       table names as they were written; other tables refer to them by number.
-- cursor      entries of the last grant, moved on by completed batches; apart from the spool, so that dropping the
--             spool never loses them (the only copy toward a server without sessions).
-- batch       the one open batch; `seal` is JSON once capture has ended it.
-- spool       its messages: the bytes to send, and what they make known. Acknowledgements are not stored: after a
--             start everything is sent again, which the server takes as exact repeats.
-- known       key and hash of what staging holds; hash zero = perhaps staged.
-- quarantine  row images the server refuses; capture leaves a row out while its hash is this one.
-- status, incident, reload   what people see and ask for.
CREATE TABLE fact (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE named (
    id     INTEGER PRIMARY KEY,
    folded TEXT NOT NULL UNIQUE,
    name   TEXT NOT NULL
) STRICT;

CREATE TABLE cursor (
    table_id INTEGER PRIMARY KEY REFERENCES named,
    value    BLOB NOT NULL
) STRICT;

CREATE TABLE batch (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    id   INTEGER NOT NULL,
    seal TEXT
) STRICT;

CREATE TABLE spool (
    number    INTEGER PRIMARY KEY CHECK (number > 0),
    table_id  INTEGER NOT NULL REFERENCES named,
    row_count INTEGER NOT NULL,
    crc       INTEGER NOT NULL,
    known_crc INTEGER NOT NULL,
    bytes     BLOB NOT NULL,
    known     BLOB NOT NULL
) STRICT;

CREATE TABLE known (
    table_id INTEGER NOT NULL,
    key      BLOB NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 16),
    PRIMARY KEY (table_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    table_id INTEGER NOT NULL,
    key      BLOB NOT NULL,
    hash     BLOB NOT NULL CHECK (length(hash) = 16),
    PRIMARY KEY (table_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE status (
    table_id INTEGER PRIMARY KEY REFERENCES named,
    json     TEXT NOT NULL
) STRICT;

CREATE TABLE incident (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    table_id  INTEGER REFERENCES named,
    key_hash  TEXT,
    code      TEXT NOT NULL,
    words     TEXT NOT NULL,
    at_micros INTEGER NOT NULL
) STRICT;

CREATE TABLE reload (
    table_id INTEGER PRIMARY KEY REFERENCES named,
    number   INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 1;
