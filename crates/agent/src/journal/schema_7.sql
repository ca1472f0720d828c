-- Reloads that the server ordered, until they are over.
--
-- reload_order  one row for each table of an order, with the number of its request in `reload`; gone once a batch was
--               accepted with which the table had answered that request, or the table left the plan. A table that was
--               parked meanwhile keeps its row with the code. The order is over when no row is left without one.
CREATE TABLE reload_order (
    fleet_order TEXT NOT NULL,
    table_id    INTEGER NOT NULL REFERENCES named,
    number      INTEGER NOT NULL,
    code        TEXT,
    PRIMARY KEY (fleet_order, table_id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 7;
