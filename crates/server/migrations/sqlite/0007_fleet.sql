-- Fleet: the agents of each stream as they were seen, their tables as they were reported, and the orders to them.
--
-- Keeps: one row per instance that asked for a session, with what it was answered last; one row per table of the last
-- report, which only the holder of the lease gives; an order's states are those of model/fleet.rs: `waiting` until it is
-- written into a stream of commands, `sent` and `under-way` until the agent says how it ended, and only one that still
-- waits is `withdrawn`; none ends without the time, none fails without a code. Times are microseconds since 1970 UTC.
-- Ids are UUID text with dashes. Tenant first in every key.

CREATE TABLE fleet_agent (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    instance        TEXT NOT NULL CHECK (length(instance) = 36),
    -- For people: version of the agent, and of its database.
    version         TEXT NOT NULL,
    database        TEXT NOT NULL,
    first_at        INTEGER NOT NULL,
    -- Its last Open, and the code that refused it; NULL: it was granted.
    asked_at        INTEGER NOT NULL,
    refused         TEXT CHECK (refused <> ''),
    -- Facts of its database that are others than before, by name; empty where that did not refuse it.
    differs         TEXT NOT NULL,
    -- Its last grant and its last report, if there were any.
    granted_at      INTEGER,
    reported_at     INTEGER,
    PRIMARY KEY (tenant_id, environment_id, erp, instance),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp) ON DELETE CASCADE,
    CHECK (refused IS NOT NULL OR granted_at IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_table (
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    name_folded     TEXT NOT NULL,
    name            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('UNKNOWN', 'BASE_LOAD', 'STREAMING', 'RELOAD', 'PAUSED', 'PARKED')),
    mode            TEXT NOT NULL CHECK (mode IN ('UNKNOWN', 'TIMESTAMP', 'TRIGGER', 'SNAPSHOT_DIFF')),
    watermark       TEXT NOT NULL,
    lag_ms          INTEGER NOT NULL CHECK (lag_ms >= 0),
    held_by         TEXT NOT NULL,
    parked_code     TEXT NOT NULL,
    quarantined     INTEGER NOT NULL CHECK (quarantined >= 0),
    degraded        TEXT NOT NULL,
    -- Rows that its last verification found and did not repair, and when that ended; NULL: there was none.
    differences     INTEGER NOT NULL CHECK (differences >= 0),
    verified_at     INTEGER,
    -- Why the last one by the timetable came to no end, empty: it did; and since when that is reported.
    unverified      TEXT NOT NULL,
    unverified_since INTEGER NOT NULL,
    -- Since when it is reported in this state.
    since           INTEGER NOT NULL,
    reported_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id, erp) REFERENCES ingest_stream (tenant_id, environment_id, erp) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_order (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    tenant_id       TEXT NOT NULL,
    environment_id  TEXT NOT NULL,
    erp             TEXT NOT NULL,
    verb            TEXT NOT NULL CHECK (verb IN ('RELOAD', 'PAUSE', 'RESUME', 'RETRY', 'VERIFY', 'REPAIR', 'LOG_LEVEL')),
    -- NULL: all tables.
    name            TEXT,
    args            TEXT NOT NULL CHECK (json_valid(args)),
    who             TEXT NOT NULL CHECK (who <> ''),
    ordered_at      INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'under-way', 'done', 'failed', 'withdrawn')),
    -- When it was first written into a stream of commands.
    sent_at         INTEGER,
    ended_at        INTEGER,
    -- Why it failed.
    code            TEXT CHECK (code <> ''),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id) ON DELETE CASCADE,
    CHECK ((state IN ('done', 'failed', 'withdrawn')) = (ended_at IS NOT NULL)),
    CHECK ((state = 'failed') = (code IS NOT NULL)),
    CHECK ((state IN ('waiting', 'withdrawn')) = (sent_at IS NULL))
) STRICT;

CREATE INDEX fleet_order_by_stream ON fleet_order (tenant_id, environment_id, erp, seq);
CREATE INDEX fleet_order_open ON fleet_order (tenant_id, environment_id, erp, seq)
    WHERE state IN ('waiting', 'sent', 'under-way');
