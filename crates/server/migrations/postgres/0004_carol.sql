-- The twin of sqlite/0004_carol.sql, which tells what each thing is.

SET LOCAL search_path TO malote;

CREATE TABLE carol_credential (
    tenant_id    text COLLATE "C" PRIMARY KEY REFERENCES tenant (id),
    endpoint     text COLLATE "C" NOT NULL CHECK (endpoint <> ''),
    organization text COLLATE "C" NOT NULL CHECK (organization <> ''),
    carol_tenant text COLLATE "C" NOT NULL CHECK (carol_tenant <> ''),
    connector_id text COLLATE "C" NOT NULL CHECK (connector_id <> ''),
    sealed_key   bytea NOT NULL,
    sealed_token bytea NOT NULL,
    set_at       bigint NOT NULL
);

CALL keep_apart('carol_credential', 'tenant_id');
