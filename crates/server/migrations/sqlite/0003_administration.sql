-- Administration: who may administer over the network, and what was done.
--
-- Keeps: a token's secret only as HMAC-SHA-256 under the key file beside the store; a token belongs to one
-- administrator and may be bound to one tenant; the audit only grows (triggers refuse all else), and each entry holds
-- the hash of the one before it in its chain, a chain per tenant and one for what belongs to none.
-- The audit names tenants without a foreign key: it outlives them.

CREATE TABLE administrator (
    id          TEXT PRIMARY KEY CHECK (length(id) = 36),
    name        TEXT NOT NULL UNIQUE CHECK (name <> ''),
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE admin_token (
    id               TEXT PRIMARY KEY CHECK (length(id) = 36),
    administrator_id TEXT NOT NULL REFERENCES administrator (id),
    name             TEXT NOT NULL CHECK (name <> ''),
    role             TEXT NOT NULL CHECK (role IN ('operator', 'read-only')),
    -- NULL: every tenant.
    tenant_id        TEXT REFERENCES tenant (id),
    secret_hmac      BLOB NOT NULL CHECK (length(secret_hmac) = 32),
    created_at       INTEGER NOT NULL,
    -- NULL: lives until it is revoked.
    expires_at       INTEGER,
    revoked_at       INTEGER,
    UNIQUE (administrator_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    -- Administrator and token, or the command line and its user.
    who         TEXT NOT NULL CHECK (who <> ''),
    action      TEXT NOT NULL CHECK (action <> ''),
    tenant_id   TEXT,
    target      TEXT NOT NULL,
    detail      TEXT NOT NULL,
    -- SHA-256 over the entry before it in the chain and this one's fields.
    hash        BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX audit_by_tenant ON audit (tenant_id, seq);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END;

CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END;
