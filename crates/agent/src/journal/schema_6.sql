-- Verifications: tables compared with what is staged, as they were asked for, and what came of them.
--
-- verification  one row each; `outcome` is JSON, there once the comparison ended well, `code` and `words` where it did
--               not. `fleet_order` is the order of the server it belongs to. key_from and key_to (key bytes, empty = no bound) part off what is compared. One that was RUNNING
--               when the process ended runs again. The newest of each table stay.
-- repair        keys whose rows capture sends again, whatever is known of them; a table's list goes once the batch with
--               the last of them was accepted.
CREATE TABLE verification (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    table_id        INTEGER NOT NULL REFERENCES named,
    fleet_order     TEXT,
    origin          TEXT NOT NULL CHECK (origin IN ('SCHEDULE', 'PERSON', 'CLOUD')),
    repair          INTEGER NOT NULL CHECK (repair IN (0, 1)),
    key_from        BLOB NOT NULL,
    key_to          BLOB NOT NULL,
    stage           TEXT NOT NULL CHECK (stage IN ('WAITING', 'RUNNING', 'DONE', 'FAILED')),
    asked_micros    INTEGER NOT NULL,
    started_micros  INTEGER,
    finished_micros INTEGER,
    outcome         TEXT,
    code            TEXT,
    words           TEXT,
    CHECK ((outcome IS NOT NULL) = (stage = 'DONE')),
    CHECK ((code IS NOT NULL) = (stage = 'FAILED'))
) STRICT;

CREATE INDEX verification_stage ON verification (stage, id);
CREATE INDEX verification_table ON verification (table_id, id);
CREATE INDEX verification_order ON verification (fleet_order) WHERE fleet_order IS NOT NULL;

CREATE TABLE repair (
    table_id INTEGER NOT NULL,
    key      BLOB NOT NULL,
    PRIMARY KEY (table_id, key)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 6;
