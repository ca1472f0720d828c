-- Orders: what the server ordered, so that each is carried out once.
--
-- fleet_order one row per order, written before anything is done for it. `outcome` is NULL until it was carried out, in
--             the transaction that did it: empty = done, else the code it failed with. `told` = the server took the
--             outcome. The oldest that were told go.
CREATE TABLE fleet_order (
    id        TEXT PRIMARY KEY CHECK (length(id) = 36),
    at_micros INTEGER NOT NULL,
    outcome   TEXT,
    told      INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1)),
    CHECK (told = 0 OR outcome IS NOT NULL)
) STRICT;

CREATE INDEX fleet_order_untold ON fleet_order (at_micros) WHERE outcome IS NOT NULL AND told = 0;

PRAGMA user_version = 5;
