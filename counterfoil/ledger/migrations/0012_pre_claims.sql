-- Claims, and what gives items back: the doors for workers, anew for deliveries.

create or replace function counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint)
returns table (id bigint, key text, attempt_id uuid, attempts integer, first_failed_at timestamptz, fault text, payload text,
  released_sha256 text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off as $$
declare
  v_ids bigint[];
begin
  v_ids := array(
    with due as materialized (
      select i.id, i.crashes, i.next_action_at from counterfoil.item i
      where i.flow = p_flow and i.lane = 'live' and i.next_action_at <= counterfoil.now() and i.state in ('QUEUED', 'TEMPORARY_ERROR')
      order by i.next_action_at, i.id limit p_limit for update skip locked
    ), head as (select d.id, d.crashes from due d order by d.next_action_at, d.id limit 1)
    select d.id from due d cross join head h where case when h.crashes > 0 then d.id = h.id else d.crashes = 0 end order by d.id);
  perform counterfoil.claim_these(p_flow, v_ids, p_lease, p_worker);
  return query
  select i.id, i.key, i.attempt_id, i.attempts, i.first_failed_at, i.fault, i.payload, i.released_sha256
  from unnest(v_ids) as u (id)
  cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i;
end $$;

create function counterfoil.claim_these(p_flow text, p_ids bigint[], p_lease interval, p_worker bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if cardinality(p_ids) > 0 then
    perform counterfoil.move_items(p_flow,
      array(select counterfoil.request('claim', p_id => u.id, p_next_action_at => counterfoil.now() + p_lease, p_attempt_id => gen_random_uuid())
        from unnest(p_ids) as u (id)), 'worker ' || p_worker, null, p_worker);
  end if;
end $$;

-- Which items of a lane are next: the longest due first. Where more are due than fit, half of the places go to the next families in turn, one
-- each, so that one parent's ten thousand children don't keep everybody else waiting. p_after: the last family that had its turn; turned_to: the
-- one that has it now.
create function counterfoil.next_due(p_flow text, p_lane text, p_limit integer, p_after bigint, out ids bigint[], out turned_to bigint)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
declare
  v_now timestamptz := counterfoil.now();
  v_turn bigint[] := '{}';
  v_families bigint;
  v_family bigint;
  v_one bigint;
begin
  with due as materialized (
    select i.id, coalesce(i.parent_id, i.id) as family from counterfoil.item i
    where i.flow = p_flow and i.lane = p_lane and i.next_action_at <= v_now and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT')
    order by i.next_action_at, i.id limit p_limit for update skip locked)
  select coalesce(array_agg(d.id), '{}'), count(distinct d.family), p_after into ids, v_families, turned_to from due d;
  if cardinality(ids) < p_limit or v_families * 2 >= p_limit then  -- all fit, or many families are served as it is
    return;
  end if;
  for v_probe in 1 .. p_limit loop
    select coalesce(i.parent_id, i.id) into v_family from counterfoil.item i
    where i.flow = p_flow and i.lane = p_lane and coalesce(i.parent_id, i.id) > turned_to
      and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and i.next_action_at is not null
    order by i.flow, i.lane, coalesce(i.parent_id, i.id), i.next_action_at limit 1;
    turned_to := coalesce(v_family, 0);  -- after the last family comes the first
    continue when v_family is null;
    select i.id into v_one from counterfoil.item i
    where i.flow = p_flow and i.lane = p_lane and coalesce(i.parent_id, i.id) = v_family and i.next_action_at <= v_now
      and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and i.id <> all (v_turn)
    order by i.flow, i.lane, coalesce(i.parent_id, i.id), i.next_action_at limit 1 for update skip locked;
    if v_one is not null then
      v_turn := v_turn || v_one;
    end if;
    exit when cardinality(v_turn) >= p_limit / 2;
  end loop;
  ids := (v_turn || array(select f.id from unnest(ids) with ordinality as f (id, place) where f.id <> all (v_turn) order by f.place))[1:p_limit];
end $$;

-- Claim up to p_limit items of a delivery flow, each by an attempt of its own, with all that a request is built from. One whose last
-- attempts ended with their worker is claimed alone, when its turn has come.
create function counterfoil.claim_deliveries(p_flow text, p_lane text, p_limit integer, p_lease interval, p_worker bigint, p_after bigint default 0)
returns table (id bigint, key text, kind text, group_key text, attempt_id uuid, attempts integer, first_failed_at timestamptz, doubt_at timestamptz,
  receipt text, accepted_at timestamptz, fault text, problem text, parent_id bigint, parent_key text, parent_state text, parent_receipt text,
  parent_payload text, payload text, file jsonb, rendered jsonb, version integer, turned_to bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
  v_ids       bigint[];
  v_crashed   bigint[];
  v_turned_to bigint;
begin
  select n.ids, n.turned_to into v_ids, v_turned_to from counterfoil.next_due(p_flow, p_lane, p_limit, p_after) n;
  if cardinality(v_ids) > 0 then
    v_crashed := array(
      select i.id from unnest(v_ids) with ordinality as u (id, place)
      cross join lateral (select o.id, o.crashes from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
      where i.crashes > 0 order by u.place);
    v_ids := case when v_ids[1] = any (v_crashed) then v_ids[1:1]
      else array(select u.id from unnest(v_ids) with ordinality as u (id, place) where u.id <> all (v_crashed) order by u.place) end;
    perform counterfoil.claim_these(p_flow, v_ids, p_lease, p_worker);
  end if;
  return query
  select i.id, i.key, i.kind, i.group_key, i.attempt_id, i.attempts, i.first_failed_at, i.doubt_at, i.receipt, i.accepted_at, i.fault, i.problem,
    i.parent_id, p.key, p.state, coalesce(p.receipt, p.reference), pc.payload, c.payload, c.file, c.rendered, i.version, v_turned_to
  from unnest(v_ids) with ordinality as u (id, place)
  cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
  left join lateral (select o.* from counterfoil.content o where o.flow = p_flow and o.item_id = u.id offset 0) c on true
  left join lateral (select o.key, o.state, o.receipt, o.reference from counterfoil.item o where o.flow = p_flow and o.id = i.parent_id offset 0) p on true
  left join lateral (select o.payload from counterfoil.content o where o.flow = p_flow and o.item_id = i.parent_id offset 0) pc on true
  order by u.place;
end $$;

-- From now on the requests of these attempts may have left. Returns the attempts that still hold their item: only these may be sent.
create function counterfoil.mark_sending(p_flow text, p_ids bigint[], p_attempts uuid[]) returns setof uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
begin
  return query
  with held as materialized (
    select i.id, i.attempt_id, i.attempts from unnest(p_ids, p_attempts) as u (id, attempt_id) cross join lateral (
      select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id and o.attempt_id = u.attempt_id offset 0) i
  ), marked as (
    update counterfoil.attempt a set sent_at = counterfoil.now() from held h where a.flow = p_flow and a.item_id = h.id and a.number = h.attempts
  )
  select h.attempt_id from held h;
end $$;

create or replace function counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval)
returns setof uuid language sql security definer set search_path = pg_catalog, pg_temp as $$
  update counterfoil.item set next_action_at = counterfoil.now() + p_lease
  where flow = p_flow and state = 'IN_PROGRESS' and settled_at is null and attempt_id = any (p_attempts)
  returning attempt_id
$$;

-- Items whose lease ended, or whose worker is gone. Due again; in doubt where a request may have left and a resend is not safe; and owned
-- by a case after p_crashes such ends.
create or replace function counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer default 1000)
returns table (rescued bigint, failed bigint) language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_sort = off set jit = off as $$
begin
  return query
  with lost as (
    select i.id, i.crashes, i.attempt_id,
      (a.sent_at is not null or i.doubt_at is not null)
        and coalesce(case when i.receipt is not null and k.updates then k.resend_update else k.resend end, 'safe') <> 'safe' as doubtful,
      case when coalesce(case when i.receipt is not null and k.updates then k.resend_update else k.resend end, 'safe') = 'look_up'
        then counterfoil.now() + k.look_up_after end as look_at
    from counterfoil.item i
    left join lateral (
      select a.worker_id, a.sent_at from counterfoil.attempt a where a.flow = p_flow and a.item_id = i.id and a.number = i.attempts offset 0) a on true
    left join lateral (select o.* from counterfoil.flow_kind o where o.flow = p_flow and o.kind = i.kind offset 0) k on true
    where i.flow = p_flow and i.state = 'IN_PROGRESS' and i.settled_at is null
      and (i.next_action_at <= counterfoil.now()
        or a.worker_id is not null and a.worker_id not in (select w from counterfoil.live_workers() w))
    order by i.flow, i.state, i.accepted_at, i.id limit p_limit for update of i skip locked
  ), moved as (
    select m.* from (select array(select
      case
        when l.crashes + 1 >= p_crashes then counterfoil.request('fail', p_id => l.id, p_fault => 'crashed', p_attempt_id => l.attempt_id,
          p_problem => format('Its worker died %s times while it had this item.', l.crashes + 1), p_doubtful => l.doubtful)
        when l.doubtful then counterfoil.request('doubt', p_id => l.id, p_next_action_at => l.look_at, p_fault => 'in_doubt', p_attempt_id => l.attempt_id,
          p_problem => 'Its worker was gone before it said what became of the request.')
        else counterfoil.request('rescue', p_id => l.id, p_next_action_at => counterfoil.now(), p_attempt_id => l.attempt_id) end
      from lost l) as requests) q,
    lateral counterfoil.move_items(p_flow, q.requests, 'rescue', 'its worker is gone or its lease ended') m
    where cardinality(q.requests) > 0
  )
  select count(*) filter (where m.to_state in ('QUEUED', 'IN_DOUBT')), count(*) filter (where m.to_state = 'PERMANENT_ERROR') from moved m where m.moved;
end $$;

-- What was held until a time that has come. A child whose parent still has no receipt, and an accepted item that nobody confirmed, are a person's.
create function counterfoil.wake_items(p_flow text, p_limit integer default 1000) returns table (released bigint, failed bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off as $$
declare
  v_requests counterfoil.move_request[];
begin
  v_requests := array(
    select case
      when i.state = 'ACCEPTED' then counterfoil.request('fail', p_id => i.id, p_fault => 'unconfirmed',
        p_problem => format('The other side has it since %s and has not confirmed it in time; it last said %s.',
          to_char(i.receipt_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(q.status, 'nothing')))
      when i.parent_id is not null and coalesce(p.receipt, p.reference) is null then counterfoil.request('fail', p_id => i.id,
        p_fault => 'parent_late', p_problem => format('Its parent %s has no receipt yet.', p.key))
      when i.parent_id is null and k.parent_kind is not null and k.stand_in is null then counterfoil.request('fail', p_id => i.id,
        p_fault => 'parent_late', p_problem => 'No parent was handed in for it.')
      else counterfoil.request('release', p_id => i.id) end
    from counterfoil.item i
    left join lateral (select o.key, o.receipt, o.reference from counterfoil.item o where o.flow = p_flow and o.id = i.parent_id offset 0) p on true
    left join lateral (select o.* from counterfoil.flow_kind o where o.flow = p_flow and o.kind = i.kind offset 0) k on true
    left join lateral (select o.status from counterfoil.poll o where o.flow = p_flow and o.item_id = i.id offset 0) q on true
    where i.flow = p_flow and i.state in ('WAITING', 'ACCEPTED') and i.next_action_at <= counterfoil.now()
    order by i.next_action_at, i.id limit p_limit for update of i skip locked);
  if cardinality(v_requests) > 0 then
    return query
    select count(*) filter (where m.to_state = 'QUEUED'), count(*) filter (where m.to_state = 'PERMANENT_ERROR')
    from counterfoil.move_items(p_flow, v_requests, 'ledger', 'its time has come') m where m.moved;
    update counterfoil.poll p set phase = 'late' from unnest(v_requests) r where p.flow = p_flow and p.item_id = r.id and r.event = 'fail';
  else
    return query select 0::bigint, 0::bigint;
  end if;
end $$;

-- Try again what stopped for one of these faults (`*` at the end stands for anything). Children of a stopped parent are left: they follow it.
create function counterfoil.requeue_items(p_flow text, p_faults text[], p_accepted_since timestamptz, p_limit integer, p_actor text, p_reason text)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  v_likes    text[] := array(select replace(replace(f, '_', '\_'), '*', '%') from unnest(p_faults) f);
  v_requests counterfoil.move_request[];
begin
  v_requests := array(
    select counterfoil.request('retry', p_id => i.id) from counterfoil.item i
    where i.flow = p_flow and i.state = 'PERMANENT_ERROR' and i.settled_at is null and i.fault like any (v_likes) and i.fault <> 'parent_failed'
      and (p_accepted_since is null or i.accepted_at >= p_accepted_since)
    order by i.accepted_at, i.id limit p_limit for update skip locked);
  if cardinality(v_requests) = 0 then
    return 0;
  end if;
  return (select count(*) from counterfoil.move_items(p_flow, v_requests, p_actor, p_reason) m where m.moved);
end $$;

create or replace function counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text default session_user,
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
    array[counterfoil.request(p_event, p_key => p_key, p_next_action_at => p_next_action_at, p_fault => p_fault, p_problem => p_problem,
      p_attempt_id => p_attempt_id, p_reference => p_reference)], p_actor, p_reason);
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

-- Exchanges as they come from a worker; the proof is kept whatever becomes of the move.
create type counterfoil.exchange_row as (
  item_id bigint, call_id bigint, attempt_id uuid, at timestamptz, kind text, method text, address text, status smallint, outcome text,
  took_ms integer, sent_bytes bigint, sent_sha256 text, got_bytes bigint, got_sha256 text, request text, reply text, fault text
);

create function counterfoil.note_exchanges(p_flow text, p_exchanges counterfoil.exchange_row[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into counterfoil.exchange (at, flow, item_id, call_id, attempt_id, kind, method, address, status, outcome, took_ms, sent_bytes, sent_sha256,
    got_bytes, got_sha256, request, reply, fault)
  select e.at, p_flow, e.item_id, e.call_id, e.attempt_id, e.kind, e.method, e.address, e.status, e.outcome, e.took_ms, e.sent_bytes, e.sent_sha256,
    e.got_bytes, e.got_sha256, e.request, e.reply, e.fault
  from unnest(p_exchanges) e
$$;

-- Settle a slice: the proof, then the moves, in one statement.
create function counterfoil.settle_deliveries(p_flow text, p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_worker bigint)
returns setof counterfoil.move_result language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform counterfoil.note_exchanges(p_flow, p_exchanges);
  return query select m.* from counterfoil.move_items(p_flow, p_requests, 'worker ' || p_worker, null, p_worker) m;
end $$;

-- A file that was made for an item is kept, so that a retry sends the same one.
create function counterfoil.keep_rendered(p_flow text, p_ids bigint[], p_attempts uuid[], p_files jsonb[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  update counterfoil.content c set rendered = u.file
  from unnest(p_ids, p_attempts, p_files) as u (id, attempt_id, file)
  where c.flow = p_flow and c.item_id = u.id
    and exists (select 1 from counterfoil.item i where i.flow = p_flow and i.id = u.id and i.attempt_id = u.attempt_id and i.version = i.sent_version)
$$;
