-- name: create_run
-- $1 flow, $2 trigger, $3 actor, $4 reason, $5 fired_for, $6 since, $7 until, $8 given, $9 backfill_until, $10 backfill_step. No row: one is open, or fired already.
insert into counterfoil.run (flow, state, trigger, actor, reason, fired_for, since, until, given, backfill_until, backfill_step,
  created_at, next_action_at)
values ($1, 'queued', $2, $3, $4, $5, $6, $7, $8, $9, $10, counterfoil.now(), counterfoil.now())
on conflict do nothing
returning id;

-- name: claim_run
-- $1 run, $2 attempt, $3 worker, $4 lease. Takes a run that is due, whose lease ended, or whose worker is gone; the last two count as a crash.
update counterfoil.run r set
  state = 'running', attempt_id = $2, worker_id = $3, attempts = r.attempts + 1,
  crashes = r.crashes + (r.state = 'running')::int,
  suspect_crashes = r.suspect_crashes + (r.state = 'running' and r.suspect_key is not null)::int,
  started_at = coalesce(r.started_at, counterfoil.now()),
  next_action_at = counterfoil.now() + $4,
  watermark_before = case when r.started_at is null then f.watermark else r.watermark_before end
from counterfoil.flow f
where r.id = $1 and f.name = r.flow and r.ended_at is null
  and (r.next_action_at <= counterfoil.now() or (r.state = 'running' and not counterfoil.worker_alive(r.worker_id)))
returning r.*;

-- name: set_window
-- $1 run, $2 attempt, $3 since, $4 until. Once, by the first attempt: a resumed run asks for the same window.
update counterfoil.run set since = $3, until = $4 where id = $1 and attempt_id = $2 and state = 'running' returning id;

-- name: hold_run
-- $1 run, $2 attempt. The fence of a chunk: locks the run for this transaction if the attempt still has it. Gives the chunks settled.
select chunks from counterfoil.run where id = $1 and attempt_id = $2 and state = 'running' for update;

-- name: renew_run
-- $1 run, $2 attempt, $3 lease. No row: the lease is lost.
update counterfoil.run set next_action_at = counterfoil.now() + $3 where id = $1 and attempt_id = $2 and state = 'running' returning id;

-- name: suspect_key
-- $1 run, $2 attempt, $3 key. Written before a record is touched, where workers have died: if this one dies too, we know with what in hand.
update counterfoil.run set
  suspect_crashes = case when suspect_key is distinct from $3 then 0 else suspect_crashes end, suspect_key = $3
where id = $1 and attempt_id = $2 and state = 'running' returning suspect_crashes;

-- name: advance_run
-- $1 run, $2 attempt, $3 lease, $4 cursor, $5 pages, $6 list_ended, $7 latest_changed, $8 next_key, $9 counts (listed, duplicates, found, inserted, updated, unchanged, rejected, review, failed, deleted, written_back).
update counterfoil.run set
  next_action_at = counterfoil.now() + $3, cursor = coalesce($4, cursor), chunks = chunks + 1, pages = pages + $5, list_ended = list_ended or $6,
  latest_changed = greatest(latest_changed, $7), next_key = greatest(next_key, $8),
  crashes = 0, suspect_key = null, suspect_crashes = 0,
  listed = listed + ($9::bigint[])[1], duplicates = duplicates + ($9::bigint[])[2], found = found + ($9::bigint[])[3], inserted = inserted + ($9::bigint[])[4],
  updated = updated + ($9::bigint[])[5], unchanged = unchanged + ($9::bigint[])[6], rejected = rejected + ($9::bigint[])[7], review = review + ($9::bigint[])[8],
  failed = failed + ($9::bigint[])[9], deleted = deleted + ($9::bigint[])[10], written_back = written_back + ($9::bigint[])[11]
where id = $1 and attempt_id = $2 and state = 'running'
returning id;

-- name: finish_run
-- $1 run, $2 attempt, $3 state, $4 fault, $5 problem, $6 watermark. The database refuses a sum that does not hold.
update counterfoil.run set state = $3, ended_at = counterfoil.now(), next_action_at = null, attempt_id = null, fault = $4, problem = $5,
  watermark_after = $6, suspect_key = null
where id = $1 and attempt_id = $2 and state = 'running'
returning *;

-- name: release_run
-- $1 run, $2 attempt, $3 due at, $4 fault, $5 problem. A worker that stops in order gives its run back; that is no crash.
update counterfoil.run set state = 'queued', attempt_id = null, next_action_at = $3, fault = $4, problem = $5 where id = $1 and attempt_id = $2 and state = 'running'
returning id;

-- name: cancel_run
-- $1 run, $2 reason. By a person; the attempt that has it finds itself fenced off.
update counterfoil.run set state = 'cancelled', ended_at = counterfoil.now(), next_action_at = null, attempt_id = null, reason = $2
where id = $1 and ended_at is null returning id;

-- name: get_run
-- $1 run.
select r.*, w.host as worker_host, w.pid as worker_pid, counterfoil.worker_alive(r.worker_id) as worker_alive
from counterfoil.run r left join counterfoil.worker w on w.id = r.worker_id where r.id = $1;

-- name: open_run
-- $1 flow.
select r.*, w.host as worker_host, w.pid as worker_pid, counterfoil.worker_alive(r.worker_id) as worker_alive
from counterfoil.run r left join counterfoil.worker w on w.id = r.worker_id where r.flow = $1 and r.ended_at is null;

-- name: list_runs
-- $1 flow or null, $2 before id or null, $3 limit.
select * from counterfoil.run where ($1::text is null or flow = $1) and ($2::bigint is null or id < $2) order by id desc limit $3;

-- name: due_runs
-- $1 limit. Runs nobody works on although they are due: the sweep makes their slices again.
select id, flow, attempts from counterfoil.run
where ended_at is null
  and (next_action_at <= counterfoil.now() or (state = 'running' and worker_id not in (select w from counterfoil.live_workers() w)))
order by next_action_at limit $1;

-- name: found_lately
-- $1 flow, $2 run to leave out, $3 how many. What the last accounted runs found: the base line for "nothing found".
select found from counterfoil.run where flow = $1 and id <> $2 and state in ('completed', 'partial') and not given order by id desc limit $3;

-- name: add_keys
-- $1 run, $2 keys in list order, $3 first number, $4 done. Returns the keys that are new to the run.
insert into counterfoil.run_key (run_id, key, n, done)
select $1, k.key, $3 + k.ord, $4 from unnest($2::text[]) with ordinality as k (key, ord)
on conflict do nothing
returning key;

-- name: open_keys
-- $1 run, $2 after number, $3 limit. In list order.
select key, n from counterfoil.run_key where run_id = $1 and not done and n > $2 order by n limit $3;

-- name: finish_keys
-- $1 run, $2 keys.
update counterfoil.run_key set done = true where run_id = $1 and key = any ($2::text[]);

-- name: count_open_keys
-- $1 run.
select count(*) from counterfoil.run_key where run_id = $1 and not done;

-- name: any_unknown_key
-- $1 run. Whether the list held entries whose key nobody can tell.
select exists (select 1 from counterfoil.run_key where run_id = $1 and (starts_with(key, 'broken:') or starts_with(key, 'no-key:')));

-- name: prune_keys
-- $1 limit. Keys of runs that have ended.
delete from counterfoil.run_key where ctid = any (array(
  select k.ctid from counterfoil.run_key k join counterfoil.run r on r.id = k.run_id where r.ended_at is not null limit $1));

-- name: add_faults
-- $1 run, $2 outcomes, $3 faults, $4 problems, $5 numbers of records, $6 keys as examples (one text per row, separated by U+001F).
insert into counterfoil.run_fault as f (run_id, outcome, fault, problem, records, keys)
select $1, n.outcome, n.fault, n.problem, n.records, string_to_array(n.keys, chr(31))
from unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[]) as n (outcome, fault, problem, records, keys)
order by n.outcome, n.fault
on conflict (run_id, outcome, fault) do update set records = f.records + excluded.records, keys = (f.keys || excluded.keys)[1:10];

-- name: list_faults
-- $1 run.
select outcome, fault, problem, records, keys from counterfoil.run_fault where run_id = $1 order by records desc, fault;

-- name: add_write_backs
-- $1 run, $2 keys, $3 bodies.
insert into counterfoil.write_back (run_id, key, body)
select $1, w.key, w.body from unnest($2::text[], $3::jsonb[]) as w (key, body)
on conflict (run_id, key) do update set body = excluded.body;

-- name: open_write_backs
-- $1 run, $2 after key, $3 limit.
select key, body from counterfoil.write_back where run_id = $1 and key > $2 order by key limit $3;

-- name: finish_write_backs
-- $1 run, $2 keys.
delete from counterfoil.write_back where run_id = $1 and key = any ($2::text[]);

-- name: adopt_write_backs
-- $1 run, $2 flow. What earlier runs of the flow loaded and did not come to tell, because they failed, is told by this one.
with left_behind as (
  delete from counterfoil.write_back w using counterfoil.run r
  where r.id = w.run_id and r.flow = $2 and r.id <> $1 and r.ended_at is not null
  returning w.run_id, w.key, w.body)
insert into counterfoil.write_back (run_id, key, body)
select distinct on (l.key) $1, l.key, l.body from left_behind l order by l.key, l.run_id desc
on conflict (run_id, key) do nothing;
