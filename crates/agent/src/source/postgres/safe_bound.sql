-- For the DBA, once per database: lets the agent's login learn since when the oldest open transaction is open, and
-- nothing else (no texts, users or addresses of other sessions). Malote never runs this by itself.
DO $$
BEGIN
  IF NOT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') THEN
    RAISE EXCEPTION 'the owner of malote.safe_bound() must see all sessions, and % does not', current_user
      USING HINT = 'Run this as a superuser, or as a role with pg_read_all_stats.';
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS malote;

CREATE OR REPLACE FUNCTION malote.safe_bound(OUT at timestamptz, OUT bound timestamptz, OUT open_count bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT statement_timestamp(),
         least(statement_timestamp(), min(a.xact_start),
               -- A session that hides its activity may have any age.
               CASE WHEN bool_or(a.state = 'disabled')
                    THEN statement_timestamp() - interval '10 minutes' END),
         count(a.xact_start)
    FROM pg_stat_activity a
   WHERE a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
     AND a.pid <> pg_backend_pid()
     AND a.backend_type NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender')
$$;

REVOKE ALL ON FUNCTION malote.safe_bound() FROM PUBLIC;
-- GRANT USAGE ON SCHEMA malote TO the_agents_login;
-- GRANT EXECUTE ON FUNCTION malote.safe_bound() TO the_agents_login;
