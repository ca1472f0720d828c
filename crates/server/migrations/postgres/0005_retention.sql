-- The twin of sqlite/0005_retention.sql, which tells what each thing is.

SET LOCAL search_path TO malote;

ALTER TABLE ingest_stream ADD COLUMN removed_seq bigint NOT NULL DEFAULT 0 CHECK (removed_seq >= 0);
