-- The sync_log of seed 004 as a view over the runs of the ledger.
create or replace view public.sync_log as
select
  r.id,
  ('00000000-0000-4000-8000-' || lpad(to_hex(r.id), 12, '0'))::uuid as sync_id,
  r.state::varchar(50) as status,
  r.inserted + r.updated + r.unchanged as records_processed,
  r.rejected + r.review + r.failed as records_failed,
  r.started_at,
  r.ended_at as completed_at,
  r.problem as error_message
from counterfoil.run r
where r.flow = 'customer-records';
