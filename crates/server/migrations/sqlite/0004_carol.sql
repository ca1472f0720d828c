-- Carol: with which credentials a tenant's sender reaches Carol (contracts.md 4.2).
--
-- Keeps: the token of the connector only sealed: under a key of its own, which is sealed under the key file beside the
-- store (correctness.md k 3). One connector per tenant.

CREATE TABLE carol_credential (
    tenant_id    TEXT PRIMARY KEY REFERENCES tenant (id),
    endpoint     TEXT NOT NULL CHECK (endpoint <> ''),
    organization TEXT NOT NULL CHECK (organization <> ''),
    carol_tenant TEXT NOT NULL CHECK (carol_tenant <> ''),
    connector_id TEXT NOT NULL CHECK (connector_id <> ''),
    -- The token's own key, sealed; and the token, sealed under it.
    sealed_key   BLOB NOT NULL,
    sealed_token BLOB NOT NULL,
    set_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
