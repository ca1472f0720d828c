-- Catalog, access and fleet: who may send what.
--
-- Keeps: a tenant owns environments, installations, apps; an environment has at most one installation per product
-- line (erp) and an installation one environment (contracts.md 11); secrets only as HMAC-SHA-256 under a key held in
-- a file beside the store, never in it (correctness.md k 3); an entity's reload generation only rises.
-- Times are microseconds since 1970 UTC. Ids are UUID text with dashes.

CREATE TABLE tenant (
    id          TEXT PRIMARY KEY CHECK (length(id) = 36),
    name        TEXT NOT NULL UNIQUE CHECK (name <> ''),
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE app (
    tenant_id   TEXT NOT NULL REFERENCES tenant (id),
    id          TEXT NOT NULL CHECK (length(id) = 36),
    name        TEXT NOT NULL CHECK (name <> ''),
    description TEXT NOT NULL,
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE environment (
    tenant_id   TEXT NOT NULL REFERENCES tenant (id),
    id          TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    name        TEXT NOT NULL CHECK (name <> ''),
    type        TEXT NOT NULL CHECK (type IN ('PRODUCTION', 'STAGING', 'DEVELOPMENT', 'CUSTOM')),
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
) STRICT, WITHOUT ROWID;

-- An ERP set-up and its binding: environment_id NULL = not bound yet.
CREATE TABLE installation (
    tenant_id      TEXT NOT NULL REFERENCES tenant (id),
    id             TEXT NOT NULL UNIQUE CHECK (length(id) = 36),
    name           TEXT NOT NULL CHECK (name <> ''),
    erp            TEXT NOT NULL CHECK (erp = upper(erp) AND erp <> ''),
    environment_id TEXT,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX one_installation_per_product_line
    ON installation (tenant_id, environment_id, erp) WHERE environment_id IS NOT NULL;

-- Client id and secret of an installation or of an app (exactly one of both).
CREATE TABLE credential (
    client_id       TEXT PRIMARY KEY CHECK (client_id <> ''),
    tenant_id       TEXT NOT NULL REFERENCES tenant (id),
    installation_id TEXT,
    app_id          TEXT,
    secret_hmac     BLOB NOT NULL CHECK (length(secret_hmac) = 32),
    created_at      INTEGER NOT NULL,
    revoked_at      INTEGER,
    FOREIGN KEY (tenant_id, installation_id) REFERENCES installation (tenant_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES app (tenant_id, id),
    CHECK ((installation_id IS NULL) <> (app_id IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX credential_by_tenant ON credential (tenant_id);

-- A table to be shared by an environment's installation of an ERP. name_folded is the staging table's name.
CREATE TABLE entity (
    tenant_id         TEXT NOT NULL,
    environment_id    TEXT NOT NULL,
    erp               TEXT NOT NULL CHECK (erp = upper(erp)),
    name_folded       TEXT NOT NULL CHECK (name_folded <> ''),
    name              TEXT NOT NULL CHECK (name <> ''),
    filter            TEXT,
    is_native         INTEGER NOT NULL DEFAULT 1 CHECK (is_native IN (0, 1)),
    is_custom         INTEGER NOT NULL DEFAULT 0 CHECK (is_custom IN (0, 1)),
    -- Reload asked for (generation) and finished (done_generation): forceReload = generation > done_generation.
    generation        INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0),
    done_generation   INTEGER NOT NULL DEFAULT 0 CHECK (done_generation BETWEEN 0 AND generation),
    -- When the newest generation was asked for; a load that a sender without generations began before it does not count.
    reload_asked_at   INTEGER,
    -- 1: the next accepted forced reload rebuilds the staging table under the message's key (PRIMARY_KEY_CHANGED).
    rebuild           INTEGER NOT NULL DEFAULT 0 CHECK (rebuild IN (0, 1)),
    withdrawn_at      INTEGER,
    created_at        INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id)
) STRICT, WITHOUT ROWID;

-- Keys that sign tokens; private keys are sealed with the key file beside the store.
CREATE TABLE signing_key (
    kid         TEXT PRIMARY KEY CHECK (length(kid) = 32),
    sealed      BLOB NOT NULL,
    public_der  BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    retired_at  INTEGER
) STRICT, WITHOUT ROWID;
