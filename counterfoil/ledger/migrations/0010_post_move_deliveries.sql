-- The door through which items move, anew: receipts, doubt, kinds, and cases shared with a parent. What 0006 says of it still holds, and
-- one thing more: what follows from a move (0013) is done before the counters are touched, so that no lock on an item comes after them.

-- A flow may have several schedules: its runs, what it takes in, what it tries again overnight.
alter table counterfoil.schedule drop constraint schedule_pkey, add primary key (flow, name);
-- Fewer indexes on the row that moves most, each for one question.
drop index counterfoil.item_next_action, counterfoil.item_lease, counterfoil.item_listing;

alter type counterfoil.move_request add attribute receipt text, add attribute case_fault text, add attribute doubtful boolean,
  add attribute kind text, add attribute group_key text, add attribute parent_id bigint, add attribute lane text,
  add attribute not_before timestamptz, add attribute reason text;
alter type counterfoil.judged_move add attribute kind text, add attribute version integer, add attribute sent_version integer;

-- Kinds as declared. A flow that declares none (a sync) has the one kind `record`, which waits for nothing and keeps its payload in the item.
create function counterfoil.kinds_of(p_flow text) returns setof counterfoil.flow_kind language sql stable as $$
  select k.* from counterfoil.flow_kind k where k.flow = p_flow
  union all
  select p_flow, 'record', 0::smallint, null, 'last', null, interval '7 days', 'record', 'record', interval '0', false, null, null
  where not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow)
$$;

-- A request by name of its parts.
create function counterfoil.request(p_event text, p_id bigint default null, p_key text default null, p_next_action_at timestamptz default null,
  p_fault text default null, p_problem text default null, p_attempt_id uuid default null, p_payload text default null,
  p_reference text default null, p_receipt text default null, p_case_fault text default null, p_doubtful boolean default null,
  p_kind text default null, p_group_key text default null, p_parent_id bigint default null, p_lane text default null,
  p_not_before timestamptz default null, p_reason text default null)
returns counterfoil.move_request language sql immutable as $$
  select row(p_id, p_key, p_event, p_next_action_at, p_fault, p_problem, p_attempt_id, null, p_payload, null, p_reference, null, p_receipt,
    p_case_fault, p_doubtful, p_kind, p_group_key, p_parent_id, p_lane, p_not_before, p_reason)::counterfoil.move_request
$$;

-- Whether a move leads into a case: where it needs a person, and where it is in doubt with nothing to look it up by. Newer content for what is
-- in doubt leaves it where it is.
create function counterfoil.is_owned(p_to_state text, p_event text, p_next_action_at timestamptz) returns boolean language sql immutable as $$
  select p_to_state in ('REVIEW', 'PERMANENT_ERROR') or p_to_state = 'IN_DOUBT' and p_event <> 'revise' and p_next_action_at is null
$$;

-- The open case that a request joins.
create function counterfoil.case_of(p_flow text, p_request counterfoil.move_request) returns bigint language sql stable as $$
  select c.id from counterfoil."case" c where c.flow = p_flow and c.closed_at is null
    and c.fault = coalesce((p_request).case_fault, (p_request).fault, (p_request).event)
$$;

-- A parent that won't get a receipt by itself. What has one counts as delivered, whatever its state.
create function counterfoil.is_stopped(p_state text) returns boolean language sql immutable as $$
  select p_state in ('PERMANENT_ERROR', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED')
$$;

-- What its children are sent with: what the other side gave for it, or where it was handed over by hand.
create function counterfoil.receipt_of(p_state text, p_receipt text, p_reference text) returns text language sql immutable as $$
  select coalesce(p_receipt, case when p_state = 'TRANSFERRED' then p_reference end)
$$;

create function counterfoil.stopped_problem(p_key text, p_state text, p_problem text) returns text language sql immutable as $$
  select format('Its parent %s stopped: %s', p_key,
    case when p_state = 'PERMANENT_ERROR' and p_problem is not null then p_problem else lower(p_state) end)
$$;

-- The items with these keys, each in its place, null where there is none. The order by key can come only from its index: while a flow has few
-- items, the one by id would do as well, and the plan is kept when it has many.
create function counterfoil.ids_of(p_flow text, p_keys text[]) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
begin
  return coalesce((
    select array_agg(i.id order by k.place) from unnest(p_keys) with ordinality as k (key, place) left join lateral (
      select o.id from counterfoil.item o where o.flow = p_flow and o.key between k.key and k.key order by o.key limit 1) i on true), '{}');
end $$;

create or replace function counterfoil.lock_items(p_flow text, p_requests counterfoil.move_request[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_ids bigint[] := array(
    select r.id from unnest(p_requests) r where r.id is not null
    union
    select u.id from unnest(counterfoil.ids_of(p_flow, array(select r.key from unnest(p_requests) r where r.id is null))) as u (id)
    where u.id is not null order by 1);
begin
  perform 1 from unnest(v_ids) as u (id) cross join lateral (
    select 1 from counterfoil.item i where i.flow = p_flow and i.id = u.id offset 0 for update) l;
end $$;

-- As before, and: who joins another's case moves there, also with the fault it has already.
create or replace function counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) returns counterfoil.judged_move[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off
as $$
begin
  return array(
    select row(i.id, i.key, i.state, m.to_state, case
        when (i.state = 'IN_PROGRESS' or (r.request).event <> 'claim' and (r.request).attempt_id is not null)
          and i.attempt_id is distinct from (r.request).attempt_id then 'lease_lost'
        when m.to_state is null then 'illegal'
        when m.to_state = i.state and (r.request).event in ('fail_temporarily', 'fail', 'review', 'reject')
          and i.fault is not distinct from (r.request).fault and (r.request).case_fault is null
          and ((r.request).event <> 'review' or i.payload_sha256 is not distinct from (r.request).payload_sha256) then 'same'
        else 'moved' end,
      i.case_id, i.attempt_id, i.attempts, i.place, r.request, i.kind, i.version, i.sent_version)::counterfoil.judged_move
    from (
      select distinct on (n.item_id) n.item_id, n.request
      from (
        select (q.request).id as item_id, q.request, q.place
        from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
        where (q.request).id is not null
        union all
        select k.id, q.request, q.place
        from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
        cross join lateral (
          select i.id from counterfoil.item i where i.flow = p_flow and i.key between (q.request).key and (q.request).key order by i.key limit 1) k
        where (q.request).id is null) n
      order by n.item_id, n.place) r
    cross join lateral (
      select o.*, o.ctid as place from counterfoil.item o where o.flow = p_flow and o.id = r.item_id offset 0) i
    left join counterfoil.item_move m on m.from_state = i.state and m.event = (r.request).event
    order by i.id);
end $$;

create or replace function counterfoil.give_birth(p_flow text, p_births counterfoil.move_request[], p_actor text, p_reason text, p_now timestamptz)
returns counterfoil.move_result[] language plpgsql set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
declare
  v_born counterfoil.move_result[];
begin
  with born as (
    insert into counterfoil.item (flow, key, state, state_since, accepted_at, settled_at, next_action_at, case_id, first_failed_at,
      fault, problem, run_id, payload, payload_sha256, kind, group_key, parent_id, lane, not_before, receipt, receipt_at)
    select p_flow, r.key, m.to_state, p_now, p_now,
      case when m.to_state in ('REJECTED', 'SUCCESS') then p_now end,
      case when m.to_state in ('QUEUED', 'WAITING', 'TEMPORARY_ERROR') then coalesce(r.next_action_at, p_now) end,
      case when m.to_state in ('REVIEW', 'PERMANENT_ERROR') then counterfoil.case_of(p_flow, r) end,
      case when r.event in ('fail', 'fail_temporarily') then p_now end,
      r.fault, r.problem, r.run_id, case when m.to_state not in ('REJECTED', 'SUCCESS') then r.payload end, r.payload_sha256,
      coalesce(r.kind, 'record'), r.group_key, r.parent_id, coalesce(r.lane, 'live'), r.not_before, r.receipt,
      case when r.receipt is not null then p_now end
    from unnest(p_births) r join counterfoil.item_move m on m.from_state = 'NEW' and m.event = r.event
    order by r.key
    on conflict (flow, key) do nothing
    returning item.id, item.key, item.state, item.case_id
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, run_id, fault, problem, next_action_at)
    select p_now, p_flow, b.id, 'NEW', r.event, b.state, p_actor, coalesce(r.reason, p_reason), r.run_id, r.fault, r.problem, r.next_action_at
    from born b join unnest(p_births) r on r.key = b.key order by b.id
  ), owned as (
    select counterfoil.count_cases(array_agg(b.case_id), array_agg(1::bigint)) as done
    from born b where b.case_id is not null having count(*) > 0
  )
  select array_agg(row(b.id, b.key, 'NEW', b.state, true, 'moved')::counterfoil.move_result order by b.id) into v_born
  from born b left join owned on true;
  return coalesce(v_born, '{}');
end $$;

create or replace function counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint,
  p_now timestamptz)
returns counterfoil.move_result[] language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_moved counterfoil.move_result[];
begin
  with gone as materialized (
    select j.item_id, j.from_state, j.to_state, j.attempt_id as old_attempt_id, j.case_id as old_case_id, j.attempts, j.place, j.version, r.event,
      r.next_action_at, r.fault, r.problem, r.attempt_id, r.run_id, r.payload, r.payload_sha256, r.reference, r.superseded_by, r.receipt, r.doubtful,
      r.lane, r.not_before, r.reason,
      case when counterfoil.is_owned(j.to_state, r.event, r.next_action_at) then counterfoil.case_of(p_flow, j.request)
        when j.to_state = 'IN_DOUBT' and r.event = 'revise' then j.case_id end as new_case_id
    from unnest(p_judged) j cross join lateral (select (j.request).*) r
    where j.why = 'moved'
  ), moved as (
    update counterfoil.item i set
      state = g.to_state,
      state_since = p_now,
      settled_at = case when g.to_state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED') then p_now end,
      next_action_at = case
        when g.event = 'revise' and g.to_state = g.from_state then i.next_action_at
        when g.to_state in ('WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'ACCEPTED') then coalesce(g.next_action_at, p_now)
        when g.to_state = 'IN_DOUBT' then g.next_action_at end,
      case_id = g.new_case_id,
      attempt_id = case when g.event = 'claim' then g.attempt_id end,
      attempts = i.attempts + (g.event = 'claim')::int,
      crashes = case when g.event = 'rescue' or g.event = 'doubt' and p_actor = 'rescue' then i.crashes + 1
        when g.event in ('claim', 'hold', 'give_back') or g.event = 'revise' and g.to_state = g.from_state then i.crashes else 0 end,
      first_failed_at = case
        when g.event in ('retry', 'release', 'accept', 'regenerate') or g.to_state in ('SUCCESS', 'REJECTED', 'ACCEPTED') then null
        when g.event = 'revise' and g.to_state <> 'IN_DOUBT' then null
        when g.event in ('fail', 'fail_temporarily', 'doubt') then coalesce(i.first_failed_at, p_now)
        else i.first_failed_at end,
      doubt_at = case when g.event = 'doubt' or g.doubtful then coalesce(i.doubt_at, p_now)
        when g.event in ('claim', 'rescue', 'give_back', 'hold', 'retry', 'release', 'revise', 'regenerate') then i.doubt_at end,
      not_before = case when g.event in ('retry', 'release', 'regenerate') then g.not_before
        when g.event = 'hold' then coalesce(g.not_before, g.next_action_at)
        else coalesce(g.not_before, i.not_before) end,
      fault = case when g.to_state in ('SUCCESS', 'ACCEPTED') or g.event = 'revise' and g.to_state <> 'IN_DOUBT' then null
        else coalesce(g.fault, i.fault) end,
      problem = case when g.to_state in ('SUCCESS', 'ACCEPTED') or g.event = 'revise' and g.to_state <> 'IN_DOUBT' then null
        else coalesce(g.problem, i.problem) end,
      run_id = coalesce(g.run_id, i.run_id),
      payload = case when g.to_state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED') then null
        else coalesce(g.payload, i.payload) end,
      payload_sha256 = coalesce(g.payload_sha256, i.payload_sha256),
      released_sha256 = case when g.event = 'release' then i.payload_sha256 else i.released_sha256 end,
      reference = coalesce(g.reference, i.reference),
      superseded_by = coalesce(g.superseded_by, i.superseded_by),
      receipt = coalesce(g.receipt, i.receipt),
      receipt_at = case when g.receipt is distinct from i.receipt and g.receipt is not null then p_now else i.receipt_at end,
      lane = coalesce(g.lane, i.lane),
      -- What is in doubt is looked up first: only `mark_sending` says that its newest content left.
      sent_version = case when g.event = 'claim' and i.doubt_at is null then i.version else i.sent_version end
    from gone g where i.ctid = g.place
  ), recorded as (
    insert into counterfoil.item_event (at, flow, item_id, from_state, event, to_state, actor, reason, attempt_id, run_id, fault, problem,
      next_action_at)
    select p_now, p_flow, g.item_id, g.from_state, g.event, g.to_state, p_actor, coalesce(g.reason, p_reason),
      coalesce(g.attempt_id, g.old_attempt_id), g.run_id, g.fault, g.problem, g.next_action_at
    from gone g order by g.item_id
  ), attempted as (
    insert into counterfoil.attempt (id, flow, item_id, number, worker_id, started_at, lease_until, version)
    select g.attempt_id, p_flow, g.item_id, g.attempts + 1, p_worker, p_now, coalesce(g.next_action_at, p_now), g.version
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

create or replace function counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[])
returns void language sql set search_path = pg_catalog, pg_temp as $$
  select counterfoil.open_cases(p_flow, coalesce(array_agg(w.fault) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(w.title) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(distinct w.leaving) filter (where w.leaving is not null), '{}'))
  from (
    select coalesce(r.case_fault, r.fault, r.event), coalesce(r.problem, r.event), null::bigint from unnest(p_births) r
    where r.event in ('fail', 'review')
    union all
    select case when counterfoil.is_owned(j.to_state, (j.request).event, (j.request).next_action_at)
        then coalesce((j.request).case_fault, (j.request).fault, (j.request).event) end,
      coalesce((j.request).problem, (j.request).event), j.case_id
    from unnest(p_judged) j where j.why = 'moved'
      and (counterfoil.is_owned(j.to_state, (j.request).event, (j.request).next_action_at) or j.case_id is not null)
  ) as w (fault, title, leaving) having count(*) > 0
$$;

create or replace function counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text default null,
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
  perform counterfoil.need_flow(p_flow);
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
    if exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow) then
      perform counterfoil.follow_moves(p_flow, v_judged, p_actor, v_now);
    end if;
  end if;
  perform counterfoil.count_results(p_flow, v_moved);
  return query select m.* from unnest(v_moved) m;
end $$;

create function counterfoil.need_flow(p_flow text) returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select 1 from counterfoil.flow where name = p_flow) then
    raise exception 'flow "%" is not registered', p_flow using errcode = 'CF002',
      hint = 'Run "counterfoil migrate" in the project folder; it registers the flows it finds.';
  end if;
end $$;

create function counterfoil.count_results(p_flow text, p_moved counterfoil.move_result[]) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select counterfoil.count_moves(p_flow, array_agg(s.state), array_agg(s.n))
  from (select m.to_state, count(*) from unnest(p_moved) m where m.moved group by m.to_state
        union all  -- NEW counts upwards: it says how many were ever accepted
        select m.from_state, case m.from_state when 'NEW' then 1 else -1 end * count(*) from unnest(p_moved) m where m.moved group by m.from_state
       ) as s (state, n) having count(*) > 0
$$;
