-- The twin of sqlite/0001_catalog.sql, which tells what each thing is.

CREATE SCHEMA malote;
SET LOCAL search_path TO malote;

CREATE TABLE migration (
    number bigint PRIMARY KEY,
    name   text NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
);

-- What the statements of both engines call by one name.
CREATE FUNCTION iif(boolean, anycompatible, anycompatible) RETURNS anycompatible
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN $1 THEN $2 ELSE $3 END';
CREATE FUNCTION instr(text, text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT strpos($1, $2)::bigint';
CREATE FUNCTION max(bigint, bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN $1 IS NULL OR $2 IS NULL THEN NULL ELSE greatest($1, $2) END';
CREATE FUNCTION min(bigint, bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN $1 IS NULL OR $2 IS NULL THEN NULL ELSE least($1, $2) END';
CREATE FUNCTION json_each(text) RETURNS TABLE (value text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT jsonb_array_elements_text($1::jsonb)';
CREATE FUNCTION json_valid(text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
BEGIN
    RETURN $1::jsonb IS NOT NULL;
EXCEPTION WHEN data_exception THEN
    RETURN false;
END $body$;

-- From here on a table's rows are those of the tenant that the transaction names, also for the owner; '*' is none in
-- particular, and without a name there is nothing to see.
CREATE PROCEDURE keep_apart(kept regclass, of_tenant name) LANGUAGE plpgsql AS $body$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', kept);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', kept);
    EXECUTE format('CREATE POLICY of_tenant ON %1$s USING (%2$I = current_setting(''malote.tenant'', true)
        OR current_setting(''malote.tenant'', true) = ''*'')', kept, of_tenant);
END $body$;

CREATE TABLE tenant (
    id          text COLLATE "C" PRIMARY KEY CHECK (length(id) = 36),
    name        text COLLATE "C" NOT NULL UNIQUE CHECK (name <> ''),
    created_at  bigint NOT NULL
);

CREATE TABLE app (
    tenant_id   text COLLATE "C" NOT NULL REFERENCES tenant (id),
    id          text COLLATE "C" NOT NULL CHECK (length(id) = 36),
    name        text COLLATE "C" NOT NULL CHECK (name <> ''),
    description text COLLATE "C" NOT NULL,
    active      bigint NOT NULL CHECK (active IN (0, 1)),
    created_at  bigint NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
);

CREATE TABLE environment (
    tenant_id   text COLLATE "C" NOT NULL REFERENCES tenant (id),
    id          text COLLATE "C" NOT NULL UNIQUE CHECK (length(id) = 36),
    name        text COLLATE "C" NOT NULL CHECK (name <> ''),
    type        text COLLATE "C" NOT NULL CHECK (type IN ('PRODUCTION', 'STAGING', 'DEVELOPMENT', 'CUSTOM')),
    created_at  bigint NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
);

CREATE TABLE installation (
    tenant_id      text COLLATE "C" NOT NULL REFERENCES tenant (id),
    id             text COLLATE "C" NOT NULL UNIQUE CHECK (length(id) = 36),
    name           text COLLATE "C" NOT NULL CHECK (name <> ''),
    erp            text COLLATE "C" NOT NULL CHECK (erp = upper(erp) AND erp <> ''),
    environment_id text COLLATE "C",
    created_at     bigint NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id)
);

CREATE UNIQUE INDEX one_installation_per_product_line
    ON installation (tenant_id, environment_id, erp) WHERE environment_id IS NOT NULL;

CREATE TABLE credential (
    client_id       text COLLATE "C" PRIMARY KEY CHECK (client_id <> ''),
    tenant_id       text COLLATE "C" NOT NULL REFERENCES tenant (id),
    installation_id text COLLATE "C",
    app_id          text COLLATE "C",
    secret_hmac     bytea NOT NULL CHECK (length(secret_hmac) = 32),
    created_at      bigint NOT NULL,
    revoked_at      bigint,
    FOREIGN KEY (tenant_id, installation_id) REFERENCES installation (tenant_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES app (tenant_id, id),
    CHECK ((installation_id IS NULL) <> (app_id IS NULL))
);

CREATE INDEX credential_by_tenant ON credential (tenant_id);

CREATE TABLE entity (
    tenant_id         text COLLATE "C" NOT NULL,
    environment_id    text COLLATE "C" NOT NULL,
    erp               text COLLATE "C" NOT NULL CHECK (erp = upper(erp)),
    name_folded       text COLLATE "C" NOT NULL CHECK (name_folded <> ''),
    name              text COLLATE "C" NOT NULL CHECK (name <> ''),
    filter            text COLLATE "C",
    is_native         bigint NOT NULL DEFAULT 1 CHECK (is_native IN (0, 1)),
    is_custom         bigint NOT NULL DEFAULT 0 CHECK (is_custom IN (0, 1)),
    generation        bigint NOT NULL DEFAULT 0 CHECK (generation >= 0),
    done_generation   bigint NOT NULL DEFAULT 0 CHECK (done_generation BETWEEN 0 AND generation),
    reload_asked_at   bigint,
    rebuild           bigint NOT NULL DEFAULT 0 CHECK (rebuild IN (0, 1)),
    withdrawn_at      bigint,
    created_at        bigint NOT NULL,
    PRIMARY KEY (tenant_id, environment_id, erp, name_folded),
    FOREIGN KEY (tenant_id, environment_id) REFERENCES environment (tenant_id, id)
);

CREATE TABLE signing_key (
    kid         text COLLATE "C" PRIMARY KEY CHECK (length(kid) = 32),
    sealed      bytea NOT NULL,
    public_der  bytea NOT NULL,
    created_at  bigint NOT NULL,
    retired_at  bigint
);

CALL keep_apart('tenant', 'id');
CALL keep_apart('app', 'tenant_id');
CALL keep_apart('environment', 'tenant_id');
CALL keep_apart('installation', 'tenant_id');
CALL keep_apart('credential', 'tenant_id');
CALL keep_apart('entity', 'tenant_id');
