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

-- Which items of a lane are next: the longest due first. Where more are due than fit, some of the places go to the next families in turn, one
-- each, so that one parent's ten thousand children don't keep everybody else waiting: half of the places where few families fill the slice, else
-- a tenth. p_after: the last family that had its turn; turned_to: the one that has it now. What has crashed before comes alone, once it is the
-- longest due.
create function counterfoil.next_due(p_flow text, p_lane text, p_limit integer, p_after bigint, out ids bigint[], out turned_to bigint)
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
declare
  v_now      timestamptz := counterfoil.now();
  v_found    bigint;
  v_families bigint;
  v_suspect  boolean;
  v_places   bigint;
  v_turn     bigint[] := '{}';
  v_one      bigint;
  v_family   bigint;
  v_around   boolean := false;
begin
  with due as materialized (
    select i.id, coalesce(i.parent_id, i.id) as family, i.crashes > 0 as suspect, i.next_action_at from counterfoil.item i
    where i.flow = p_flow and i.lane = p_lane and i.next_action_at <= v_now and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT')
    order by i.next_action_at, i.id limit p_limit for update skip locked
  ), placed as (select d.*, row_number() over () as place from due d)
  select count(*), count(distinct p.family), coalesce(bool_or(p.suspect) filter (where p.place = 1), false),
    coalesce(array_agg(p.id order by p.place) filter (where not p.suspect or p.place = 1), '{}'), coalesce(p_after, 0)
  into v_found, v_families, v_suspect, ids, turned_to from placed p;
  if v_suspect then
    ids := ids[1:1];
    return;
  end if;
  v_places := case when v_found < p_limit then 0 when v_families * 2 <= p_limit then p_limit / 2 else p_limit / 10 end;
  while cardinality(v_turn) < v_places loop
    select i.id, coalesce(i.parent_id, i.id) into v_one, v_family from counterfoil.item i
    where i.flow = p_flow and i.lane = p_lane and coalesce(i.parent_id, i.id) > turned_to and i.next_action_at <= v_now
      and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and i.crashes = 0
    order by i.flow, i.lane, coalesce(i.parent_id, i.id), i.next_action_at limit 1 for update skip locked;
    exit when v_around and (v_one is null or v_family > p_after);  -- each family once
    if v_one is null then  -- after the last family comes the first
      v_around := true;
      turned_to := 0;
    else
      turned_to := v_family;
      v_turn := v_turn || v_one;
    end if;
  end loop;
  v_turn := array(select u.id from unnest(v_turn) with ordinality as u (id, place) where u.id <> all (ids) order by u.place);
  ids := ids[1 : p_limit - cardinality(v_turn)] || v_turn;
end $$;

-- Claim up to p_limit items of a delivery flow, each by an attempt of its own, with all that a request is built from.
create function counterfoil.claim_deliveries(p_flow text, p_lane text, p_limit integer, p_lease interval, p_worker bigint, p_after bigint default 0)
returns table (id bigint, key text, kind text, group_key text, attempt_id uuid, attempts integer, first_failed_at timestamptz, doubt_at timestamptz,
  receipt text, accepted_at timestamptz, fault text, problem text, parent_id bigint, parent_key text, parent_state text, parent_receipt text,
  parent_payload text, payload text, file jsonb, rendered jsonb, version integer, turned_to bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
  v_ids       bigint[];
  v_turned_to bigint;
begin
  select n.ids, n.turned_to into v_ids, v_turned_to from counterfoil.next_due(p_flow, p_lane, p_limit, p_after) n;
  perform counterfoil.claim_these(p_flow, v_ids, p_lease, p_worker);
  return query
  select i.id, i.key, i.kind, i.group_key, i.attempt_id, i.attempts, i.first_failed_at, i.doubt_at, i.receipt, i.accepted_at, i.fault, i.problem,
    i.parent_id, p.key, p.state, counterfoil.receipt_of(p.state, p.receipt, p.reference), pc.payload, c.payload, c.file, c.rendered, i.version,
    v_turned_to
  from unnest(v_ids) with ordinality as u (id, place)
  cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
  left join lateral (select o.* from counterfoil.content o where o.flow = p_flow and o.item_id = u.id offset 0) c on true
  left join lateral (
    select o.key, o.state, o.receipt, o.reference from counterfoil.item o where o.flow = p_flow and o.id = i.parent_id offset 0) p on true
  left join lateral (select o.payload from counterfoil.content o where o.flow = p_flow and o.item_id = i.parent_id offset 0) pc on true
  order by u.place;
end $$;

-- From now on the requests of these attempts may have left. Returns the attempts that still hold their item: only these may be sent. The mark
-- comes first and the look after it, and a rescue locks the attempts it looks at: so either it sees the mark, or we see that it has been.
create function counterfoil.mark_sending(p_flow text, p_ids bigint[], p_attempts uuid[]) returns setof uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
  v_ids    bigint[];
  v_marked uuid[];
  v_held   uuid[];
  v_doubts bigint[];
begin
  with marked as (
    update counterfoil.attempt a set sent_at = counterfoil.now()
    from (select u.id, u.attempt_id from unnest(p_ids, p_attempts) as u (id, attempt_id) order by u.id) s
    cross join lateral (
      select o.attempts from counterfoil.item o where o.flow = p_flow and o.id = s.id and o.attempt_id = s.attempt_id offset 0) i
    cross join lateral (
      select t.ctid as place from counterfoil.attempt t where t.flow = p_flow and t.item_id = s.id and t.number = i.attempts offset 0) x
    where a.ctid = x.place returning a.item_id, a.id)
  select array_agg(m.item_id), array_agg(m.id) into v_ids, v_marked from marked m;
  select array_agg(i.attempt_id), array_agg(u.id) filter (where i.doubt_at is not null) into v_held, v_doubts
  from unnest(v_ids, v_marked) as u (id, attempt_id) cross join lateral (
    select o.attempt_id, o.doubt_at from counterfoil.item o where o.flow = p_flow and o.id = u.id and o.attempt_id = u.attempt_id offset 0) i;
  if v_doubts is not null then  -- for the others the claim has said what leaves
    update counterfoil.item i set sent_version = a.version from unnest(v_doubts) as u (id)
    cross join lateral (select o.ctid as place, o.attempts from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) h
    cross join lateral (select t.version from counterfoil.attempt t where t.flow = p_flow and t.item_id = u.id and t.number = h.attempts offset 0) a
    where i.ctid = h.place;
  end if;
  if cardinality(v_held) is distinct from cardinality(v_marked) then  -- a rescue came between: nothing has left
    update counterfoil.attempt a set sent_at = null from unnest(v_ids, v_marked) as u (id, attempt_id)
    where a.flow = p_flow and a.item_id = u.id and a.id = u.attempt_id and u.attempt_id <> all (coalesce(v_held, '{}'));
  end if;
  return query select u.id from unnest(v_held) as u (id);
end $$;

create or replace function counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval)
returns setof uuid language sql security definer set search_path = pg_catalog, pg_temp as $$
  update counterfoil.item set next_action_at = counterfoil.now() + p_lease
  where flow = p_flow and state = 'IN_PROGRESS' and settled_at is null and attempt_id = any (p_attempts)
  returning attempt_id
$$;

-- Items whose lease ended, or whose worker is gone. Due again; in doubt where a request may have left and a resend is not safe; and owned
-- by a case after p_crashes such ends. The items are locked first and their attempts looked at afterwards: `mark_sending` tells why.
create or replace function counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer default 1000)
returns table (rescued bigint, failed bigint) language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_sort = off set jit = off as $$
declare
  v_lost     bigint[];
  v_requests counterfoil.move_request[];
begin
  v_lost := array(
    select i.id from counterfoil.item i
    left join lateral (
      select a.worker_id from counterfoil.attempt a where a.flow = p_flow and a.item_id = i.id and a.number = i.attempts offset 0) a on true
    where i.flow = p_flow and i.state = 'IN_PROGRESS' and i.settled_at is null
      and (i.next_action_at <= counterfoil.now()
        or a.worker_id is not null and a.worker_id not in (select w from counterfoil.live_workers() w))
    order by i.flow, i.state, i.accepted_at, i.id limit p_limit for update of i skip locked);
  if cardinality(v_lost) = 0 then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  v_requests := array(
    select case
        when i.crashes + 1 >= p_crashes then counterfoil.request('fail', p_id => i.id, p_fault => 'crashed', p_attempt_id => i.attempt_id,
          p_problem => format('Its worker died %s times while it had this item.', i.crashes + 1),
          p_doubtful => i.doubt_at is not null or h.resend <> 'safe' and a.sent_at is not null)
        when h.resend <> 'safe' and (a.sent_at is not null or i.doubt_at is not null) then counterfoil.request('doubt', p_id => i.id,
          p_next_action_at => case h.resend when 'look_up' then counterfoil.now() + k.look_up_after end, p_fault => 'in_doubt',
          p_attempt_id => i.attempt_id, p_problem => 'Its worker was gone before it said what became of the request.')
        else counterfoil.request('rescue', p_id => i.id, p_next_action_at => counterfoil.now(), p_attempt_id => i.attempt_id) end
    from (select u.id from unnest(v_lost) as u (id) order by u.id) u
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
    left join lateral (select o.* from counterfoil.flow_kind o where o.flow = p_flow and o.kind = i.kind offset 0) k on true
    left join lateral (
      select o.sent_at from counterfoil.attempt o where o.flow = p_flow and o.item_id = i.id and o.number = i.attempts offset 0 for update) a on true
    cross join lateral (select coalesce(case when i.receipt is not null and k.updates then k.resend_update else k.resend end, 'safe') as resend) h);
  return query
  select count(*) filter (where m.to_state = 'QUEUED' or m.to_state = 'IN_DOUBT' and r.next_action_at is not null),
    count(*) filter (where m.to_state = 'PERMANENT_ERROR' or m.to_state = 'IN_DOUBT' and r.next_action_at is null)
  from counterfoil.move_items(p_flow, v_requests, 'rescue', 'its worker is gone or its lease ended') m join unnest(v_requests) r on r.id = m.id
  where m.moved;
end $$;

-- What was held until a time that has come. A child whose parent still has no receipt, and an accepted item that nobody confirmed, are a person's.
create function counterfoil.wake_items(p_flow text, p_limit integer default 1000) returns table (released bigint, failed bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off as $$
declare
  v_now      timestamptz := counterfoil.now();
  v_ids      bigint[];
  v_requests counterfoil.move_request[];
begin
  v_ids := array(
    select i.id from counterfoil.item i where i.flow = p_flow and i.state in ('WAITING', 'ACCEPTED') and i.next_action_at <= v_now
    order by i.next_action_at, i.id limit p_limit for update skip locked);
  if cardinality(v_ids) = 0 then
    return query select 0::bigint, 0::bigint;
    return;
  end if;
  perform counterfoil.lock_parents(p_flow, counterfoil.adopt(p_flow, v_ids));
  v_requests := array(
    select case
      when i.state = 'ACCEPTED' then counterfoil.request('fail', p_id => i.id, p_fault => 'unconfirmed',
        p_problem => format('The other side has it since %s and has not confirmed it in time; it last said %s.',
          to_char(coalesce(i.receipt_at, i.state_since) at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), coalesce(q.status, 'nothing')))
      when k.parent_kind is null or counterfoil.receipt_of(p.state, p.receipt, p.reference) is not null
        or i.parent_id is null and k.stand_in is not null then counterfoil.request('release', p_id => i.id)
      when i.accepted_at + k.parent_wait > v_now then counterfoil.request('hold', p_id => i.id, p_next_action_at => i.accepted_at + k.parent_wait,
        p_not_before => v_now, p_reason => 'its parent has no receipt yet')
      else counterfoil.request('fail', p_id => i.id, p_fault => 'parent_late', p_problem => case when i.parent_id is null
        then 'No parent was handed in for it.' else format('Its parent %s has no receipt yet.', p.key) end) end
    from unnest(v_ids) as u (id)
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
    left join lateral (
      select o.key, o.state, o.receipt, o.reference from counterfoil.item o where o.flow = p_flow and o.id = i.parent_id offset 0) p on true
    left join lateral (select o.* from counterfoil.flow_kind o where o.flow = p_flow and o.kind = i.kind offset 0) k on true
    left join lateral (select o.status from counterfoil.poll o where o.flow = p_flow and o.item_id = i.id offset 0) q on true);
  return query
  select count(*) filter (where m.to_state = 'QUEUED'), count(*) filter (where m.to_state = 'PERMANENT_ERROR')
  from counterfoil.move_items(p_flow, v_requests, 'ledger', 'its time has come') m where m.moved;
  update counterfoil.poll p set phase = 'late' from unnest(v_requests) r cross join lateral (
    select o.ctid as place from counterfoil.poll o where o.flow = p_flow and o.item_id = r.id and r.fault = 'unconfirmed' offset 0) x
  where p.ctid = x.place;
end $$;

-- Try again what stopped for one of these faults (`*` stands for anything). Children of a stopped parent are left: they follow it.
create function counterfoil.requeue_items(p_flow text, p_faults text[], p_accepted_since timestamptz, p_limit integer, p_actor text, p_reason text)
returns bigint language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off set jit = off as $$
declare
  v_likes    text[] := array(select replace(regexp_replace(f, '([\\%_])', '\\\1', 'g'), '*', '%') from unnest(p_faults) f);
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

revoke all on all functions in schema counterfoil from public;
