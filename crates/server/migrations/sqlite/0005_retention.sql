-- Retention: how far the ledger has given up its bodies.
--
-- Keeps: every body above removed_seq; the row of removed_seq itself, so that a staging file that is made anew has a
-- place to begin. A staging file that stands below it cannot be completed from the ledger: its tables are sent again.

ALTER TABLE ingest_stream ADD COLUMN removed_seq INTEGER NOT NULL DEFAULT 0 CHECK (removed_seq >= 0);
