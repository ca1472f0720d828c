-- Reloads that the server ordered, until they are over.
--
-- reload_order  one row for each table of an order, with the number of its request in `reload`; gone once a batch was
--               accepted with which the table had answered that request, or the table left the plan. The order is over
--               with its last row.
CREATE TABLE reload_order (
    fleet_order TEXT NOT NULL,
    table_id    INTEGER NOT NULL REFERENCES named,
    number      INTEGER NOT NULL,
    PRIMARY KEY (fleet_order, table_id)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 7;
