-- Checks: what decides where a table resumes and what a batch holds has a checksum of its own; SQLite's pages have none.
--
-- cursor      crc over the table's name and the entry.
-- batch       seal_crc over the batch's id and the seal; 0 while there is no seal.
-- spool       head_crc over number, table and rows; `crc` and `known_crc` are over the two texts as before.
--
-- The function is the program's own (`checksum`). What stands here when this step runs is taken as it is.
ALTER TABLE cursor ADD COLUMN crc INTEGER NOT NULL DEFAULT -1;
ALTER TABLE batch ADD COLUMN seal_crc INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spool ADD COLUMN head_crc INTEGER NOT NULL DEFAULT -1;

UPDATE cursor SET crc = checksum((SELECT name FROM named WHERE id = table_id), value);
UPDATE batch SET seal_crc = checksum(id, seal) WHERE seal IS NOT NULL;
UPDATE spool SET head_crc = checksum(number, (SELECT name FROM named WHERE id = table_id), row_count);

PRAGMA user_version = 4;
