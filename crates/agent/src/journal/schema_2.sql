-- History: what was sent, record by record and concept by concept.
--
-- known       gains the batch and message that made the record known, and when; NULL = perhaps staged, or learned from
--             the server. Shown as GDataShareRecords.
-- batch       gains the moment it was opened.
-- history     one row per table and batch that was settled, and per job; ids rise in the order of writing. Shown as
--             GTOTVSAPPCONCEITOHST. Cleaned oldest first; the last success of each concept stays.
ALTER TABLE known ADD COLUMN batch INTEGER;
ALTER TABLE known ADD COLUMN message INTEGER;
ALTER TABLE known ADD COLUMN sent_micros INTEGER;
ALTER TABLE batch ADD COLUMN opened_micros INTEGER NOT NULL DEFAULT 0;

CREATE TABLE history (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    concept         TEXT NOT NULL,
    started_micros  INTEGER NOT NULL,
    finished_micros INTEGER NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('SUCCESS', 'ERROR')),
    records         INTEGER NOT NULL,
    error           TEXT,
    batch           INTEGER,
    CHECK ((error IS NULL) = (status = 'SUCCESS'))
) STRICT;

CREATE INDEX history_success ON history (concept, id) WHERE status = 'SUCCESS';
CREATE INDEX history_concept ON history (concept, id);

PRAGMA user_version = 2;
