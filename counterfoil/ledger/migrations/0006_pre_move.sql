-- The only door through which an item moves. It locks, looks the move up, checks the fence, moves, records, and keeps the counters.
-- Set-wise: one call for a whole slice. Nobody has UPDATE on item, event, attempt or counter; everybody goes through here.
--
-- Order of locks, the same in every call, so that no two wait for each other in a circle: items by id, cases by id, new keys in
-- order, counters by state. A transaction that calls twice starts the order anew and may meet a deadlock (40P01): it is to be repeated.
--
-- The planner gets no choice where a wrong one would read the history: these functions are planned once for a session, perhaps while the
-- table is empty. Hence LATERAL with OFFSET 0 (one probe of the unique index for each request), the update by ctid of the rows just locked,
-- and the SET clauses. What is switched off counts as endlessly dear up to version 17, and would be compiled each time: hence jit = off.
create type counterfoil.move_request as (
  id              bigint,        -- or null, and then the key counts
  key             text,
  event           text,
  next_action_at  timestamptz,   -- needed where the new state is due later than now
  fault           text,
  problem         text,
  attempt_id      uuid,          -- the fence: the attempt that holds the item, or the new one with `claim`
  run_id          bigint,
  payload         text,
  payload_sha256  text,
  reference       text,
  superseded_by   bigint
);

create type counterfoil.move_result as (
  id         bigint,
  key        text,
  from_state text,
  to_state   text,
  moved      boolean,
  why        text                -- moved | same | illegal | lease_lost
);

-- A request beside the item it names, as it stood when it was locked.
create type counterfoil.judged_move as (
  item_id    bigint,
  key        text,
  from_state text,
  to_state   text,               -- null where the move is illegal
  why        text,
  case_id    bigint,
  attempt_id uuid,
  attempts   integer,
  place      tid,                -- of the row: it is locked, so it stays there
  request    counterfoil.move_request
);

-- Lock the items that the requests name, in order of id.
create function counterfoil.lock_items(p_flow text, p_requests counterfoil.move_request[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- What each request would do to the item it names; nothing is written. The first request for an item counts, and only that.
-- The fence: what is IN_PROGRESS moves only for the attempt that has it, and an attempt that has lost its item moves nothing at all.
create function counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) returns counterfoil.judged_move[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
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

-- Keys nobody has seen become items, in the state their first event leads to. A key that another session brings at the same moment is left out.
create function counterfoil.give_birth(p_flow text, p_births counterfoil.move_request[], p_actor text, p_reason text, p_now timestamptz)
returns counterfoil.move_result[] language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
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

-- Items that exist: move those whose move was judged legal, record it, count for the cases.
create function counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint,
  p_now timestamptz)
returns counterfoil.move_result[] language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Move many items of one flow. Returns a row for each item named; none for a key that nobody knows and whose event begins no life.
create function counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text default null,
  p_worker bigint default null)
returns setof counterfoil.move_result
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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

-- The requests that begin a life: the first legal one for each key that was not found.
create function counterfoil.births(p_requests counterfoil.move_request[], p_judged counterfoil.judged_move[])
returns counterfoil.move_request[] language sql stable set search_path = pg_catalog, pg_temp as $$
  select array(
    select distinct on ((q.request).key) q.request
    from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
    where (q.request).id is null and (q.request).key is not null
      and (q.request).key not in (select j.key from unnest(p_judged) j)
      and (q.request).event in (select m.event from counterfoil.item_move m where m.from_state = 'NEW')
    order by (q.request).key, q.place)
$$;

-- All cases that a call needs, opened and locked at once: where births and moves lead to, and where moves lead from.
create function counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[])
returns void language sql set search_path = pg_catalog, pg_temp as $$
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
