-- The schema of the ledger as all migrations together make it. For reading: written by `make schema`, proven by a test, never applied.

CREATE SCHEMA counterfoil;

CREATE TYPE counterfoil.move_request AS (
	id bigint,
	key text,
	event text,
	next_action_at timestamp with time zone,
	fault text,
	problem text,
	attempt_id uuid,
	run_id bigint,
	payload text,
	payload_sha256 text,
	reference text,
	superseded_by bigint
);

CREATE TYPE counterfoil.judged_move AS (
	item_id bigint,
	key text,
	from_state text,
	to_state text,
	why text,
	case_id bigint,
	attempt_id uuid,
	attempts integer,
	place tid,
	request counterfoil.move_request
);

CREATE TYPE counterfoil.move_result AS (
	id bigint,
	key text,
	from_state text,
	to_state text,
	moved boolean,
	why text
);

CREATE FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb DEFAULT NULL::jsonb, p_parent_key text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_id     bigint;
  v_parent bigint;
begin
  if coalesce(p_key, '') = '' then
    raise exception 'an item needs a key' using errcode = 'CF003', hint = 'Give the business key that is unique in the flow.';
  end if;
  if p_parent_key is not null then
    select id into v_parent from counterfoil.item where flow = p_flow and key = p_parent_key;
    if v_parent is null then
      raise exception 'parent "%" is not an item of flow "%"', p_parent_key, p_flow using errcode = 'CF003', hint = 'Accept the parent first.';
    end if;
  end if;
  perform counterfoil.move_items(p_flow,
    array[row(null, p_key, 'accept', null, null, null, null, null, p_payload::text, null, null, null)::counterfoil.move_request], session_user::text);
  if v_parent is not null then
    update counterfoil.item set parent_id = v_parent where flow = p_flow and key = p_key and parent_id is null;
  end if;
  select id into v_id from counterfoil.item where flow = p_flow and key = p_key;
  return v_id;
end $$;

CREATE FUNCTION counterfoil.births(p_requests counterfoil.move_request[], p_judged counterfoil.judged_move[]) RETURNS counterfoil.move_request[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select array(
    select distinct on ((q.request).key) q.request
    from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
    where (q.request).id is null and (q.request).key is not null
      and (q.request).key not in (select j.key from unnest(p_judged) j)
      and (q.request).event in (select m.event from counterfoil.item_move m where m.from_state = 'NEW')
    order by (q.request).key, q.place)
$$;

CREATE FUNCTION counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint) RETURNS TABLE(id bigint, key text, attempt_id uuid, attempts integer, first_failed_at timestamp with time zone, fault text, payload text, released_sha256 text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    with due as materialized (
      select i.id, i.crashes, i.next_action_at from counterfoil.item i
      where i.flow = p_flow and i.next_action_at <= counterfoil.now() and i.state in ('QUEUED', 'TEMPORARY_ERROR')
      order by i.next_action_at, i.id limit p_limit for update skip locked
    ), head as (select d.id, d.crashes from due d order by d.next_action_at, d.id limit 1)
    select d.id from due d cross join head h where case when h.crashes > 0 then d.id = h.id else d.crashes = 0 end order by d.id);
  perform counterfoil.move_items(p_flow,
    array(select row(u.id, null, 'claim', counterfoil.now() + p_lease, null, null, gen_random_uuid(), null, null, null, null, null)
      ::counterfoil.move_request from unnest(v_ids) as u (id)),
    'worker ' || p_worker, null, p_worker) where cardinality(v_ids) > 0;
  return query
  select i.id, i.key, i.attempt_id, i.attempts, i.first_failed_at, i.fault, i.payload, i.released_sha256
  from unnest(v_ids) as u (id)
  cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i;
end $$;

CREATE FUNCTION counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with closed as (
    update counterfoil."case" set closed_at = counterfoil.now(), closed_by = p_who, reason = p_why
    where flow = p_flow and closed_at is null and fault like 'run:%' and starts_with(fault, p_fault_prefix) returning 1)
  select count(*) from closed
$$;

CREATE FUNCTION counterfoil.count_cases(p_cases bigint[], p_deltas bigint[]) RETURNS void
    LANGUAGE sql
    AS $$
  update counterfoil."case" c
  set open_items = c.open_items + d.delta,
      closed_at = case when c.open_items + d.delta = 0 then counterfoil.now() end,
      closed_by = case when c.open_items + d.delta = 0 then 'ledger' end,
      reason = case when c.open_items + d.delta = 0 then 'all its items went on or were settled' end
  from (select u.id, sum(u.delta) as delta from unnest(p_cases, p_deltas) as u (id, delta) group by u.id having sum(u.delta) <> 0) d
  where c.id = d.id
$$;

CREATE FUNCTION counterfoil.count_moves(p_flow text, p_states text[], p_deltas bigint[]) RETURNS void
    LANGUAGE sql
    AS $$
  insert into counterfoil.item_count as c (flow, state, shard, items)
  select p_flow, d.state, (pg_backend_pid() % 8)::smallint, sum(d.delta)
  from unnest(p_states, p_deltas) as d (state, delta)
  group by d.state having sum(d.delta) <> 0
  order by d.state
  on conflict (flow, state, shard) do update set items = c.items + excluded.items
$$;

CREATE FUNCTION counterfoil.give_birth(p_flow text, p_births counterfoil.move_request[], p_actor text, p_reason text, p_now timestamp with time zone) RETURNS counterfoil.move_result[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
declare
  v_born counterfoil.move_result[];
begin
  with born as (
    insert into counterfoil.item (flow, key, state, state_since, accepted_at, settled_at, next_action_at, case_id, first_failed_at,
      fault, problem, run_id, payload, payload_sha256)
    select p_flow, r.key, m.to_state, p_now, p_now,
      case when m.to_state = 'REJECTED' then p_now end,
      case when m.to_state in ('QUEUED', 'WAITING', 'TEMPORARY_ERROR') then coalesce(r.next_action_at, p_now) end,
      (select c.id from counterfoil."case" c
       where m.to_state in ('REVIEW', 'PERMANENT_ERROR') and c.flow = p_flow and c.fault = coalesce(r.fault, r.event) and c.closed_at is null),
      case when r.event in ('fail', 'fail_temporarily') then p_now end,
      r.fault, r.problem, r.run_id, case when m.to_state <> 'REJECTED' then r.payload end, r.payload_sha256
    from unnest(p_births) r join counterfoil.item_move m on m.from_state = 'NEW' and m.event = r.event
    order by r.key
    on conflict (flow, key) do nothing
    returning item.id, item.key, item.state, item.case_id
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, run_id, fault, problem, next_action_at)
    select p_now, p_flow, b.id, 'NEW', r.event, b.state, p_actor, p_reason, r.run_id, r.fault, r.problem, r.next_action_at
    from born b join unnest(p_births) r on r.key = b.key order by b.id
  ), owned as (
    select counterfoil.count_cases(array_agg(b.case_id), array_agg(1::bigint)) as done
    from born b where b.case_id is not null having count(*) > 0
  )
  select array_agg(row(b.id, b.key, 'NEW', b.state, true, 'moved')::counterfoil.move_result order by b.id) into v_born
  from born b left join owned on true;
  return coalesce(v_born, '{}');
end $$;

CREATE FUNCTION counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) RETURNS counterfoil.judged_move[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  return array(
    select row(i.id, i.key, i.state, m.to_state, case
        when (i.state = 'IN_PROGRESS' or (r.request).event <> 'claim' and (r.request).attempt_id is not null)
          and i.attempt_id is distinct from (r.request).attempt_id then 'lease_lost'
        when m.to_state is null then 'illegal'
        when m.to_state = i.state and (r.request).event in ('fail_temporarily', 'fail', 'review', 'reject')
          and i.fault is not distinct from (r.request).fault
          and ((r.request).event <> 'review' or i.payload_sha256 is not distinct from (r.request).payload_sha256) then 'same'
        else 'moved' end,
      i.case_id, i.attempt_id, i.attempts, i.place, r.request)::counterfoil.judged_move
    from (
      select distinct on (n.item_id) n.item_id, n.request
      from (
        select (q.request).id as item_id, q.request, q.place
        from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
        where (q.request).id is not null
        union all
        select k.id, q.request, q.place
        from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
        cross join lateral (select i.id from counterfoil.item i where i.flow = p_flow and i.key = (q.request).key offset 0) k
        where (q.request).id is null) n
      order by n.item_id, n.place) r
    cross join lateral (
      select o.*, o.ctid as place from counterfoil.item o where o.flow = p_flow and o.id = r.item_id offset 0) i
    left join counterfoil.item_move m on m.from_state = i.state and m.event = (r.request).event
    order by i.id);
end $$;

CREATE FUNCTION counterfoil.live_workers() RETURNS SETOF bigint
    LANGUAGE sql
    AS $$
  select l.objid::bigint from pg_catalog.pg_locks l
  where l.locktype = 'advisory' and l.classid = 7246 and l.objsubid = 2 and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
$$;

CREATE FUNCTION counterfoil.lock_items(p_flow text, p_requests counterfoil.move_request[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_ids bigint[] := array(
    select r.id from unnest(p_requests) r where r.id is not null
    union
    select k.id from unnest(p_requests) r cross join lateral (
      select i.id from counterfoil.item i where i.flow = p_flow and i.key = r.key offset 0) k where r.id is null
    order by 1);
begin
  perform 1 from unnest(v_ids) as u (id) cross join lateral (
    select 1 from counterfoil.item i where i.flow = p_flow and i.id = u.id offset 0 for update) l;
end $$;

CREATE FUNCTION counterfoil.may_read(p_flow text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select exists (select 1 from counterfoil.reader_flow g where g.reader = session_user and g.flow in (p_flow, '*'))
$$;

CREATE FUNCTION counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text DEFAULT SESSION_USER, p_next_action_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_fault text DEFAULT NULL::text, p_problem text DEFAULT NULL::text, p_attempt_id uuid DEFAULT NULL::uuid, p_reference text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_result counterfoil.move_result;
begin
  if coalesce(p_reason, '') = '' then
    raise exception 'a move needs a reason' using errcode = 'CF001', hint = 'Say why, in a few words.';
  end if;
  select * into v_result from counterfoil.move_items(p_flow,
    array[row(null, p_key, p_event, p_next_action_at, p_fault, p_problem, p_attempt_id, null, null, null, p_reference, null)::counterfoil.move_request],
    p_actor, p_reason);
  if v_result.id is null then
    raise exception 'no item "%" in flow "%"', p_key, p_flow using errcode = 'CF003';
  elsif v_result.why = 'illegal' then
    raise exception 'an item in % can''t "%"', v_result.from_state, p_event using errcode = 'CF004',
      hint = 'Legal moves stand in counterfoil.item_move.';
  elsif v_result.why = 'lease_lost' then
    raise exception 'item "%" is held by another attempt', p_key using errcode = 'CF005', hint = 'Wait for the end of its lease.';
  end if;
  return v_result.to_state;
end $$;

CREATE FUNCTION counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint, p_now timestamp with time zone) RETURNS counterfoil.move_result[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_moved counterfoil.move_result[];
begin
  with gone as materialized (
    select j.item_id, j.from_state, j.to_state, j.attempt_id as old_attempt_id, j.case_id as old_case_id, j.attempts, j.place, r.event, r.next_action_at,
      r.fault, r.problem, r.attempt_id, r.run_id, r.payload, r.payload_sha256, r.reference, r.superseded_by,
      (select c.id from counterfoil."case" c where j.to_state in ('REVIEW', 'PERMANENT_ERROR')
         and c.flow = p_flow and c.fault = coalesce(r.fault, r.event) and c.closed_at is null) as new_case_id
    from unnest(p_judged) j cross join lateral (select (j.request).*) r
    where j.why = 'moved'
  ), moved as (
    update counterfoil.item i set
      state = g.to_state,
      state_since = p_now,
      settled_at = case when g.to_state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED') then p_now end,
      next_action_at = case when g.to_state in ('WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'IN_DOUBT', 'ACCEPTED')
        then coalesce(g.next_action_at, p_now) end,
      case_id = g.new_case_id,
      attempt_id = case when g.event = 'claim' then g.attempt_id end,
      attempts = i.attempts + (g.event = 'claim')::int,
      crashes = case when g.event = 'rescue' then i.crashes + 1 when g.event in ('claim', 'hold') then i.crashes else 0 end,
      first_failed_at = case
        when g.event in ('retry', 'release', 'accept') or g.to_state in ('SUCCESS', 'REJECTED') then null
        when g.event in ('fail', 'fail_temporarily') then coalesce(i.first_failed_at, p_now)
        else i.first_failed_at end,
      fault = case when g.to_state = 'SUCCESS' then null else coalesce(g.fault, i.fault) end,
      problem = case when g.to_state = 'SUCCESS' then null else coalesce(g.problem, i.problem) end,
      run_id = coalesce(g.run_id, i.run_id),
      payload = case when g.to_state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED') then null
        else coalesce(g.payload, i.payload) end,
      payload_sha256 = coalesce(g.payload_sha256, i.payload_sha256),
      released_sha256 = case when g.event = 'release' then i.payload_sha256 else i.released_sha256 end,
      reference = coalesce(g.reference, i.reference),
      superseded_by = coalesce(g.superseded_by, i.superseded_by)
    from gone g where i.ctid = g.place
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, attempt_id, run_id, fault, problem,
      next_action_at)
    select p_now, p_flow, g.item_id, g.from_state, g.event, g.to_state, p_actor, p_reason, coalesce(g.attempt_id, g.old_attempt_id), g.run_id,
      g.fault, g.problem, g.next_action_at
    from gone g order by g.item_id
  ), attempted as (
    insert into counterfoil.attempt (id, flow, item_id, number, worker_id, started_at, lease_until)
    select g.attempt_id, p_flow, g.item_id, g.attempts + 1, p_worker, p_now, coalesce(g.next_action_at, p_now)
    from gone g where g.event = 'claim'
  ), owned as (
    select counterfoil.count_cases(array_agg(s.case_id), array_agg(s.n)) as done
    from (select g.new_case_id, 1::bigint from gone g union all select g.old_case_id, -1 from gone g) as s (case_id, n)
    where s.case_id is not null having count(*) > 0
  )
  select array_agg(row(j.item_id, j.key, j.from_state, case when j.why = 'moved' then j.to_state else j.from_state end,
    j.why = 'moved', j.why)::counterfoil.move_result order by j.item_id) into v_moved
  from unnest(p_judged) j left join owned on true;
  return v_moved;
end $$;

CREATE FUNCTION counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text DEFAULT NULL::text, p_worker bigint DEFAULT NULL::bigint) RETURNS SETOF counterfoil.move_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_now    timestamptz := counterfoil.now();
  v_judged counterfoil.judged_move[];
  v_births counterfoil.move_request[];
  v_late   counterfoil.judged_move[];
  v_moved  counterfoil.move_result[];
begin
  if coalesce(p_actor, '') = '' then
    raise exception 'a move needs an actor' using errcode = 'CF001';
  end if;
  if not exists (select 1 from counterfoil.flow where name = p_flow) then
    raise exception 'flow "%" is not registered', p_flow using errcode = 'CF002',
      hint = 'Run "counterfoil migrate" in the project folder; it registers the flows it finds.';
  end if;
  perform counterfoil.lock_items(p_flow, p_requests);
  v_judged := counterfoil.judge_moves(p_flow, p_requests);
  v_births := counterfoil.births(p_requests, v_judged);
  perform counterfoil.open_cases_for(p_flow, v_births, v_judged);
  if cardinality(v_births) > 0 then
    v_moved := counterfoil.give_birth(p_flow, v_births, p_actor, p_reason, v_now);
    if cardinality(v_moved) < cardinality(v_births) then  -- another session was faster with some: they exist now
      v_births := array(select r from unnest(v_births) r where r.key not in (select b.key from unnest(v_moved) b));
      perform counterfoil.lock_items(p_flow, v_births);
      v_late := counterfoil.judge_moves(p_flow, v_births);
      perform counterfoil.open_cases_for(p_flow, '{}', v_late);
      v_judged := v_judged || v_late;
    end if;
  end if;
  if cardinality(v_judged) > 0 then
    v_moved := v_moved || counterfoil.move_existing(p_flow, v_judged, p_actor, p_reason, p_worker, v_now);
  end if;
  perform counterfoil.count_moves(p_flow, array_agg(s.state), array_agg(s.n))
  from (select m.to_state, count(*) from unnest(v_moved) m where m.moved group by m.to_state
        union all  -- NEW counts upwards: it says how many were ever accepted
        select m.from_state, case m.from_state when 'NEW' then 1 else -1 end * count(*) from unnest(v_moved) m where m.moved group by m.from_state
       ) as s (state, n) having count(*) > 0;
  return query select m.* from unnest(v_moved) m;
end $$;

CREATE FUNCTION counterfoil.now() RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ select coalesce(nullif(current_setting('counterfoil.now', true), '')::timestamptz, pg_catalog.now()) $$;

CREATE FUNCTION counterfoil.open_cases(p_flow text, p_faults text[], p_titles text[], p_leaving bigint[] DEFAULT '{}'::bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  loop
    insert into counterfoil."case" (flow, fault, title, owner, opened_at, due_at)
    select f.name, w.fault, max(w.title), f.owner, counterfoil.now(), counterfoil.now() + f.case_due
    from unnest(p_faults, p_titles) as w (fault, title) cross join counterfoil.flow f
    where f.name = p_flow
      and not exists (select 1 from counterfoil."case" c where c.flow = p_flow and c.fault = w.fault and c.closed_at is null)
    group by f.name, w.fault, f.owner, f.case_due
    order by w.fault
    on conflict (flow, fault) where closed_at is null do nothing;

    perform 1 from counterfoil."case" c
    where c.id = any (p_leaving) or c.id = any (array(
      select o.id from counterfoil."case" o where o.flow = p_flow and o.fault = any (p_faults) and o.closed_at is null))
    order by c.id for no key update;

    -- Another session may have closed one between the two statements; then a new one is opened.
    exit when not exists (select 1 from unnest(p_faults) as w (fault) where not exists (
      select 1 from counterfoil."case" c where c.flow = p_flow and c.fault = w.fault and c.closed_at is null));
  end loop;
end $$;

CREATE FUNCTION counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select counterfoil.open_cases(p_flow, coalesce(array_agg(w.fault) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(w.title) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(distinct w.leaving) filter (where w.leaving is not null), '{}'))
  from (
    select coalesce(r.fault, r.event), coalesce(r.problem, r.event), null::bigint from unnest(p_births) r where r.event in ('fail', 'review')
    union all
    select case when j.to_state in ('REVIEW', 'PERMANENT_ERROR') then coalesce((j.request).fault, (j.request).event) end,
      coalesce((j.request).problem, (j.request).event), j.case_id
    from unnest(p_judged) j where j.why = 'moved' and (j.to_state in ('REVIEW', 'PERMANENT_ERROR') or j.case_id is not null)
  ) as w (fault, title, leaving) having count(*) > 0
$$;

CREATE FUNCTION counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if p_fault not like 'run:%' then
    raise exception 'a flow''s own case has a fault that starts with "run:"' using errcode = 'CF003';
  end if;
  perform counterfoil.open_cases(p_flow, array[p_fault], array[p_title]);
  return (select c.id from counterfoil."case" c where c.flow = p_flow and c.fault = p_fault and c.closed_at is null);
end $$;

CREATE FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) RETURNS SETOF uuid
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update counterfoil.item set next_action_at = counterfoil.now() + p_lease
  where flow = p_flow and state = 'IN_PROGRESS' and attempt_id = any (p_attempts)
  returning attempt_id
$$;

CREATE FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer DEFAULT 1000) RETURNS TABLE(rescued bigint, failed bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
begin
  return query
  with lost as (
    select i.id, i.crashes, i.attempt_id from counterfoil.item i left join lateral (
      select a.worker_id from counterfoil.attempt a where a.flow = p_flow and a.item_id = i.id and a.number = i.attempts offset 0) a on true
    where i.flow = p_flow and i.state = 'IN_PROGRESS'
      and (i.next_action_at <= counterfoil.now()
        or a.worker_id is not null and a.worker_id not in (select w from counterfoil.live_workers() w))
    order by i.flow, i.next_action_at limit p_limit for update of i skip locked
  ), moved as (
    select m.* from (select array(select
      row(l.id, null, case when l.crashes + 1 >= p_crashes then 'fail' else 'rescue' end, counterfoil.now(),
        case when l.crashes + 1 >= p_crashes then 'crashed' end,
        case when l.crashes + 1 >= p_crashes then format('Its worker died %s times while it had this item.', l.crashes + 1) end,
        l.attempt_id, null, null, null, null, null)::counterfoil.move_request from lost l) as requests) q,
    lateral counterfoil.move_items(p_flow, q.requests, 'rescue', 'its worker is gone or its lease ended') m
    where cardinality(q.requests) > 0
  )
  select count(*) filter (where m.to_state = 'QUEUED'), count(*) filter (where m.to_state = 'PERMANENT_ERROR') from moved m where m.moved;
end $$;

CREATE FUNCTION counterfoil.worker_alive(p_worker bigint) RETURNS boolean
    LANGUAGE sql
    AS $$
  select case when p_worker is not null then p_worker in (select w from counterfoil.live_workers() w) end
$$;

CREATE TABLE counterfoil.attempt (
    id uuid NOT NULL,
    flow text NOT NULL,
    item_id bigint NOT NULL,
    number integer NOT NULL,
    worker_id bigint,
    started_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone NOT NULL
);

CREATE TABLE counterfoil."case" (
    id bigint NOT NULL,
    flow text NOT NULL,
    fault text NOT NULL,
    title text NOT NULL,
    owner text NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    open_items bigint DEFAULT 0 NOT NULL,
    closed_at timestamp with time zone,
    closed_by text,
    reason text,
    CONSTRAINT case_closed_owns_nothing CHECK (((closed_at IS NULL) OR ((open_items = 0) AND (reason IS NOT NULL)))),
    CONSTRAINT case_open_items_check CHECK ((open_items >= 0))
);

ALTER TABLE counterfoil."case" ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.case_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.flow (
    name text NOT NULL,
    title text NOT NULL,
    owner text DEFAULT 'operators'::text NOT NULL,
    case_due interval DEFAULT '04:00:00'::interval NOT NULL,
    definition text DEFAULT ''::text NOT NULL,
    watermark timestamp with time zone,
    registered_at timestamp with time zone DEFAULT counterfoil.now() NOT NULL,
    CONSTRAINT flow_name_check CHECK ((name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text))
);

CREATE TABLE counterfoil.gate (
    name text NOT NULL,
    closed_until timestamp with time zone,
    reason text,
    failures integer DEFAULT 0 NOT NULL,
    times_opened integer DEFAULT 0 NOT NULL,
    tokens double precision DEFAULT 0 NOT NULL,
    refilled_at timestamp with time zone DEFAULT counterfoil.now() NOT NULL
);

CREATE TABLE counterfoil.item (
    id bigint NOT NULL,
    flow text NOT NULL,
    key text NOT NULL,
    parent_id bigint,
    state text NOT NULL,
    state_since timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    settled_at timestamp with time zone,
    next_action_at timestamp with time zone,
    case_id bigint,
    attempt_id uuid,
    attempts integer DEFAULT 0 NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    first_failed_at timestamp with time zone,
    fault text,
    problem text,
    run_id bigint,
    superseded_by bigint,
    reference text,
    payload text,
    payload_sha256 text,
    released_sha256 text,
    CONSTRAINT item_accounted_for CHECK (((settled_at IS NOT NULL) OR (next_action_at IS NOT NULL) OR (case_id IS NOT NULL))),
    CONSTRAINT item_claimed CHECK (((attempt_id IS NOT NULL) = (state = 'IN_PROGRESS'::text))),
    CONSTRAINT item_due CHECK (((next_action_at IS NOT NULL) OR (state <> ALL (ARRAY['WAITING'::text, 'QUEUED'::text, 'IN_PROGRESS'::text, 'TEMPORARY_ERROR'::text, 'ACCEPTED'::text])))),
    CONSTRAINT item_in_one_place CHECK ((num_nonnulls(settled_at, next_action_at, case_id) = 1)),
    CONSTRAINT item_owned CHECK (((case_id IS NOT NULL) OR (state <> ALL (ARRAY['REVIEW'::text, 'PERMANENT_ERROR'::text])))),
    CONSTRAINT item_settled CHECK (((settled_at IS NOT NULL) = (state = ANY (ARRAY['SUCCESS'::text, 'REJECTED'::text, 'TRANSFERRED'::text, 'SUPERSEDED'::text, 'ARCHIVED'::text, 'CANCELLED'::text])))),
    CONSTRAINT item_state_check CHECK ((state = ANY (ARRAY['WAITING'::text, 'QUEUED'::text, 'IN_PROGRESS'::text, 'TEMPORARY_ERROR'::text, 'IN_DOUBT'::text, 'ACCEPTED'::text, 'REVIEW'::text, 'PERMANENT_ERROR'::text, 'SUCCESS'::text, 'REJECTED'::text, 'TRANSFERRED'::text, 'SUPERSEDED'::text, 'ARCHIVED'::text, 'CANCELLED'::text]))),
    CONSTRAINT item_superseded CHECK (((state <> 'SUPERSEDED'::text) OR (superseded_by IS NOT NULL)))
);

CREATE TABLE counterfoil.item_count (
    flow text NOT NULL,
    state text NOT NULL,
    shard smallint NOT NULL,
    items bigint NOT NULL
);

CREATE TABLE counterfoil.item_event (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    flow text NOT NULL,
    item_id bigint NOT NULL,
    from_state text NOT NULL,
    event text NOT NULL,
    to_state text NOT NULL,
    actor text NOT NULL,
    reason text,
    attempt_id uuid,
    run_id bigint,
    fault text,
    problem text,
    next_action_at timestamp with time zone
);

ALTER TABLE counterfoil.item_event ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.item_event_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE counterfoil.item ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.item_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.item_move (
    from_state text NOT NULL,
    event text NOT NULL,
    to_state text NOT NULL
);

CREATE TABLE counterfoil.migration (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE counterfoil.reader_flow (
    reader text NOT NULL,
    flow text NOT NULL
);

CREATE TABLE counterfoil.run (
    id bigint NOT NULL,
    flow text NOT NULL,
    state text NOT NULL,
    trigger text NOT NULL,
    actor text NOT NULL,
    reason text,
    fired_for timestamp with time zone,
    since timestamp with time zone,
    until timestamp with time zone,
    given boolean DEFAULT false NOT NULL,
    backfill_until timestamp with time zone,
    backfill_step interval,
    created_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    next_action_at timestamp with time zone,
    attempt_id uuid,
    worker_id bigint,
    attempts integer DEFAULT 0 NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    suspect_key text,
    suspect_crashes integer DEFAULT 0 NOT NULL,
    cursor jsonb,
    pages bigint DEFAULT 0 NOT NULL,
    list_ended boolean DEFAULT false NOT NULL,
    next_key bigint DEFAULT 0 NOT NULL,
    chunks bigint DEFAULT 0 NOT NULL,
    listed bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    found bigint DEFAULT 0 NOT NULL,
    inserted bigint DEFAULT 0 NOT NULL,
    updated bigint DEFAULT 0 NOT NULL,
    unchanged bigint DEFAULT 0 NOT NULL,
    rejected bigint DEFAULT 0 NOT NULL,
    review bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    deleted bigint DEFAULT 0 NOT NULL,
    written_back bigint DEFAULT 0 NOT NULL,
    latest_changed timestamp with time zone,
    watermark_before timestamp with time zone,
    watermark_after timestamp with time zone,
    fault text,
    problem text,
    CONSTRAINT run_claimed CHECK (((attempt_id IS NOT NULL) = (state = 'running'::text))),
    CONSTRAINT run_completed_is_clean CHECK (((state <> 'completed'::text) OR ((review + failed) = 0))),
    CONSTRAINT run_ended CHECK (((ended_at IS NOT NULL) = (state <> ALL (ARRAY['queued'::text, 'running'::text])))),
    CONSTRAINT run_open_is_due CHECK (((ended_at IS NULL) = (next_action_at IS NOT NULL))),
    CONSTRAINT run_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'running'::text, 'completed'::text, 'partial'::text, 'empty'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT run_sum CHECK (((state <> ALL (ARRAY['completed'::text, 'partial'::text, 'empty'::text])) OR ((listed = (found + duplicates)) AND (found = (((((inserted + updated) + unchanged) + rejected) + review) + failed))))),
    CONSTRAINT run_trigger_check CHECK ((trigger = ANY (ARRAY['schedule'::text, 'person'::text, 'backfill'::text])))
);

CREATE TABLE counterfoil.run_fault (
    run_id bigint NOT NULL,
    outcome text NOT NULL,
    fault text NOT NULL,
    problem text NOT NULL,
    records bigint NOT NULL,
    keys text[] NOT NULL,
    CONSTRAINT run_fault_outcome_check CHECK ((outcome = ANY (ARRAY['rejected'::text, 'review'::text, 'failed'::text])))
);

ALTER TABLE counterfoil.run ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.run_key (
    run_id bigint NOT NULL,
    key text NOT NULL,
    n bigint NOT NULL,
    done boolean DEFAULT false NOT NULL
);

CREATE TABLE counterfoil.schedule (
    flow text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    catch_up text NOT NULL,
    next_fire_at timestamp with time zone NOT NULL,
    last_fire_at timestamp with time zone,
    last_outcome text,
    CONSTRAINT schedule_catch_up_check CHECK ((catch_up = ANY (ARRAY['once'::text, 'skip'::text])))
);

CREATE TABLE counterfoil.worker (
    id bigint NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT counterfoil.now() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT counterfoil.now() NOT NULL,
    stopped_at timestamp with time zone
);

ALTER TABLE counterfoil.worker ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.worker_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.write_back (
    run_id bigint NOT NULL,
    key text NOT NULL,
    body jsonb NOT NULL
);

ALTER TABLE ONLY counterfoil.attempt
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (id, started_at);

ALTER TABLE ONLY counterfoil."case"
    ADD CONSTRAINT case_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.flow
    ADD CONSTRAINT flow_pkey PRIMARY KEY (name);

ALTER TABLE ONLY counterfoil.gate
    ADD CONSTRAINT gate_pkey PRIMARY KEY (name);

ALTER TABLE ONLY counterfoil.item_count
    ADD CONSTRAINT item_count_pkey PRIMARY KEY (flow, state, shard);

ALTER TABLE ONLY counterfoil.item_event
    ADD CONSTRAINT item_event_pkey PRIMARY KEY (id, at);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_flow_key_key UNIQUE (flow, key);

ALTER TABLE ONLY counterfoil.item_move
    ADD CONSTRAINT item_move_from_state_event_to_state_key UNIQUE (from_state, event, to_state);

ALTER TABLE ONLY counterfoil.item_move
    ADD CONSTRAINT item_move_pkey PRIMARY KEY (from_state, event);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_pkey PRIMARY KEY (flow, id);

ALTER TABLE ONLY counterfoil.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);

ALTER TABLE ONLY counterfoil.reader_flow
    ADD CONSTRAINT reader_flow_pkey PRIMARY KEY (reader, flow);

ALTER TABLE ONLY counterfoil.run_fault
    ADD CONSTRAINT run_fault_pkey PRIMARY KEY (run_id, outcome, fault);

ALTER TABLE ONLY counterfoil.run_key
    ADD CONSTRAINT run_key_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY counterfoil.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (flow);

ALTER TABLE ONLY counterfoil.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.write_back
    ADD CONSTRAINT write_back_pkey PRIMARY KEY (run_id, key);

CREATE INDEX attempt_item ON counterfoil.attempt USING btree (flow, item_id, number);

CREATE UNIQUE INDEX case_one_open ON counterfoil."case" USING btree (flow, fault) WHERE (closed_at IS NULL);

CREATE INDEX case_open_due ON counterfoil."case" USING btree (due_at) WHERE (closed_at IS NULL);

CREATE INDEX item_case ON counterfoil.item USING btree (case_id, id) WHERE (case_id IS NOT NULL);

CREATE INDEX item_event_item ON counterfoil.item_event USING btree (flow, item_id, id);

CREATE INDEX item_id ON counterfoil.item USING btree (id);

CREATE INDEX item_lease ON counterfoil.item USING btree (flow, next_action_at) WHERE (state = 'IN_PROGRESS'::text);

CREATE INDEX item_listing ON counterfoil.item USING btree (accepted_at DESC, id DESC);

CREATE INDEX item_next_action ON counterfoil.item USING btree (flow, next_action_at, id) WHERE (next_action_at IS NOT NULL);

CREATE INDEX item_unfinished ON counterfoil.item USING btree (flow, state, accepted_at, id) WHERE (settled_at IS NULL);

CREATE INDEX run_due ON counterfoil.run USING btree (next_action_at) WHERE (ended_at IS NULL);

CREATE UNIQUE INDEX run_fired_once ON counterfoil.run USING btree (flow, fired_for) WHERE (fired_for IS NOT NULL);

CREATE INDEX run_key_open ON counterfoil.run_key USING btree (run_id, n) WHERE (NOT done);

CREATE INDEX run_listing ON counterfoil.run USING btree (flow, id DESC);

CREATE UNIQUE INDEX run_one_open ON counterfoil.run USING btree (flow) WHERE (ended_at IS NULL);

ALTER TABLE ONLY counterfoil."case"
    ADD CONSTRAINT case_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_case_id_fkey FOREIGN KEY (case_id) REFERENCES counterfoil."case"(id);

ALTER TABLE ONLY counterfoil.item_event
    ADD CONSTRAINT item_event_from_state_event_to_state_fkey FOREIGN KEY (from_state, event, to_state) REFERENCES counterfoil.item_move(from_state, event, to_state);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.run_fault
    ADD CONSTRAINT run_fault_run_id_fkey FOREIGN KEY (run_id) REFERENCES counterfoil.run(id) ON DELETE CASCADE;

ALTER TABLE ONLY counterfoil.run
    ADD CONSTRAINT run_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.run
    ADD CONSTRAINT run_worker_id_fkey FOREIGN KEY (worker_id) REFERENCES counterfoil.worker(id);

ALTER TABLE ONLY counterfoil.schedule
    ADD CONSTRAINT schedule_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.write_back
    ADD CONSTRAINT write_back_run_id_fkey FOREIGN KEY (run_id) REFERENCES counterfoil.run(id);

CREATE POLICY app_all ON counterfoil.attempt TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil."case" TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.flow TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item_count TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item_event TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.run TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.run_fault TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.schedule TO counterfoil_app USING (true) WITH CHECK (true);

ALTER TABLE counterfoil.attempt ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil."case" ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.flow ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item_count ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item_event ENABLE ROW LEVEL SECURITY;

CREATE POLICY reader_flows ON counterfoil.attempt FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil."case" FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.flow FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(name));

CREATE POLICY reader_flows ON counterfoil.item FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item_count FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item_event FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.run FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.run_fault FOR SELECT TO counterfoil_reader USING ((EXISTS ( SELECT 1
   FROM counterfoil.run r
  WHERE ((r.id = run_fault.run_id) AND counterfoil.may_read(r.flow)))));

CREATE POLICY reader_flows ON counterfoil.schedule FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

ALTER TABLE counterfoil.run ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.run_fault ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.schedule ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA counterfoil TO counterfoil_app;
GRANT USAGE ON SCHEMA counterfoil TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb, p_parent_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb, p_parent_key text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.births(p_requests counterfoil.move_request[], p_judged counterfoil.judged_move[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.count_cases(p_cases bigint[], p_deltas bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.count_moves(p_flow text, p_states text[], p_deltas bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.give_birth(p_flow text, p_births counterfoil.move_request[], p_actor text, p_reason text, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.live_workers() FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.live_workers() TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.live_workers() TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.lock_items(p_flow text, p_requests counterfoil.move_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.may_read(p_flow text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.may_read(p_flow text) TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_reference text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_reference text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_worker bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.now() FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.now() TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.now() TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.open_cases(p_flow text, p_faults text[], p_titles text[], p_leaving bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.attempt TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.attempt TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil."case" TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil."case" TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.flow TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.flow TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.gate TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.gate TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item TO counterfoil_app;

GRANT SELECT(id) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(flow) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(key) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(parent_id) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(state) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(state_since) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(accepted_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(settled_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(next_action_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(case_id) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(attempts) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(crashes) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(first_failed_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(fault) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(problem) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(run_id) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(superseded_by) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(reference) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_count TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_count TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_event TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_event TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_move TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_move TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.migration TO counterfoil_app;

GRANT SELECT ON TABLE counterfoil.reader_flow TO counterfoil_app;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.run TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.run TO counterfoil_reader;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE counterfoil.run_fault TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.run_fault TO counterfoil_reader;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE counterfoil.run_key TO counterfoil_app;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE counterfoil.schedule TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.schedule TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.worker TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.worker TO counterfoil_reader;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE counterfoil.write_back TO counterfoil_app;
