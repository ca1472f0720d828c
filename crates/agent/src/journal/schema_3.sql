-- Halts: tables that a person paused.
--
-- halt        one row per paused table, 0 = all of them, with who, why and when. It outlives the process; what is
--             spooled already still goes out.
CREATE TABLE halt (
    table_id  INTEGER PRIMARY KEY,
    who       TEXT NOT NULL,
    why       TEXT NOT NULL,
    at_micros INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 3;
