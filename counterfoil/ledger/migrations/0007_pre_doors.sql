-- Doors built on the one that moves: accept and move for other programs, claim, renew and rescue for workers.

-- Take an item in, inside the caller's own transaction. The same key twice is one item. Returns its id.
create function counterfoil.accept(p_flow text, p_key text, p_payload jsonb default null, p_parent_key text default null)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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

-- Move one item by its key. Raises where the move is illegal or another attempt has the item; returns the new state.
create function counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text default session_user,
  p_next_action_at timestamptz default null, p_fault text default null, p_problem text default null, p_attempt_id uuid default null,
  p_reference text default null)
returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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

-- A worker is alive as long as its own connection holds the advisory lock (7246, worker id): the lock goes with the process, at once.
-- The set is read once for a statement: pg_locks costs, and a read of it for each item in progress would cost quadratically.
create function counterfoil.live_workers() returns setof bigint language sql volatile as $$
  select l.objid::bigint from pg_catalog.pg_locks l
  where l.locktype = 'advisory' and l.classid = 7246 and l.objsubid = 2 and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
$$;

-- Null where there is no worker: then only the end of the lease counts.
create function counterfoil.worker_alive(p_worker bigint) returns boolean language sql volatile as $$
  select case when p_worker is not null then p_worker in (select w from counterfoil.live_workers() w) end
$$;

-- Claim up to p_limit items that are due, each by an attempt of its own, the longest due first. An item whose last attempts ended with
-- their worker is claimed alone, when its turn has come, so that it takes nobody with it and does not wait for ever.
-- No sort: the order can then come only from the index of what is due, whatever the statistics say of a flow that is new.
create function counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint)
returns table (id bigint, key text, attempt_id uuid, attempts integer, first_failed_at timestamptz, fault text, payload text,
  released_sha256 text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off as $$
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

-- Hold on to what these attempts have; returns the attempts that still have it. One not returned has lost its lease.
create function counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval)
returns setof uuid language sql security definer set search_path = pg_catalog, pg_temp as $$
  update counterfoil.item set next_action_at = counterfoil.now() + p_lease
  where flow = p_flow and state = 'IN_PROGRESS' and attempt_id = any (p_attempts)
  returning attempt_id
$$;

-- Items whose lease ended, or whose worker is gone: due again, or, after p_crashes such ends, owned by a case. Returns how many of each.
create function counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer default 1000)
returns table (rescued bigint, failed bigint) language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_sort = off set jit = off as $$
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

-- A case for trouble of a whole flow: a run that failed, a source that fell silent. It owns no items.
create function counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  if p_fault not like 'run:%' then
    raise exception 'a flow''s own case has a fault that starts with "run:"' using errcode = 'CF003';
  end if;
  perform counterfoil.open_cases(p_flow, array[p_fault], array[p_title]);
  return (select c.id from counterfoil."case" c where c.flow = p_flow and c.fault = p_fault and c.closed_at is null);
end $$;

create function counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
  with closed as (
    update counterfoil."case" set closed_at = counterfoil.now(), closed_by = p_who, reason = p_why
    where flow = p_flow and closed_at is null and fault like 'run:%' and starts_with(fault, p_fault_prefix) returning 1)
  select count(*) from closed
$$;
