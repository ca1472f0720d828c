-- Decisions: what a person is shown before a database is accepted or twins are let go, and what must be told again to
-- whoever takes a stream over.
--
-- Keeps: times are microseconds since 1970 UTC; instances are UUID text with dashes.

-- Of the database in `offered`: its fingerprint, the instance that showed it, since when and when last.
ALTER TABLE ingest_stream ADD COLUMN offered_mark TEXT;
ALTER TABLE ingest_stream ADD COLUMN offered_by TEXT;
ALTER TABLE ingest_stream ADD COLUMN offered_since INTEGER;
ALTER TABLE ingest_stream ADD COLUMN offered_at INTEGER;

-- What it was heard with since a person decided last (model/session.rs, Heard), and since when two processes are known
-- to be this instance; NULL: they are not.
ALTER TABLE fleet_agent ADD COLUMN heard BLOB NOT NULL DEFAULT x'';
ALTER TABLE fleet_agent ADD COLUMN twice_at INTEGER;

-- The instance that carried an order out last: a pause is told to each that takes the stream over.
ALTER TABLE fleet_order ADD COLUMN ended_by TEXT;

-- What the clock showed when retention believed it last, and for how many microseconds it was doubted since: one that
-- leapt is waited with before anything is removed by it. A store of before knows the time of its newest batch.
CREATE TABLE retention_look (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    at              INTEGER NOT NULL,
    doubted         INTEGER NOT NULL CHECK (doubted >= 0)
) STRICT;
INSERT INTO retention_look (one, at, doubted) SELECT 1, max(last_at), 0 FROM batch HAVING max(last_at) IS NOT NULL;
