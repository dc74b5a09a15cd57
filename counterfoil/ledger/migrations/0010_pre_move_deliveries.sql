-- The door through which items move, anew: receipts, doubt, families and cases shared with a parent. What 0006 says of it still holds.
alter type counterfoil.move_request add attribute receipt text, add attribute case_fault text, add attribute doubtful boolean,
  add attribute kind text, add attribute group_key text, add attribute parent_id bigint, add attribute lane text,
  add attribute not_before timestamptz;

-- A request by name of its parts.
create function counterfoil.request(p_event text, p_id bigint default null, p_key text default null, p_next_action_at timestamptz default null,
  p_fault text default null, p_problem text default null, p_attempt_id uuid default null, p_payload text default null,
  p_reference text default null, p_receipt text default null, p_case_fault text default null, p_doubtful boolean default null,
  p_kind text default null, p_group_key text default null, p_parent_id bigint default null, p_lane text default null,
  p_not_before timestamptz default null)
returns counterfoil.move_request language sql immutable as $$
  select row(p_id, p_key, p_event, p_next_action_at, p_fault, p_problem, p_attempt_id, null, p_payload, null, p_reference, null, p_receipt,
    p_case_fault, p_doubtful, p_kind, p_group_key, p_parent_id, p_lane, p_not_before)::counterfoil.move_request
$$;

-- Whether a move leads into a case: where it needs a person, and where it is in doubt with nothing to look it up by.
create function counterfoil.is_owned(p_to_state text, p_next_action_at timestamptz) returns boolean language sql immutable as $$
  select p_to_state in ('REVIEW', 'PERMANENT_ERROR') or p_to_state = 'IN_DOUBT' and p_next_action_at is null
$$;

-- The open case that a request joins.
create function counterfoil.case_of(p_flow text, p_request counterfoil.move_request) returns bigint language sql stable as $$
  select c.id from counterfoil."case" c where c.flow = p_flow and c.closed_at is null
    and c.fault = coalesce((p_request).case_fault, (p_request).fault, (p_request).event)
$$;

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
      r.fault, r.problem, r.run_id, case when m.to_state <> 'REJECTED' then r.payload end, r.payload_sha256,
      coalesce(r.kind, 'record'), r.group_key, r.parent_id, coalesce(r.lane, 'live'), r.not_before, r.receipt,
      case when r.receipt is not null then p_now end
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

create or replace function counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint,
  p_now timestamptz)
returns counterfoil.move_result[] language plpgsql
set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_moved counterfoil.move_result[];
begin
  with gone as materialized (
    select j.item_id, j.from_state, j.to_state, j.attempt_id as old_attempt_id, j.case_id as old_case_id, j.attempts, j.place, r.event, r.next_action_at,
      r.fault, r.problem, r.attempt_id, r.run_id, r.payload, r.payload_sha256, r.reference, r.superseded_by, r.receipt, r.doubtful, r.lane,
      case when counterfoil.is_owned(j.to_state, r.next_action_at) then counterfoil.case_of(p_flow, j.request) end as new_case_id
    from unnest(p_judged) j cross join lateral (select (j.request).*) r
    where j.why = 'moved'
  ), moved as (
    update counterfoil.item i set
      state = g.to_state,
      state_since = p_now,
      settled_at = case when g.to_state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED') then p_now end,
      next_action_at = case
        when g.to_state in ('WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'ACCEPTED') then
          coalesce(g.next_action_at, case when g.event = 'revise' then i.next_action_at end, p_now)
        when g.to_state = 'IN_DOUBT' then g.next_action_at end,
      case_id = g.new_case_id,
      attempt_id = case when g.event = 'claim' then g.attempt_id end,
      attempts = i.attempts + (g.event = 'claim')::int,
      crashes = case when g.event = 'rescue' or g.event = 'doubt' and p_actor = 'rescue' then i.crashes + 1
        when g.event in ('claim', 'hold', 'give_back', 'doubt') then i.crashes else 0 end,
      first_failed_at = case
        when g.event in ('retry', 'release', 'accept', 'revise', 'regenerate') or g.to_state in ('SUCCESS', 'REJECTED', 'ACCEPTED') then null
        when g.event in ('fail', 'fail_temporarily', 'doubt') then coalesce(i.first_failed_at, p_now)
        else i.first_failed_at end,
      doubt_at = case when g.event = 'doubt' or g.doubtful then coalesce(i.doubt_at, p_now)
        when g.event in ('claim', 'rescue', 'give_back', 'hold', 'retry', 'release', 'revise') then i.doubt_at end,
      fault = case when g.to_state in ('SUCCESS', 'ACCEPTED') then null else coalesce(g.fault, i.fault) end,
      problem = case when g.to_state in ('SUCCESS', 'ACCEPTED') then null else coalesce(g.problem, i.problem) end,
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
      sent_version = case when g.event = 'claim' then i.version else i.sent_version end
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

create or replace function counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[])
returns void language sql set search_path = pg_catalog, pg_temp as $$
  select counterfoil.open_cases(p_flow, coalesce(array_agg(w.fault) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(w.title) filter (where w.fault is not null), '{}'),
    coalesce(array_agg(distinct w.leaving) filter (where w.leaving is not null), '{}'))
  from (
    select coalesce(r.case_fault, r.fault, r.event), coalesce(r.problem, r.event), null::bigint from unnest(p_births) r
    where r.event in ('fail', 'review')
    union all
    select case when counterfoil.is_owned(j.to_state, (j.request).next_action_at)
        then coalesce((j.request).case_fault, (j.request).fault, (j.request).event) end,
      coalesce((j.request).problem, (j.request).event), j.case_id
    from unnest(p_judged) j
    where j.why = 'moved' and (counterfoil.is_owned(j.to_state, (j.request).next_action_at) or j.case_id is not null)
  ) as w (fault, title, leaving) having count(*) > 0
$$;

-- What follows from moves of a delivery flow, in the same transaction. The parts that most moves don't need are not run.
create function counterfoil.follow_moves(p_flow text, p_judged counterfoil.judged_move[], p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_gone bigint[] := array(select j.item_id from unnest(p_judged) j where j.why = 'moved' and j.from_state in ('ACCEPTED', 'SUCCESS', 'PERMANENT_ERROR')
    and j.to_state in ('QUEUED', 'TEMPORARY_ERROR', 'TRANSFERRED', 'ARCHIVED', 'CANCELLED', 'SUPERSEDED'));
  v_anew bigint[] := array(select j.item_id from unnest(p_judged) j where j.why = 'moved' and (j.request).event = 'regenerate');
  v_polled bigint[] := array(select j.item_id from unnest(p_judged) j where j.why = 'moved' and (j.request).event in ('receive', 'reopen'));
begin
  if cardinality(v_gone) > 0 then
    delete from counterfoil.poll p where p.flow = p_flow and p.item_id = any (v_gone);
  end if;
  if cardinality(v_anew) > 0 then
    update counterfoil.content c set rendered = null where c.flow = p_flow and c.item_id = any (v_anew);
  end if;
  if cardinality(v_polled) > 0 then
    insert into counterfoil.poll as p (flow, item_id, receipt, phase, next_poll_at)
    select i.flow, i.id, i.receipt, 'confirm', p_now + coalesce(k.poll_first, '0')
    from counterfoil.item i join counterfoil.flow_kind k on k.flow = i.flow and k.kind = i.kind
    where i.flow = p_flow and i.id = any (v_polled) and i.receipt is not null
    on conflict (flow, item_id) do update set receipt = excluded.receipt, phase = 'confirm', next_poll_at = excluded.next_poll_at,
      not_found = 0, keep_until = null, seen = case when p.receipt = excluded.receipt then p.seen end;
  end if;
  perform counterfoil.follow_revisions(p_flow, p_judged);
  perform counterfoil.follow_parents(p_flow, p_judged);
end $$;

-- Content that was handed in while an older version was under way is sent as soon as that has arrived.
create function counterfoil.follow_revisions(p_flow text, p_judged counterfoil.judged_move[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_requests counterfoil.move_request[] := array(
    select counterfoil.request('revise', p_id => i.id) from unnest(p_judged) j
    join counterfoil.item i on i.flow = p_flow and i.id = j.item_id
    where j.why = 'moved' and j.from_state = 'IN_PROGRESS' and j.to_state in ('ACCEPTED', 'SUCCESS') and i.version > i.sent_version);
begin
  if cardinality(v_requests) > 0 then
    perform counterfoil.move_items(p_flow, v_requests, 'ledger', 'newer content was handed in meanwhile');
  end if;
end $$;

-- Children go the moment their parent has a receipt; those of a parent that stopped for good go into its case, and come back from there.
create function counterfoil.follow_parents(p_flow text, p_judged counterfoil.judged_move[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_parents bigint[] := array(
    select j.item_id from unnest(p_judged) j
    where j.why = 'moved' and j.to_state in ('ACCEPTED', 'SUCCESS', 'TRANSFERRED', 'PERMANENT_ERROR', 'ARCHIVED', 'CANCELLED', 'REJECTED'));
  v_requests counterfoil.move_request[];
begin
  if cardinality(v_parents) = 0
    or not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind is not null) then
    return;
  end if;
  v_requests := array(
    select case when coalesce(p.receipt, p.reference) is not null then counterfoil.request('release', p_id => c.id, p_next_action_at => c.not_before)
      else counterfoil.request('fail', p_id => c.id, p_fault => 'parent_failed',
        p_problem => format('Its parent %s stopped: %s', p.key, coalesce(p.problem, lower(p.state))),
        p_case_fault => case when p.state = 'PERMANENT_ERROR' then p.fault end) end
    from unnest(v_parents) as u (id)
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) p
    cross join lateral (
      select o.id, o.state, o.fault, case when o.not_before > counterfoil.now() then o.not_before end as not_before
      from counterfoil.item o
      where o.flow = p_flow and o.parent_id = p.id and o.settled_at is null offset 0) c
    where c.state = 'WAITING' and (coalesce(p.receipt, p.reference) is not null or p.state not in ('ACCEPTED', 'SUCCESS', 'TRANSFERRED'))
      or c.state = 'PERMANENT_ERROR' and c.fault like 'parent\_%' and coalesce(p.receipt, p.reference) is not null);
  if cardinality(v_requests) > 0 then
    perform counterfoil.move_items(p_flow, v_requests, 'ledger',
      case when (v_requests[1]).event = 'release' then 'its parent has a receipt' else 'its parent stopped' end);
  end if;
end $$;

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
  if cardinality(v_judged) > 0 and exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow) then
    perform counterfoil.follow_moves(p_flow, v_judged, v_now);
  end if;
  return query select m.* from unnest(v_moved) m;
end $$;
