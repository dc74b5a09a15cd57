-- name: start_worker
-- $1 host, $2 pid, $3 version.
insert into counterfoil.worker (host, pid, version) values ($1, $2, $3) returning id;

-- name: hold_presence
-- $1 worker. On the worker's own connection: the lock goes when the process goes.
select pg_try_advisory_lock(7246, $1::int);

-- name: beat_worker
-- $1 worker.
update counterfoil.worker set heartbeat_at = counterfoil.now(), stopped_at = null where id = $1;

-- name: stop_worker
-- $1 worker.
update counterfoil.worker set stopped_at = counterfoil.now() where id = $1;

-- name: list_workers
-- $1 limit. Alive first.
select w.*, counterfoil.worker_alive(w.id) as alive from counterfoil.worker w where w.stopped_at is null or w.stopped_at > counterfoil.now() - interval '1 day'
order by alive desc, w.id desc limit $1;

-- name: take_flow
-- $1 flow. On the worker's own connection: one process at a time works on a flow, so that its declared cap holds over all hosts.
select pg_try_advisory_lock(7247, hashtext($1));

-- name: leave_flow
-- $1 flow.
select pg_advisory_unlock(7247, hashtext($1));

-- name: silent_holder
-- $1 flow, $2 silence. The process that has the flow and gave no sign of life for so long: stopped, or cut off, and not dead.
select w.id, w.host, w.pid from pg_catalog.pg_locks f
join pg_catalog.pg_locks p on p.pid = f.pid and p.locktype = 'advisory' and p.classid = 7246 and p.objsubid = 2
  and p.database = f.database
join counterfoil.worker w on w.id = p.objid::bigint
where f.locktype = 'advisory' and f.classid = 7247 and f.objsubid = 2 and f.granted
  and f.objid = (hashtext($1)::bigint & 4294967295)::oid
  and f.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
  and w.heartbeat_at < counterfoil.now() - $2::interval;

-- name: end_sessions
-- $1 what they are called. Ends what a hanging process still holds: rows it has locked would keep everybody waiting.
select count(*) filter (where pg_catalog.pg_terminate_backend(a.pid)) from pg_catalog.pg_stat_activity a
where a.datname = current_database() and a.application_name = $1 and a.pid <> pg_catalog.pg_backend_pid();
