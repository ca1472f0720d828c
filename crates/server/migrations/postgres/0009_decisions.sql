-- The twin of sqlite/0009_decisions.sql, which tells what each thing is.

SET LOCAL search_path TO malote;

ALTER TABLE ingest_stream ADD COLUMN offered_mark text COLLATE "C";
ALTER TABLE ingest_stream ADD COLUMN offered_by text COLLATE "C";
ALTER TABLE ingest_stream ADD COLUMN offered_since bigint;
ALTER TABLE ingest_stream ADD COLUMN offered_at bigint;

ALTER TABLE fleet_agent ADD COLUMN heard bytea NOT NULL DEFAULT '';
ALTER TABLE fleet_agent ADD COLUMN twice_at bigint;

ALTER TABLE fleet_order ADD COLUMN ended_by text COLLATE "C";

CREATE TABLE retention_look (
    one             bigint PRIMARY KEY CHECK (one = 1),
    at              bigint NOT NULL,
    doubted         bigint NOT NULL CHECK (doubted >= 0)
);
INSERT INTO retention_look (one, at, doubted) SELECT 1, max(last_at), 0 FROM batch HAVING max(last_at) IS NOT NULL;
