-- The only door through which an item moves. It locks, looks the move up, checks the fence, moves, records, and keeps the counters.
-- Set-wise: one call for a whole slice. Nobody has UPDATE on item, event, attempt or counter; everybody goes through here.
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

-- Counters, with deltas already summed: one row for each (flow, state) in this backend's own shard.
create function counterfoil.count_moves(p_flow text, p_states text[], p_deltas bigint[]) returns void language sql as $$
  insert into counterfoil.item_count as c (flow, state, shard, items)
  select p_flow, d.state, (pg_backend_pid() % 8)::smallint, sum(d.delta)
  from unnest(p_states, p_deltas) as d (state, delta)
  group by d.state having sum(d.delta) <> 0
  order by d.state
  on conflict (flow, state, shard) do update set items = c.items + excluded.items
$$;

-- Open cases for faults that need a person: one per flow and fault. An open one is locked as well, so that nobody closes it before the
-- caller's items are in it. Callers join by (flow, fault).
create function counterfoil.open_cases(p_flow text, p_faults text[], p_titles text[]) returns void language sql as $$
  insert into counterfoil."case" (flow, fault, title, owner, opened_at, due_at)
  select f.name, w.fault, max(w.title), f.owner, counterfoil.now(), counterfoil.now() + f.case_due
  from unnest(p_faults, p_titles) as w (fault, title) cross join counterfoil.flow f
  where f.name = p_flow
  group by f.name, w.fault, f.owner, f.case_due
  order by w.fault
  on conflict (flow, fault) where closed_at is null do update set title = "case".title
$$;

-- Cases gain and lose items; one that loses its last item is closed by the ledger itself.
create function counterfoil.count_cases(p_cases bigint[], p_deltas bigint[]) returns void language plpgsql as $$
begin
  perform 1 from counterfoil."case" where id = any (p_cases) order by id for update;
  update counterfoil."case" c
  set open_items = c.open_items + d.delta,
      closed_at = case when c.open_items + d.delta = 0 then counterfoil.now() end,
      closed_by = case when c.open_items + d.delta = 0 then 'ledger' end,
      reason = case when c.open_items + d.delta = 0 then 'all its items went on or were settled' end
  from (select u.id, sum(u.delta) as delta from unnest(p_cases, p_deltas) as u (id, delta) group by u.id) d
  where c.id = d.id and d.delta <> 0;
end $$;

create function counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text default null,
  p_worker bigint default null)
returns setof counterfoil.move_result
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_now  timestamptz := counterfoil.now();
  v_born counterfoil.move_result[];
begin
  if coalesce(p_actor, '') = '' then
    raise exception 'a move needs an actor' using errcode = 'CF001';
  end if;
  if not exists (select 1 from counterfoil.flow where name = p_flow) then
    raise exception 'flow "%" is not registered', p_flow using errcode = 'CF002',
      hint = 'Run "counterfoil migrate" in the project folder; it registers the flows it finds.';
  end if;
  -- Lock what exists, in order of id, before any case: two sessions then never wait for each other in a circle of items.
  perform 1 from counterfoil.item i
  where i.flow = p_flow and (i.id in (select r.id from unnest(p_requests) r where r.id is not null)
    or i.key in (select r.key from unnest(p_requests) r where r.id is null))
  order by i.id for update;
  v_born := array(select b from counterfoil.give_birth(p_flow, p_requests, p_actor, p_reason, v_now) b);
  return query select b.* from unnest(v_born) b;
  return query select m.* from counterfoil.move_existing(
    p_flow,
    array(select r from unnest(p_requests) r
          where r.id is not null or r.key not in (select b.key from unnest(v_born) b)),
    p_actor, p_reason, p_worker, v_now) m;
end $$;

-- First half of move_items: keys nobody has seen become items, in the state their first event leads to.
create function counterfoil.give_birth(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_now timestamptz)
returns setof counterfoil.move_result language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  v_new counterfoil.move_request[];
begin
  v_new := array(
    select distinct on (r.key) r from unnest(p_requests) r
    join counterfoil.item_move m on m.from_state = 'NEW' and m.event = r.event
    where r.id is null and r.key is not null
      and not exists (select 1 from counterfoil.item i where i.flow = p_flow and i.key = r.key)
    order by r.key);
  if cardinality(v_new) = 0 then
    return;
  end if;
  perform counterfoil.open_cases(p_flow, array_agg(coalesce(r.fault, r.event)), array_agg(coalesce(r.problem, r.event)))
  from unnest(v_new) r where r.event in ('fail', 'review') having count(*) > 0;

  return query
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
    from unnest(v_new) r join counterfoil.item_move m on m.from_state = 'NEW' and m.event = r.event
    order by r.key
    on conflict (flow, key) do nothing
    returning item.id, item.key, item.state, item.case_id
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, run_id, fault, problem, next_action_at)
    select p_now, p_flow, b.id, 'NEW', r.event, b.state, p_actor, p_reason, r.run_id, r.fault, r.problem, r.next_action_at
    from born b join unnest(v_new) r on r.key = b.key order by b.id
  ), counted as (
    select counterfoil.count_moves(p_flow, array_agg(s.state), array_agg(s.n)) as done
    from (select b.state, count(*) from born b group by b.state union all select 'NEW', count(*) from born) as s (state, n)
  ), owned as (
    select counterfoil.count_cases(array_agg(b.case_id), array_agg(1::bigint)) as done
    from born b where b.case_id is not null having count(*) > 0
  )
  select b.id, b.key, 'NEW'::text, b.state, true, 'moved'::text
  from born b cross join counted left join owned on true;
end $$;

-- Second half of move_items: items that exist. Looks the move up, checks the fence, moves, records, counts.
create function counterfoil.move_existing(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_worker bigint,
  p_now timestamptz)
returns setof counterfoil.move_result language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if cardinality(p_requests) = 0 then
    return;
  end if;
  perform counterfoil.open_cases(p_flow, array_agg(coalesce(j.fault, j.event)), array_agg(coalesce(j.problem, j.event)))
  from counterfoil.judge_moves(p_flow, p_requests) j
  where j.why = 'moved' and j.to_state in ('REVIEW', 'PERMANENT_ERROR') having count(*) > 0;

  return query
  with judged as materialized (
    select * from counterfoil.judge_moves(p_flow, p_requests)
  ), gone as (
    select j.item_id, j.from_state, j.to_state, j.event, j.next_action_at, j.fault, j.problem, j.attempt_id, j.old_attempt_id, j.run_id,
      j.payload, j.payload_sha256, j.reference, j.superseded_by, j.old_case_id,
      (select c.id from counterfoil."case" c
       where j.to_state in ('REVIEW', 'PERMANENT_ERROR') and c.flow = p_flow and c.fault = coalesce(j.fault, j.event) and c.closed_at is null) as new_case_id
    from judged j where j.why = 'moved'
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
    from gone g where i.flow = p_flow and i.id = g.item_id
    returning i.id
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, attempt_id, run_id, fault, problem,
      next_action_at)
    select p_now, p_flow, g.item_id, g.from_state, g.event, g.to_state, p_actor, p_reason, coalesce(g.attempt_id, g.old_attempt_id), g.run_id,
      g.fault, g.problem, g.next_action_at
    from gone g order by g.item_id
  ), attempted as (
    insert into counterfoil.attempt (id, flow, item_id, number, worker_id, started_at, lease_until)
    select g.attempt_id, p_flow, g.item_id, i.attempts + 1, p_worker, p_now, g.next_action_at
    from gone g join counterfoil.item i on i.flow = p_flow and i.id = g.item_id where g.event = 'claim'
  ), counted as (
    select counterfoil.count_moves(p_flow, array_agg(s.state), array_agg(s.n)) as done
    from (select g.to_state, 1::bigint from gone g union all select g.from_state, -1 from gone g) as s (state, n) having count(*) > 0
  ), owned as (
    select counterfoil.count_cases(array_agg(s.case_id), array_agg(s.n)) as done
    from (select g.new_case_id, 1::bigint from gone g union all select g.old_case_id, -1 from gone g) as s (case_id, n)
    where s.case_id is not null having count(*) > 0
  )
  select j.item_id, j.key, j.from_state, coalesce(j.to_state, j.from_state), j.why = 'moved', j.why
  from judged j left join counted on true left join owned on true;
end $$;

-- What each request would do to the item it names; nothing is written. The fence: what is IN_PROGRESS moves only for the attempt that has it.
create function counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[])
returns table (item_id bigint, key text, from_state text, event text, to_state text, why text, next_action_at timestamptz, fault text,
  problem text, attempt_id uuid, run_id bigint, payload text, payload_sha256 text, reference text, superseded_by bigint,
  old_attempt_id uuid, old_case_id bigint)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct on (i.id) i.id, i.key, i.state, r.event, m.to_state,
    case
      when i.state = 'IN_PROGRESS' and i.attempt_id is distinct from r.attempt_id then 'lease_lost'
      when m.to_state is null then 'illegal'
      when m.to_state = i.state and r.event in ('fail_temporarily', 'fail', 'review', 'reject') and i.fault is not distinct from r.fault
        and (r.event <> 'review' or i.payload_sha256 is not distinct from r.payload_sha256) then 'same'
      else 'moved'
    end,
    r.next_action_at, r.fault, r.problem, r.attempt_id, r.run_id, r.payload, r.payload_sha256, r.reference, r.superseded_by,
    i.attempt_id, i.case_id
  from (
    select i.id as item_id, r.* from unnest(p_requests) r join counterfoil.item i on i.flow = p_flow and i.id = r.id
    union all
    select i.id, r.* from unnest(p_requests) r join counterfoil.item i on i.flow = p_flow and i.key = r.key where r.id is null
  ) r
  join counterfoil.item i on i.flow = p_flow and i.id = r.item_id
  left join counterfoil.item_move m on m.from_state = i.state and m.event = r.event
  order by i.id
$$;
