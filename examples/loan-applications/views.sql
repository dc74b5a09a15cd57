-- The sync log under the seed's own name and columns, as a view over the runs of the ledger: every monitoring query of seed 003 runs on it
-- unchanged. Put it in place with: psql "$DATABASE_URL" -f views.sql   (the demo does it by itself)
create or replace view public.tblsovereignapplicationssynclog as
select
  ('00000000-0000-4000-8000-' || lpad(to_hex(r.id), 12, '0'))::uuid as id,
  coalesce(r.since, r.created_at)::date as since_date,
  coalesce(r.started_at, r.created_at) as sync_started_at,
  r.ended_at as sync_completed_at,
  r.found as applications_found,
  r.inserted + r.updated + r.unchanged + r.rejected + r.review as applications_fetched,
  r.inserted + r.updated + r.unchanged as applications_upserted,
  coalesce((select sum(f.records) from counterfoil.run_fault f
            where f.run_id = r.id and f.outcome = 'failed' and split_part(f.fault, ':', 1) not in ('check', 'not_unique', 'foreign_key', 'missing_value', 'too_long',
              'out_of_range', 'wrong_type', 'trigger', 'exclusion', 'invalid_text')), 0)::bigint as fetch_failures,
  coalesce((select sum(f.records) from counterfoil.run_fault f
            where f.run_id = r.id and f.outcome = 'failed' and split_part(f.fault, ':', 1) in ('check', 'not_unique', 'foreign_key', 'missing_value', 'too_long',
              'out_of_range', 'wrong_type', 'trigger', 'exclusion', 'invalid_text')), 0)::bigint as upsert_failures,
  case when r.state in ('queued', 'running') then 'running' when r.state in ('completed', 'partial') then 'completed' else 'failed' end as status,
  case when r.state in ('completed', 'queued', 'running') then null else jsonb_build_object('state', r.state, 'fault', r.fault, 'problem', r.problem,
    'errors', (select jsonb_agg(jsonb_build_object('fault', f.fault, 'error', f.problem, 'records', f.records, 'ids', f.keys))
               from counterfoil.run_fault f where f.run_id = r.id)) end as error_details
from counterfoil.run r
where r.flow = 'loan-applications';
