-- The schema of the ledger as all migrations together make it. For reading: written by `make schema`, proven by a test, never applied.

CREATE SCHEMA counterfoil;

CREATE TYPE counterfoil.accept_request AS (
	key text,
	kind text,
	payload text,
	parent_key text,
	group_key text,
	lane text,
	file jsonb,
	due_at timestamp with time zone,
	receipt text
);

CREATE TYPE counterfoil.accepted AS (
	key text,
	id bigint,
	state text,
	outcome text
);

CREATE TYPE counterfoil.exchange_row AS (
	item_id bigint,
	call_id bigint,
	attempt_id uuid,
	at timestamp with time zone,
	kind text,
	method text,
	address text,
	status smallint,
	outcome text,
	took_ms integer,
	sent_bytes bigint,
	sent_sha256 text,
	got_bytes bigint,
	got_sha256 text,
	request text,
	reply text,
	fault text
);

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
	superseded_by bigint,
	receipt text,
	case_fault text,
	doubtful boolean,
	kind text,
	group_key text,
	parent_id bigint,
	lane text,
	not_before timestamp with time zone,
	reason text
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
	request counterfoil.move_request,
	kind text,
	version integer,
	sent_version integer
);

CREATE TYPE counterfoil.move_result AS (
	id bigint,
	key text,
	from_state text,
	to_state text,
	moved boolean,
	why text
);

CREATE TYPE counterfoil.placed_request AS (
	request counterfoil.accept_request,
	sha256 text,
	parent_id bigint,
	parent_key text,
	parent_state text,
	parent_problem text,
	parent_receipt text,
	parent_case_fault text
);

CREATE TYPE counterfoil.poll_result AS (
	item_id bigint,
	next_poll_at timestamp with time zone,
	phase text,
	keep_until timestamp with time zone,
	answered boolean,
	status text,
	seen text,
	not_found smallint
);

CREATE TYPE counterfoil.step_row AS (
	item_id bigint,
	step text,
	status text,
	started_at timestamp with time zone,
	ended_at timestamp with time zone,
	error text
);

CREATE FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb DEFAULT NULL::jsonb, p_parent_key text DEFAULT NULL::text, p_kind text DEFAULT NULL::text, p_group text DEFAULT NULL::text, p_file jsonb DEFAULT NULL::jsonb, p_lane text DEFAULT NULL::text, p_due_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_receipt text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (select a.id from counterfoil.accept_items(p_flow,
    array[row(p_key, p_kind, p_payload::text, p_parent_key, p_group, p_lane, p_file, p_due_at, p_receipt)::counterfoil.accept_request],
    session_user::text) a);
end $$;

CREATE FUNCTION counterfoil.accept_items(p_flow text, p_requests counterfoil.accept_request[], p_actor text DEFAULT SESSION_USER, p_reason text DEFAULT NULL::text) RETURNS SETOF counterfoil.accepted
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
declare
  v_requests counterfoil.accept_request[] := counterfoil.with_kinds(p_flow, p_requests);
  v_kind     counterfoil.flow_kind;
  v_taken    counterfoil.accepted[] := '{}';
begin
  if coalesce(p_actor, '') = '' then
    raise exception 'a move needs an actor' using errcode = 'CF001';
  end if;
  if exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind is not null) then
    perform counterfoil.lock_groups(p_flow, counterfoil.lonely_groups(p_flow, v_requests));
  end if;
  for v_kind in
    select k.* from counterfoil.kinds_of(p_flow) k where k.kind in (select r.kind from unnest(v_requests) r) order by k.position
  loop
    v_taken := v_taken || counterfoil.accept_kind(p_flow, v_kind, array(select r from unnest(v_requests) r where r.kind = v_kind.kind), p_actor,
      p_reason);
  end loop;
  perform counterfoil.count_results(p_flow,
    array(select row(a.id, a.key, 'NEW', a.state, true, 'moved')::counterfoil.move_result from unnest(v_taken) a where a.outcome = 'new'));
  return query select a.* from unnest(v_taken) a;
end $$;

CREATE TABLE counterfoil.flow_kind (
    flow text NOT NULL,
    kind text NOT NULL,
    "position" smallint NOT NULL,
    parent_kind text,
    inherits text DEFAULT 'last'::text NOT NULL,
    stand_in text,
    parent_wait interval DEFAULT '7 days'::interval NOT NULL,
    resend text DEFAULT 'person'::text NOT NULL,
    resend_update text DEFAULT 'person'::text NOT NULL,
    look_up_after interval DEFAULT '00:02:00'::interval NOT NULL,
    updates boolean DEFAULT false NOT NULL,
    poll_first interval,
    complete_within interval,
    CONSTRAINT flow_kind_inherits_check CHECK ((inherits = ANY (ARRAY['last'::text, 'first'::text]))),
    CONSTRAINT flow_kind_resend_check CHECK ((resend = ANY (ARRAY['safe'::text, 'look_up'::text, 'person'::text]))),
    CONSTRAINT flow_kind_resend_update_check CHECK ((resend_update = ANY (ARRAY['safe'::text, 'look_up'::text, 'person'::text])))
);

CREATE FUNCTION counterfoil.accept_kind(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text, p_reason text) RETURNS counterfoil.accepted[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_now    timestamptz := counterfoil.now();
  v_fresh  counterfoil.accept_request[];
  v_placed counterfoil.placed_request[];
  v_births counterfoil.move_request[];
  v_born   counterfoil.move_result[] := '{}';
  v_taken  counterfoil.accepted[];
begin
  v_fresh := array(
    select q.request
    from (select unnest(p_requests) as request, unnest(counterfoil.ids_of(p_flow, array(select r.key from unnest(p_requests) r))) as id) q
    where q.id is null);
  if cardinality(v_fresh) > 0 then
    v_placed := counterfoil.place(p_flow, p_kind, v_fresh);
    v_births := counterfoil.births_of(p_kind, v_placed, v_now);
    perform counterfoil.open_cases_for(p_flow, v_births, '{}');
    v_born := counterfoil.give_birth(p_flow, v_births, p_actor, p_reason, v_now);
    if p_kind.resend <> 'record' then
      insert into counterfoil.content (flow, item_id, payload, sha256, file, handed_in_at)
      select p_flow, m.id, (p.request).payload, p.sha256, (p.request).file, v_now
      from unnest(v_placed) p join unnest(v_born) m on m.key = (p.request).key;
      perform counterfoil.expect(p_flow, p_kind, array(select m.id from unnest(v_born) m), v_now);
      perform counterfoil.find_orphans(p_flow, p_kind, array(select m.id from unnest(v_born) m), v_now);
    end if;
  end if;
  v_taken := array(select row(m.key, m.id, m.to_state, 'new')::counterfoil.accepted from unnest(v_born) m);
  if cardinality(v_born) < cardinality(p_requests) then  -- known already, or another session was faster
    v_taken := v_taken || counterfoil.accept_known(p_flow, p_kind,
      array(select r from unnest(p_requests) r where r.key not in (select m.key from unnest(v_born) m)), p_actor, v_now);
  end if;
  return v_taken;
end $$;

CREATE FUNCTION counterfoil.accept_known(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text, p_now timestamp with time zone) RETURNS counterfoil.accepted[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_ids     bigint[] := counterfoil.ids_of(p_flow, array(select r.key from unnest(p_requests) r));
  v_placed  counterfoil.placed_request[] := '{}';
  v_items   bigint[];
  v_missing bigint[];
begin
  if p_kind.resend <> 'record' then
    perform 1 from (select u.id from unnest(v_ids) as u (id) order by u.id) u cross join lateral (
      select 1 from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0 for update) l;
    -- Those that differ: only these are placed, since a parent they name must exist. What was missing is placed as it is handed in now.
    v_placed := counterfoil.place(p_flow, p_kind, array(
      select row(r.key, r.kind, r.payload, r.parent_key,
        case when c.sha256 is null then coalesce(r.group_key, i.group_key) else coalesce(i.group_key, r.group_key) end,
        r.lane, r.file, r.due_at, r.receipt)::counterfoil.accept_request
      from (select unnest(p_requests) as request, unnest(v_ids) as id) q cross join lateral (select (q.request).*) r
      cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = q.id offset 0) i
      left join lateral (select o.sha256 from counterfoil.content o where o.flow = p_flow and o.item_id = q.id offset 0) c on true
      where i.kind = p_kind.kind and i.state not in ('TRANSFERRED', 'ARCHIVED', 'CANCELLED', 'SUPERSEDED')
        and (p_kind.updates or i.fault = 'missing' and c.sha256 is null)
        and c.sha256 is distinct from encode(sha256(convert_to(r.payload || coalesce(r.file::text, ''), 'UTF8')), 'hex')));
  end if;
  if cardinality(v_placed) > 0 then
    v_items := counterfoil.ids_of(p_flow, array(select (p.request).key from unnest(v_placed) p));
    v_missing := counterfoil.revise_content(p_flow, v_items, v_placed, p_now);
    perform counterfoil.move_items(p_flow, array(
      select counterfoil.request(case when r.receipt is not null and q.id = any (v_missing) then 'confirm' else 'revise' end, p_id => q.id,
        p_receipt => case when q.id = any (v_missing) then r.receipt end, p_not_before => r.due_at)
      from (select unnest(v_items) as id, unnest(v_placed) as placed) q cross join lateral (select ((q.placed).request).*) r),
      p_actor, 'newer content was handed in');
    perform counterfoil.expect(p_flow, p_kind, v_missing, p_now);
    perform counterfoil.find_orphans(p_flow, p_kind, v_items, p_now);
  end if;
  return array(
    select row(i.key, i.id, i.state, case when i.id = any (v_items) then 'revised' else 'known' end)::counterfoil.accepted
    from unnest(v_ids) as u (id) cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i);
end $$;

CREATE FUNCTION counterfoil.adopt(p_flow text, p_children bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_kind    counterfoil.flow_kind;
  v_some    bigint[];
  v_adopted bigint[] := '{}';
begin
  for v_kind in select k.* from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind is not null loop
    v_some := array(
      select i.id from unnest(p_children) as u (id)
      cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
      where i.kind = v_kind.kind and i.parent_id is null and i.group_key is not null
        and (i.state = 'WAITING' or i.state = 'PERMANENT_ERROR' and i.fault = 'parent_late' or i.state = 'QUEUED' and v_kind.stand_in is null)
      order by i.id);
    continue when cardinality(v_some) = 0;
    perform counterfoil.lock_groups(p_flow, array(select i.group_key from unnest(v_some) as u (id)
      cross join lateral (select o.group_key from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i));
    perform 1 from unnest(v_some) as u (id) cross join lateral (
      select 1 from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0 for update) l;
    with found as materialized (
      select a.id, a.parent from unnest(v_some, counterfoil.find_parents(p_flow, v_kind, null, array(
        select i.group_key from unnest(v_some) with ordinality as u (id, place)
        cross join lateral (select o.group_key from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i order by u.place)))
        as a (id, parent) where a.parent is not null
    ), adopted as (
      update counterfoil.item i set parent_id = f.parent from found f
      cross join lateral (select o.ctid as place from counterfoil.item o where o.flow = p_flow and o.id = f.id offset 0) x
      where i.ctid = x.place and i.parent_id is null and i.state in ('WAITING', 'QUEUED', 'PERMANENT_ERROR') returning i.id)
    select v_adopted || coalesce(array_agg(a.id), '{}') into v_adopted from adopted a;
  end loop;
  return v_adopted;
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

CREATE FUNCTION counterfoil.births_of(p_kind counterfoil.flow_kind, p_placed counterfoil.placed_request[], p_now timestamp with time zone) RETURNS counterfoil.move_request[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select array(
    select counterfoil.request(case e.how when 'wait' then 'hold' else e.how end, p_key => r.key, p_receipt => r.receipt, p_kind => r.kind,
      p_group_key => r.group_key, p_parent_id => p.parent_id, p_lane => r.lane, p_not_before => r.due_at,
      p_next_action_at => case e.how when 'wait' then greatest(p_now + p_kind.parent_wait, r.due_at) when 'hold' then r.due_at end,
      p_fault => case when e.how = 'fail' then 'parent_failed' end,
      p_problem => case when e.how = 'fail' then counterfoil.stopped_problem(p.parent_key, p.parent_state, p.parent_problem) end,
      p_case_fault => case when e.how = 'fail' then p.parent_case_fault end,
      p_payload => case when p_kind.resend = 'record' then nullif(r.payload, 'null') end,
      p_reason => case when e.how = 'wait' then 'its parent has no receipt yet' end)
    from unnest(p_placed) p cross join lateral (select (p.request).*) r
    cross join lateral (select case
      when r.receipt is not null then 'confirm'
      when p_kind.parent_kind is not null and p.parent_receipt is null and counterfoil.is_stopped(p.parent_state) then 'fail'
      when p_kind.parent_kind is not null and p.parent_receipt is null and (p.parent_id is not null or p_kind.stand_in is null) then 'wait'
      when r.due_at > p_now then 'hold'
      else 'accept' end as how) e)
$$;

CREATE FUNCTION counterfoil.case_of(p_flow text, p_request counterfoil.move_request) RETURNS bigint
    LANGUAGE sql STABLE
    AS $$
  select c.id from counterfoil."case" c where c.flow = p_flow and c.closed_at is null
    and c.fault = coalesce((p_request).case_fault, (p_request).fault, (p_request).event)
$$;

CREATE FUNCTION counterfoil.claim_deliveries(p_flow text, p_lane text, p_limit integer, p_lease interval, p_worker bigint, p_after bigint DEFAULT 0) RETURNS TABLE(id bigint, key text, kind text, group_key text, attempt_id uuid, attempts integer, first_failed_at timestamp with time zone, doubt_at timestamp with time zone, receipt text, accepted_at timestamp with time zone, fault text, problem text, parent_id bigint, parent_key text, parent_state text, parent_receipt text, parent_payload text, payload text, file jsonb, rendered jsonb, version integer, turned_to bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.claim_these(p_flow text, p_ids bigint[], p_lease interval, p_worker bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if cardinality(p_ids) > 0 then
    perform counterfoil.move_items(p_flow,
      array(select counterfoil.request('claim', p_id => u.id, p_next_action_at => counterfoil.now() + p_lease, p_attempt_id => gen_random_uuid())
        from unnest(p_ids) as u (id)), 'worker ' || p_worker, null, p_worker);
  end if;
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

CREATE FUNCTION counterfoil.count_results(p_flow text, p_moved counterfoil.move_result[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select counterfoil.count_moves(p_flow, array_agg(s.state), array_agg(s.n))
  from (select m.to_state, count(*) from unnest(p_moved) m where m.moved group by m.to_state
        union all  -- NEW counts upwards: it says how many were ever accepted
        select m.from_state, case m.from_state when 'NEW' then 1 else -1 end * count(*) from unnest(p_moved) m where m.moved group by m.from_state
       ) as s (state, n) having count(*) > 0
$$;

CREATE FUNCTION counterfoil.expect(p_flow text, p_kind counterfoil.flow_kind, p_new bigint[], p_now timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  insert into counterfoil.expectation (flow, item_id, due_at)
  select p_flow, u.id, p_now + p_kind.complete_within from unnest(p_new) as u (id) where p_kind.complete_within is not null on conflict do nothing
$$;

CREATE FUNCTION counterfoil.family_moves(p_flow text, p_children bigint[], p_now timestamp with time zone) RETURNS counterfoil.move_request[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
  perform counterfoil.lock_parents(p_flow, p_children);
  return array(
    select case
      when h.free and c.not_before > p_now and c.state in ('WAITING', 'QUEUED') then counterfoil.request('hold', p_id => c.id,
        p_next_action_at => c.not_before, p_not_before => c.not_before, p_reason => 'held until its time')
      when h.free then counterfoil.request('release', p_id => c.id, p_reason => 'its parent has a receipt',
        p_not_before => case when c.not_before > p_now then c.not_before end)
      when h.stopped then counterfoil.request('fail', p_id => c.id, p_fault => 'parent_failed',
        p_problem => counterfoil.stopped_problem(p.key, p.state, p.problem), p_case_fault => h.case_fault, p_reason => 'its parent stopped')
      else counterfoil.request('hold', p_id => c.id, p_next_action_at => greatest(p_now + k.parent_wait, c.not_before),
        p_not_before => coalesce(c.not_before, p_now), p_reason => 'its parent has no receipt yet') end
    from unnest(p_children) as u (id)
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) c
    cross join lateral (select o.* from counterfoil.flow_kind o where o.flow = p_flow and o.kind = c.kind offset 0) k
    left join lateral (
      select o.*, (select s.fault from counterfoil."case" s where s.id = o.case_id) as case_fault
      from counterfoil.item o where o.flow = p_flow and o.id = c.parent_id offset 0) p on true
    left join lateral (select s.fault from counterfoil."case" s where s.id = c.case_id) own on true
    cross join lateral (select
      k.parent_kind is null or counterfoil.receipt_of(p.state, p.receipt, p.reference) is not null
        or c.parent_id is null and k.stand_in is not null as free,
      counterfoil.is_stopped(p.state) as stopped, coalesce(p.case_fault, 'parent_failed') as case_fault) h
    where case c.state
      when 'WAITING' then h.free and (c.not_before > p_now and c.next_action_at <> c.not_before or coalesce(c.not_before <= p_now, true))
        or not h.free and h.stopped
      when 'QUEUED' then not h.free or c.not_before > p_now
      when 'PERMANENT_ERROR' then h.free and k.parent_kind is not null and c.fault in ('parent_failed', 'parent_late')
        or not h.free and h.stopped and c.fault = 'parent_failed' and own.fault is distinct from h.case_fault end);
end $$;

CREATE FUNCTION counterfoil.find_orphans(p_flow text, p_kind counterfoil.flow_kind, p_parents bigint[], p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
declare
  v_children bigint[];
begin
  if not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind = p_kind.kind) then
    return;
  end if;
  v_children := array(
    select c.id from unnest(p_parents) as u (id)
    cross join lateral (select o.group_key from counterfoil.item o where o.flow = p_flow and o.id = u.id and o.group_key is not null offset 0) p
    cross join lateral (
      select o.id from counterfoil.item o
      where o.flow = p_flow and o.group_key between p.group_key and p.group_key and o.parent_id is null and o.group_key is not null
        and o.state in ('WAITING', 'PERMANENT_ERROR')
      order by o.group_key, o.id) c);
  if cardinality(v_children) > 0 then
    v_children := counterfoil.adopt(p_flow, v_children);
    perform counterfoil.move_items(p_flow, counterfoil.family_moves(p_flow, v_children, p_now), 'ledger') where cardinality(v_children) > 0;
  end if;
end $$;

CREATE FUNCTION counterfoil.find_parents(p_flow text, p_kind counterfoil.flow_kind, p_keys text[], p_groups text[]) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
begin
  return (
    select array_agg(coalesce(r.id, l.id, a.id, f.id) order by r.place)
    from unnest(p_keys, p_groups, counterfoil.ids_of(p_flow, p_keys)) with ordinality as r (key, group_key, id, place)
    left join lateral (
      select i.id from counterfoil.item i where i.flow = p_flow and i.kind = p_kind.parent_kind and i.group_key between r.group_key and r.group_key
      order by i.group_key desc, i.id desc limit 1) l on r.key is null and p_kind.inherits = 'last'
    left join lateral (
      select i.id from counterfoil.item i where i.flow = p_flow and i.kind = p_kind.parent_kind and i.group_key between r.group_key and r.group_key
        and counterfoil.receipt_of(i.state, i.receipt, i.reference) is not null
      order by i.group_key, i.id limit 1) a on r.key is null and p_kind.inherits = 'first'
    left join lateral (
      select i.id from counterfoil.item i where i.flow = p_flow and i.kind = p_kind.parent_kind and i.group_key between r.group_key and r.group_key
      order by i.group_key, i.id limit 1) f on r.key is null and p_kind.inherits = 'first' and a.id is null);
end $$;

CREATE FUNCTION counterfoil.follow_moves(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_now timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_parent_kinds text[] := array(select k.parent_kind from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind is not null);
  v_gone     bigint[];
  v_anew     bigint[];
  v_polled   bigint[];
  v_revised  bigint[];
  v_parents  bigint[];
  v_children bigint[];
  v_requests counterfoil.move_request[] := '{}';
begin
  select array_agg(j.item_id) filter (
      where j.from_state in ('ACCEPTED', 'SUCCESS', 'PERMANENT_ERROR') and j.to_state not in ('ACCEPTED', 'SUCCESS', 'PERMANENT_ERROR')),
    array_agg(j.item_id) filter (where j.event = 'regenerate'),
    array_agg(j.item_id) filter (where j.event in ('receive', 'reopen')),
    array_agg(j.item_id) filter (where j.renewed),
    array_agg(j.item_id) filter (
      where j.kind = any (v_parent_kinds) and (j.to_state in ('ACCEPTED', 'SUCCESS') or counterfoil.is_stopped(j.to_state) and not j.renewed)),
    array_agg(j.item_id) filter (where j.event in ('retry', 'release', 'revise', 'regenerate') and (p_actor <> 'ledger' or j.not_before is not null))
  into v_gone, v_anew, v_polled, v_revised, v_parents, v_children
  from (
    select x.item_id, x.from_state, x.to_state, x.kind, (x.request).event, (x.request).not_before,
      -- Content that was handed in while an older version was under way is sent as soon as that has arrived, or was refused.
      coalesce(x.version > x.sent_version, false) and x.from_state in ('IN_PROGRESS', 'IN_DOUBT')
        and x.to_state in ('ACCEPTED', 'SUCCESS', 'PERMANENT_ERROR', 'REJECTED') as renewed
    from unnest(p_judged) x where x.why = 'moved' and (x.request).event <> 'claim') j;
  if v_gone is not null then
    delete from counterfoil.poll p where p.ctid = any (array(select x.place from unnest(v_gone) as u (id) cross join lateral (
      select o.ctid as place from counterfoil.poll o where o.flow = p_flow and o.item_id = u.id offset 0) x));
  end if;
  if v_anew is not null then
    update counterfoil.content c set rendered = null from unnest(v_anew) as u (id) cross join lateral (
      select o.ctid as place from counterfoil.content o where o.flow = p_flow and o.item_id = u.id offset 0) x where c.ctid = x.place;
  end if;
  if v_polled is not null then
    insert into counterfoil.poll as p (flow, item_id, receipt, phase, next_poll_at)
    select p_flow, u.id, i.receipt, 'confirm', p_now + k.poll_first
    from (select s.id from unnest(v_polled) as s (id) order by s.id) u
    cross join lateral (select o.receipt, o.kind from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
    join counterfoil.flow_kind k on k.flow = p_flow and k.kind = i.kind
    where i.receipt is not null and k.poll_first is not null
    on conflict (flow, item_id) do update set receipt = excluded.receipt, phase = 'confirm', next_poll_at = excluded.next_poll_at,
      not_found = 0, keep_until = null, seen = case when p.receipt = excluded.receipt then p.seen end;
  end if;
  if v_revised is not null then
    v_requests := array(
      select counterfoil.request('revise', p_id => u.id, p_reason => 'newer content was handed in meanwhile') from unnest(v_revised) as u (id));
  end if;
  if v_children is not null then
    perform counterfoil.adopt(p_flow, v_children);
  end if;
  if v_parents is not null then
    v_children := v_children || array(
      select c.id from unnest(v_parents) as u (id) cross join lateral (
        select o.id from counterfoil.item o where o.parent_id = u.id and o.state in ('WAITING', 'PERMANENT_ERROR') offset 0) c);
  end if;
  if cardinality(v_children) > 0 then
    v_requests := v_requests || counterfoil.family_moves(p_flow, v_children, p_now);
  end if;
  if cardinality(v_requests) > 0 then
    perform counterfoil.move_items(p_flow, v_requests, 'ledger');
  end if;
end $$;

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

CREATE FUNCTION counterfoil.ids_of(p_flow text, p_keys text[]) RETURNS bigint[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
begin
  return coalesce((
    select array_agg(i.id order by k.place) from unnest(p_keys) with ordinality as k (key, place) left join lateral (
      select o.id from counterfoil.item o where o.flow = p_flow and o.key between k.key and k.key order by o.key limit 1) i on true), '{}');
end $$;

CREATE FUNCTION counterfoil.is_owned(p_to_state text, p_event text, p_next_action_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
  select p_to_state in ('REVIEW', 'PERMANENT_ERROR') or p_to_state = 'IN_DOUBT' and p_event <> 'revise' and p_next_action_at is null
$$;

CREATE FUNCTION counterfoil.is_stopped(p_state text) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
  select p_state in ('PERMANENT_ERROR', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED')
$$;

CREATE FUNCTION counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) RETURNS counterfoil.judged_move[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.keep_rendered(p_flow text, p_ids bigint[], p_attempts uuid[], p_files jsonb[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_held bigint[];
begin
  v_held := array(
    select i.id from (select u.id, u.attempt_id from unnest(p_ids, p_attempts) as u (id, attempt_id) order by u.id) s
    cross join lateral (
      select o.id, o.attempts, o.version from counterfoil.item o
      where o.flow = p_flow and o.id = s.id and o.attempt_id = s.attempt_id offset 0 for share) i
    cross join lateral (select t.version from counterfoil.attempt t where t.flow = p_flow and t.item_id = i.id and t.number = i.attempts offset 0) a
    where a.version = i.version);
  update counterfoil.content c set rendered = s.file
  from unnest(p_ids, p_files) as s (id, file) cross join lateral (
    select o.ctid as place from counterfoil.content o where o.flow = p_flow and o.item_id = s.id and s.id = any (v_held) offset 0) x
  where c.ctid = x.place;
end $$;

CREATE FUNCTION counterfoil.kinds_of(p_flow text) RETURNS SETOF counterfoil.flow_kind
    LANGUAGE sql STABLE
    AS $$
  select k.* from counterfoil.flow_kind k where k.flow = p_flow
  union all
  select p_flow, 'record', 0::smallint, null, 'last', null, interval '7 days', 'record', 'record', interval '0', false, null, null
  where not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow)
$$;

CREATE FUNCTION counterfoil.live_workers() RETURNS SETOF bigint
    LANGUAGE sql
    AS $$
  select l.objid::bigint from pg_catalog.pg_locks l
  where l.locktype = 'advisory' and l.classid = 7246 and l.objsubid = 2 and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
$$;

CREATE FUNCTION counterfoil.lock_groups(p_flow text, p_groups text[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  insert into counterfoil.group_lock (flow, group_key)
  select distinct p_flow, u.group_key from unnest(p_groups) as u (group_key) where u.group_key is not null order by u.group_key
  on conflict (flow, group_key) do update set group_key = excluded.group_key where false
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
    select u.id from unnest(counterfoil.ids_of(p_flow, array(select r.key from unnest(p_requests) r where r.id is null))) as u (id)
    where u.id is not null order by 1);
begin
  perform 1 from unnest(v_ids) as u (id) cross join lateral (
    select 1 from counterfoil.item i where i.flow = p_flow and i.id = u.id offset 0 for update) l;
end $$;

CREATE FUNCTION counterfoil.lock_parents(p_flow text, p_children bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_parents bigint[] := array(
    select distinct i.parent_id from unnest(p_children) as u (id)
    cross join lateral (select o.parent_id from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) i
    where i.parent_id is not null order by i.parent_id);
begin
  perform 1 from unnest(v_parents) as u (id) cross join lateral (
    select 1 from counterfoil.item i
    where i.flow = p_flow and i.id = u.id and counterfoil.receipt_of(i.state, i.receipt, i.reference) is null offset 0 for share) l;
end $$;

CREATE FUNCTION counterfoil.lonely_groups(p_flow text, p_requests counterfoil.accept_request[]) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_ids     bigint[] := counterfoil.ids_of(p_flow, array(select case when r.group_key is null then r.key end from unnest(p_requests) r));
  v_parents text[] := array(select k.parent_kind from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind is not null);
  v_kind    counterfoil.flow_kind;
  v_some    text[];
  v_groups  text[] := '{}';
begin
  for v_kind in select k.* from counterfoil.flow_kind k where k.flow = p_flow loop
    v_some := array(
      select distinct coalesce((q.request).group_key, i.group_key)
      from (select unnest(p_requests) as request, unnest(v_ids) as id) q
      left join lateral (select o.group_key from counterfoil.item o where o.flow = p_flow and o.id = q.id offset 0) i on true
      where (q.request).kind = v_kind.kind and coalesce((q.request).group_key, i.group_key) is not null
        and (v_kind.kind = any (v_parents) or (q.request).parent_key is null));
    if v_kind.kind = any (v_parents) then
      v_groups := v_groups || v_some;
    elsif v_kind.parent_kind is not null and v_kind.stand_in is null and cardinality(v_some) > 0 then
      v_groups := v_groups || array(
        select u.group_key from unnest(v_some, counterfoil.find_parents(p_flow, v_kind, null, v_some)) as u (group_key, parent)
        where u.parent is null);
    end if;
  end loop;
  return v_groups;
end $$;

CREATE FUNCTION counterfoil.mark_sending(p_flow text, p_ids bigint[], p_attempts uuid[]) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint, p_now timestamp with time zone) RETURNS counterfoil.move_result[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.need_flow(p_flow text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if not exists (select 1 from counterfoil.flow where name = p_flow) then
    raise exception 'flow "%" is not registered', p_flow using errcode = 'CF002',
      hint = 'Run "counterfoil migrate" in the project folder; it registers the flows it finds.';
  end if;
end $$;

CREATE FUNCTION counterfoil.next_due(p_flow text, p_lane text, p_limit integer, p_after bigint, OUT ids bigint[], OUT turned_to bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.note_exchanges(p_flow text, p_exchanges counterfoil.exchange_row[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  insert into counterfoil.exchange (at, flow, item_id, call_id, attempt_id, kind, method, address, status, outcome, took_ms, sent_bytes, sent_sha256,
    got_bytes, got_sha256, request, reply, fault)
  select e.at, p_flow, e.item_id, e.call_id, e.attempt_id, e.kind, e.method, e.address, e.status, e.outcome, e.took_ms, e.sent_bytes, e.sent_sha256,
    e.got_bytes, e.got_sha256, e.request, e.reply, e.fault
  from unnest(p_exchanges) e
$$;

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

CREATE FUNCTION counterfoil.place(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[]) RETURNS counterfoil.placed_request[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_parents bigint[];
  v_locks   bigint[];
  v_bad     record;
begin
  if p_kind.parent_kind is not null or exists (select 1 from unnest(p_requests) r where r.parent_key is not null) then
    v_parents := counterfoil.find_parents(p_flow, p_kind, array(select r.parent_key from unnest(p_requests) r),
      array(select r.group_key from unnest(p_requests) r));
    v_locks := array(select distinct u.id from unnest(v_parents) as u (id) where u.id is not null and p_kind.parent_kind is not null order by u.id);
    perform 1 from unnest(v_locks) as u (id) cross join lateral (
      select 1 from counterfoil.item i
      where i.flow = p_flow and i.id = u.id and counterfoil.receipt_of(i.state, i.receipt, i.reference) is null offset 0 for share) l;
    select r.key, r.parent_key, i.kind into v_bad
    from unnest(array(select r.key from unnest(p_requests) r), array(select r.parent_key from unnest(p_requests) r), v_parents)
      as r (key, parent_key, parent_id)
    left join lateral (select o.kind from counterfoil.item o where o.flow = p_flow and o.id = r.parent_id offset 0) i on true
    where r.parent_key is not null and (r.parent_id is null or i.kind <> p_kind.parent_kind) limit 1;
    if found then
      raise exception '%', format('"%s" names the parent "%s", which is ', v_bad.key, v_bad.parent_key) || case when v_bad.kind is null
          then format('no item of flow "%s"', p_flow) else format('a "%s"; a "%s" belongs to a "%s"', v_bad.kind, p_kind.kind, p_kind.parent_kind) end
        using errcode = 'CF003', hint = case when v_bad.kind is null then 'Accept the parent first.' else 'Name a parent of that kind.' end;
    end if;
  end if;
  return array(
    select row(q.request, encode(sha256(convert_to((q.request).payload || coalesce((q.request).file::text, ''), 'UTF8')), 'hex'),
      p.id, p.key, p.state, p.problem, counterfoil.receipt_of(p.state, p.receipt, p.reference), p.case_fault)::counterfoil.placed_request
    from (select unnest(p_requests) as request, generate_series(1, cardinality(p_requests)) as place) q
    left join lateral (
      select o.id, o.key, o.state, o.problem, o.receipt, o.reference,
        (select c.fault from counterfoil."case" c where c.id = o.case_id) as case_fault
      from counterfoil.item o where o.flow = p_flow and o.id = v_parents[q.place] offset 0) p on true);
end $$;

CREATE FUNCTION counterfoil.receipt_of(p_state text, p_receipt text, p_reference text) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  select coalesce(p_receipt, case when p_state = 'TRANSFERRED' then p_reference end)
$$;

CREATE FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) RETURNS SETOF uuid
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  update counterfoil.item set next_action_at = counterfoil.now() + p_lease
  where flow = p_flow and state = 'IN_PROGRESS' and settled_at is null and attempt_id = any (p_attempts)
  returning attempt_id
$$;

CREATE FUNCTION counterfoil.request(p_event text, p_id bigint DEFAULT NULL::bigint, p_key text DEFAULT NULL::text, p_next_action_at timestamp with time zone DEFAULT NULL::timestamp with time zone, p_fault text DEFAULT NULL::text, p_problem text DEFAULT NULL::text, p_attempt_id uuid DEFAULT NULL::uuid, p_payload text DEFAULT NULL::text, p_reference text DEFAULT NULL::text, p_receipt text DEFAULT NULL::text, p_case_fault text DEFAULT NULL::text, p_doubtful boolean DEFAULT NULL::boolean, p_kind text DEFAULT NULL::text, p_group_key text DEFAULT NULL::text, p_parent_id bigint DEFAULT NULL::bigint, p_lane text DEFAULT NULL::text, p_not_before timestamp with time zone DEFAULT NULL::timestamp with time zone, p_reason text DEFAULT NULL::text) RETURNS counterfoil.move_request
    LANGUAGE sql IMMUTABLE
    AS $$
  select row(p_id, p_key, p_event, p_next_action_at, p_fault, p_problem, p_attempt_id, null, p_payload, null, p_reference, null, p_receipt,
    p_case_fault, p_doubtful, p_kind, p_group_key, p_parent_id, p_lane, p_not_before, p_reason)::counterfoil.move_request
$$;

CREATE FUNCTION counterfoil.requeue_items(p_flow text, p_faults text[], p_accepted_since timestamp with time zone, p_limit integer, p_actor text, p_reason text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer DEFAULT 1000) RETURNS TABLE(rescued bigint, failed bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.revise_content(p_flow text, p_items bigint[], p_placed counterfoil.placed_request[], p_now timestamp with time zone) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  v_missing bigint[];
begin
  with written as (
    insert into counterfoil.content as c (flow, item_id, payload, sha256, file, handed_in_at)
    select p_flow, q.id, ((q.placed).request).payload, (q.placed).sha256, ((q.placed).request).file, p_now
    from (select unnest(p_items) as id, unnest(p_placed) as placed) q
    on conflict (flow, item_id) do update set payload = excluded.payload, sha256 = excluded.sha256, file = excluded.file, rendered = null,
      handed_in_at = excluded.handed_in_at
    returning c.item_id, xmax = 0 as missing
  )
  select coalesce(array_agg(w.item_id) filter (where w.missing), '{}') into v_missing from written w;
  update counterfoil.item i set version = i.version + 1, parent_id = coalesce(i.parent_id, nullif((q.placed).parent_id, i.id)),
    group_key = ((q.placed).request).group_key, lane = case when i.id = any (v_missing) then ((q.placed).request).lane else i.lane end
  from (select unnest(p_items) as id, unnest(p_placed) as placed) q cross join lateral (
    select o.ctid as place from counterfoil.item o where o.flow = p_flow and o.id = q.id offset 0) x
  where i.ctid = x.place;
  return v_missing;
end $$;

CREATE FUNCTION counterfoil.settle_deliveries(p_flow text, p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_worker bigint) RETURNS SETOF counterfoil.move_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
begin
  perform counterfoil.note_exchanges(p_flow, p_exchanges);
  return query select m.* from counterfoil.move_items(p_flow, p_requests, 'worker ' || p_worker, null, p_worker) m;
end $$;

CREATE FUNCTION counterfoil.settle_polls(p_flow text, p_results counterfoil.poll_result[], p_steps counterfoil.step_row[], p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_actor text) RETURNS SETOF counterfoil.move_result
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  v_now    timestamptz := counterfoil.now();
  v_ids    bigint[];
  v_polled bigint[];
begin
  perform counterfoil.note_exchanges(p_flow, p_exchanges);
  perform counterfoil.lock_items(p_flow, p_requests);
  v_ids := array(
    select r.item_id from unnest(p_results) r union select s.item_id from unnest(p_steps) s union select q.id from unnest(p_requests) q
    order by 1);
  v_polled := array(select p.item_id from unnest(v_ids) as u (id) cross join lateral (
    select o.item_id from counterfoil.poll o where o.flow = p_flow and o.item_id = u.id offset 0 for update) p);
  insert into counterfoil.item_step (at, flow, item_id, step, status, started_at, ended_at, error)
  select v_now, p_flow, s.item_id, s.step, s.status, s.started_at, s.ended_at, s.error
  from unnest(p_steps) with ordinality as s (item_id, step, status, started_at, ended_at, error, place)
  where s.item_id in (select u.id from unnest(v_polled) as u (id)) order by s.place;
  if cardinality(p_requests) > 0 then
    return query select m.* from counterfoil.move_items(p_flow,
      array(select q from unnest(p_requests) q where q.id in (select u.id from unnest(v_polled) as u (id))), p_actor) m;
  end if;
  update counterfoil.poll p set next_poll_at = r.next_poll_at, phase = coalesce(r.phase, p.phase), keep_until = coalesce(r.keep_until, p.keep_until),
    polled_at = case when r.answered then v_now else p.polled_at end, status = coalesce(r.status, p.status), seen = coalesce(r.seen, p.seen),
    not_found = coalesce(r.not_found, 0)
  from unnest(p_results) r cross join lateral (
    select o.ctid as place from counterfoil.poll o where o.flow = p_flow and o.item_id = r.item_id and r.next_poll_at is not null offset 0) x
  where p.ctid = x.place;
  if exists (select 1 from unnest(p_results) r where r.next_poll_at is null) then
    delete from counterfoil.poll p where p.ctid = any (array(
      select x.place from unnest(p_results) r cross join lateral (
        select o.ctid as place from counterfoil.poll o where o.flow = p_flow and o.item_id = r.item_id and r.next_poll_at is null offset 0) x));
  end if;
end $$;

CREATE FUNCTION counterfoil.stopped_problem(p_key text, p_state text, p_problem text) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  select format('Its parent %s stopped: %s', p_key,
    case when p_state = 'PERMANENT_ERROR' and p_problem is not null then p_problem else lower(p_state) end)
$$;

CREATE FUNCTION counterfoil.wake_items(p_flow text, p_limit integer DEFAULT 1000) RETURNS TABLE(released bigint, failed bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
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

CREATE FUNCTION counterfoil.with_kinds(p_flow text, p_requests counterfoil.accept_request[]) RETURNS counterfoil.accept_request[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  v_kinds   text[] := array(select k.kind from counterfoil.kinds_of(p_flow) k order by k.position);
  v_updated text[] := array(select k.kind from counterfoil.flow_kind k where k.flow = p_flow and k.updates);
  v_sync    boolean := not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow);
  v_bad     counterfoil.accept_request;
begin
  perform counterfoil.need_flow(p_flow);
  if exists (select 1 from unnest(p_requests) r where coalesce(r.key, '') = '') then
    raise exception 'an item needs a key' using errcode = 'CF003', hint = 'Give the business key that is unique in the flow.';
  end if;
  select r.* into v_bad from unnest(p_requests) r
  where coalesce(r.kind, case when cardinality(v_kinds) = 1 then v_kinds[1] end) is null or coalesce(r.kind, v_kinds[1]) <> all (v_kinds) limit 1;
  if found then
    raise exception '%', case when v_bad.kind is null then format('item "%s" names no kind, and flow "%s" has several', v_bad.key, p_flow)
        else format('flow "%s" has no kind "%s" (item "%s")', p_flow, v_bad.kind, v_bad.key) end
      using errcode = 'CF006', hint = format('Kinds: %s.', array_to_string(v_kinds, ', '));
  end if;
  select r.* into v_bad from unnest(p_requests) r where r.lane not in ('live', 'bulk') limit 1;
  if found then
    raise exception 'there is no lane "%" (item "%")', v_bad.lane, v_bad.key using errcode = 'CF006', hint = 'Lanes: live, bulk.';
  end if;
  return array(
    select distinct on (r.key) row(r.key, coalesce(r.kind, v_kinds[1]), coalesce(r.payload, 'null'), r.parent_key, r.group_key,
      case when v_sync then 'live' else coalesce(r.lane, 'live') end, r.file, r.due_at, r.receipt)::counterfoil.accept_request
    from unnest(p_requests) with ordinality as r (key, kind, payload, parent_key, group_key, lane, file, due_at, receipt, place)
    order by r.key, case when coalesce(r.kind, v_kinds[1]) = any (v_updated) then -r.place else r.place end);
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
    lease_until timestamp with time zone NOT NULL,
    sent_at timestamp with time zone,
    version integer
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

CREATE TABLE counterfoil.content (
    flow text NOT NULL,
    item_id bigint NOT NULL,
    payload text NOT NULL,
    sha256 text NOT NULL,
    file jsonb,
    rendered jsonb,
    handed_in_at timestamp with time zone NOT NULL
);

CREATE TABLE counterfoil.exchange (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    flow text NOT NULL,
    item_id bigint,
    call_id bigint,
    attempt_id uuid,
    kind text NOT NULL,
    method text NOT NULL,
    address text NOT NULL,
    status smallint,
    outcome text NOT NULL,
    took_ms integer NOT NULL,
    sent_bytes bigint NOT NULL,
    sent_sha256 text,
    got_bytes bigint NOT NULL,
    got_sha256 text,
    request text,
    reply text,
    fault text,
    CONSTRAINT exchange_kind_check CHECK ((kind = ANY (ARRAY['send'::text, 'look_up'::text, 'poll'::text, 'relay'::text])))
);

ALTER TABLE counterfoil.exchange ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.exchange_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.expectation (
    flow text NOT NULL,
    item_id bigint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    checked_at timestamp with time zone,
    expected integer,
    missing integer
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

CREATE TABLE counterfoil.group_lock (
    flow text NOT NULL,
    group_key text NOT NULL
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
    kind text DEFAULT 'record'::text NOT NULL,
    group_key text,
    lane text DEFAULT 'live'::text NOT NULL,
    receipt text,
    receipt_at timestamp with time zone,
    doubt_at timestamp with time zone,
    not_before timestamp with time zone,
    version integer DEFAULT 1 NOT NULL,
    sent_version integer,
    CONSTRAINT item_accounted_for CHECK (((settled_at IS NOT NULL) OR (next_action_at IS NOT NULL) OR (case_id IS NOT NULL))),
    CONSTRAINT item_claimed CHECK (((attempt_id IS NOT NULL) = (state = 'IN_PROGRESS'::text))),
    CONSTRAINT item_due CHECK (((next_action_at IS NOT NULL) OR (state <> ALL (ARRAY['WAITING'::text, 'QUEUED'::text, 'IN_PROGRESS'::text, 'TEMPORARY_ERROR'::text, 'ACCEPTED'::text])))),
    CONSTRAINT item_in_one_place CHECK ((num_nonnulls(settled_at, next_action_at, case_id) = 1)),
    CONSTRAINT item_lane_check CHECK ((lane = ANY (ARRAY['live'::text, 'bulk'::text]))),
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

CREATE TABLE counterfoil.item_step (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    flow text NOT NULL,
    item_id bigint NOT NULL,
    step text NOT NULL,
    status text NOT NULL,
    started_at timestamp with time zone,
    ended_at timestamp with time zone,
    error text
);

ALTER TABLE counterfoil.item_step ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.item_step_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE counterfoil.migration (
    number integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE counterfoil.poll (
    flow text NOT NULL,
    item_id bigint NOT NULL,
    receipt text NOT NULL,
    phase text NOT NULL,
    next_poll_at timestamp with time zone NOT NULL,
    polled_at timestamp with time zone,
    keep_until timestamp with time zone,
    status text,
    seen text,
    not_found smallint DEFAULT 0 NOT NULL,
    CONSTRAINT poll_phase_check CHECK ((phase = ANY (ARRAY['confirm'::text, 'late'::text, 'recheck'::text])))
);

CREATE TABLE counterfoil.reader_flow (
    reader text NOT NULL,
    flow text NOT NULL
);

CREATE TABLE counterfoil.relay_call (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    flow text NOT NULL,
    operation text,
    caller text,
    method text NOT NULL,
    path text NOT NULL,
    fingerprint text,
    request_bytes bigint DEFAULT 0 NOT NULL,
    status smallint,
    outcome text,
    reply text,
    problem text
);

ALTER TABLE counterfoil.relay_call ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME counterfoil.relay_call_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
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
    name text DEFAULT 'run'::text NOT NULL,
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
    ADD CONSTRAINT attempt_pkey PRIMARY KEY (flow, item_id, number);

ALTER TABLE ONLY counterfoil."case"
    ADD CONSTRAINT case_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.content
    ADD CONSTRAINT content_pkey PRIMARY KEY (flow, item_id);

ALTER TABLE ONLY counterfoil.exchange
    ADD CONSTRAINT exchange_pkey PRIMARY KEY (id, at);

ALTER TABLE ONLY counterfoil.expectation
    ADD CONSTRAINT expectation_pkey PRIMARY KEY (flow, item_id);

ALTER TABLE ONLY counterfoil.flow_kind
    ADD CONSTRAINT flow_kind_pkey PRIMARY KEY (flow, kind);

ALTER TABLE ONLY counterfoil.flow
    ADD CONSTRAINT flow_pkey PRIMARY KEY (name);

ALTER TABLE ONLY counterfoil.gate
    ADD CONSTRAINT gate_pkey PRIMARY KEY (name);

ALTER TABLE ONLY counterfoil.group_lock
    ADD CONSTRAINT group_lock_pkey PRIMARY KEY (flow, group_key);

ALTER TABLE ONLY counterfoil.item_count
    ADD CONSTRAINT item_count_pkey PRIMARY KEY (flow, state, shard);

ALTER TABLE ONLY counterfoil.item_event
    ADD CONSTRAINT item_event_pkey PRIMARY KEY (flow, item_id, id, at);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_flow_key_key UNIQUE (flow, key);

ALTER TABLE ONLY counterfoil.item_move
    ADD CONSTRAINT item_move_from_state_event_to_state_key UNIQUE (from_state, event, to_state);

ALTER TABLE ONLY counterfoil.item_move
    ADD CONSTRAINT item_move_pkey PRIMARY KEY (from_state, event);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_pkey PRIMARY KEY (flow, id);

ALTER TABLE ONLY counterfoil.item_step
    ADD CONSTRAINT item_step_pkey PRIMARY KEY (flow, item_id, id);

ALTER TABLE ONLY counterfoil.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);

ALTER TABLE ONLY counterfoil.poll
    ADD CONSTRAINT poll_pkey PRIMARY KEY (flow, item_id);

ALTER TABLE ONLY counterfoil.reader_flow
    ADD CONSTRAINT reader_flow_pkey PRIMARY KEY (reader, flow);

ALTER TABLE ONLY counterfoil.relay_call
    ADD CONSTRAINT relay_call_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.run_fault
    ADD CONSTRAINT run_fault_pkey PRIMARY KEY (run_id, outcome, fault);

ALTER TABLE ONLY counterfoil.run_key
    ADD CONSTRAINT run_key_pkey PRIMARY KEY (run_id, key);

ALTER TABLE ONLY counterfoil.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (flow, name);

ALTER TABLE ONLY counterfoil.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counterfoil.write_back
    ADD CONSTRAINT write_back_pkey PRIMARY KEY (run_id, key);

CREATE UNIQUE INDEX case_one_open ON counterfoil."case" USING btree (flow, fault) WHERE (closed_at IS NULL);

CREATE INDEX case_open_due ON counterfoil."case" USING btree (due_at) WHERE (closed_at IS NULL);

CREATE INDEX exchange_call ON counterfoil.exchange USING btree (call_id) WHERE (call_id IS NOT NULL);

CREATE INDEX exchange_item ON counterfoil.exchange USING btree (flow, item_id, id) WHERE (item_id IS NOT NULL);

CREATE INDEX expectation_due ON counterfoil.expectation USING btree (flow, due_at) WHERE (checked_at IS NULL);

CREATE INDEX item_case ON counterfoil.item USING btree (case_id, id) WHERE (case_id IS NOT NULL);

CREATE INDEX item_children ON counterfoil.item USING btree (flow, parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX item_claim ON counterfoil.item USING btree (flow, lane, next_action_at, id) WHERE ((state = ANY (ARRAY['QUEUED'::text, 'TEMPORARY_ERROR'::text, 'IN_DOUBT'::text])) AND (next_action_at IS NOT NULL));

CREATE INDEX item_deadline ON counterfoil.item USING btree (flow, next_action_at, id) WHERE (state = ANY (ARRAY['WAITING'::text, 'ACCEPTED'::text]));

CREATE INDEX item_family ON counterfoil.item USING btree (flow, lane, COALESCE(parent_id, id), next_action_at) WHERE ((state = ANY (ARRAY['QUEUED'::text, 'TEMPORARY_ERROR'::text, 'IN_DOUBT'::text])) AND (next_action_at IS NOT NULL));

CREATE INDEX item_group ON counterfoil.item USING btree (flow, group_key, kind, id) WHERE (group_key IS NOT NULL);

CREATE INDEX item_held ON counterfoil.item USING btree (parent_id, id) WHERE ((parent_id IS NOT NULL) AND (state = ANY (ARRAY['WAITING'::text, 'PERMANENT_ERROR'::text])));

CREATE INDEX item_id ON counterfoil.item USING btree (id);

CREATE INDEX item_orphan ON counterfoil.item USING btree (flow, group_key, id) WHERE ((parent_id IS NULL) AND (group_key IS NOT NULL) AND (state = ANY (ARRAY['WAITING'::text, 'PERMANENT_ERROR'::text])));

CREATE INDEX item_receipt ON counterfoil.item USING btree (receipt) WHERE (receipt IS NOT NULL);

CREATE INDEX item_unfinished ON counterfoil.item USING btree (flow, state, accepted_at, id) WHERE (settled_at IS NULL);

CREATE INDEX poll_due ON counterfoil.poll USING btree (flow, next_poll_at, item_id);

CREATE INDEX relay_call_listing ON counterfoil.relay_call USING btree (flow, id DESC);

CREATE INDEX relay_call_same ON counterfoil.relay_call USING btree (flow, fingerprint, id DESC) WHERE (fingerprint IS NOT NULL);

CREATE INDEX run_due ON counterfoil.run USING btree (next_action_at) WHERE (ended_at IS NULL);

CREATE UNIQUE INDEX run_fired_once ON counterfoil.run USING btree (flow, fired_for) WHERE (fired_for IS NOT NULL);

CREATE INDEX run_key_open ON counterfoil.run_key USING btree (run_id, n) WHERE (NOT done);

CREATE INDEX run_listing ON counterfoil.run USING btree (flow, id DESC);

CREATE UNIQUE INDEX run_one_open ON counterfoil.run USING btree (flow) WHERE (ended_at IS NULL);

ALTER TABLE ONLY counterfoil."case"
    ADD CONSTRAINT case_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.flow_kind
    ADD CONSTRAINT flow_kind_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_case_id_fkey FOREIGN KEY (case_id) REFERENCES counterfoil."case"(id);

ALTER TABLE ONLY counterfoil.item_event
    ADD CONSTRAINT item_event_from_state_event_to_state_fkey FOREIGN KEY (from_state, event, to_state) REFERENCES counterfoil.item_move(from_state, event, to_state);

ALTER TABLE ONLY counterfoil.item
    ADD CONSTRAINT item_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

ALTER TABLE ONLY counterfoil.relay_call
    ADD CONSTRAINT relay_call_flow_fkey FOREIGN KEY (flow) REFERENCES counterfoil.flow(name);

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

CREATE POLICY app_all ON counterfoil.content TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.exchange TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.expectation TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.flow TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.flow_kind TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item_count TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item_event TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.item_step TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.poll TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.relay_call TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.run TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.run_fault TO counterfoil_app USING (true) WITH CHECK (true);

CREATE POLICY app_all ON counterfoil.schedule TO counterfoil_app USING (true) WITH CHECK (true);

ALTER TABLE counterfoil.attempt ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil."case" ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.content ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.exchange ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.expectation ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.flow ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.flow_kind ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item_count ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.item_step ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.poll ENABLE ROW LEVEL SECURITY;

CREATE POLICY reader_flows ON counterfoil.attempt FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil."case" FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.content FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.exchange FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.expectation FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.flow FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(name));

CREATE POLICY reader_flows ON counterfoil.flow_kind FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item_count FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item_event FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.item_step FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.poll FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.relay_call FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.run FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

CREATE POLICY reader_flows ON counterfoil.run_fault FOR SELECT TO counterfoil_reader USING ((EXISTS ( SELECT 1
   FROM counterfoil.run r
  WHERE ((r.id = run_fault.run_id) AND counterfoil.may_read(r.flow)))));

CREATE POLICY reader_flows ON counterfoil.schedule FOR SELECT TO counterfoil_reader USING (counterfoil.may_read(flow));

ALTER TABLE counterfoil.relay_call ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.run ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.run_fault ENABLE ROW LEVEL SECURITY;

ALTER TABLE counterfoil.schedule ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA counterfoil TO counterfoil_app;
GRANT USAGE ON SCHEMA counterfoil TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb, p_parent_key text, p_kind text, p_group text, p_file jsonb, p_lane text, p_due_at timestamp with time zone, p_receipt text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.accept(p_flow text, p_key text, p_payload jsonb, p_parent_key text, p_kind text, p_group text, p_file jsonb, p_lane text, p_due_at timestamp with time zone, p_receipt text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.accept_items(p_flow text, p_requests counterfoil.accept_request[], p_actor text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.accept_items(p_flow text, p_requests counterfoil.accept_request[], p_actor text, p_reason text) TO counterfoil_app;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE counterfoil.flow_kind TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.flow_kind TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.accept_kind(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.accept_known(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.adopt(p_flow text, p_children bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.births(p_requests counterfoil.move_request[], p_judged counterfoil.judged_move[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.births_of(p_kind counterfoil.flow_kind, p_placed counterfoil.placed_request[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.case_of(p_flow text, p_request counterfoil.move_request) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.claim_deliveries(p_flow text, p_lane text, p_limit integer, p_lease interval, p_worker bigint, p_after bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.claim_deliveries(p_flow text, p_lane text, p_limit integer, p_lease interval, p_worker bigint, p_after bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.claim_items(p_flow text, p_limit integer, p_lease interval, p_worker bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.claim_these(p_flow text, p_ids bigint[], p_lease interval, p_worker bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.close_flow_cases(p_flow text, p_fault_prefix text, p_who text, p_why text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.count_cases(p_cases bigint[], p_deltas bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.count_moves(p_flow text, p_states text[], p_deltas bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.count_results(p_flow text, p_moved counterfoil.move_result[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.expect(p_flow text, p_kind counterfoil.flow_kind, p_new bigint[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.family_moves(p_flow text, p_children bigint[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.find_orphans(p_flow text, p_kind counterfoil.flow_kind, p_parents bigint[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.find_parents(p_flow text, p_kind counterfoil.flow_kind, p_keys text[], p_groups text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.follow_moves(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.give_birth(p_flow text, p_births counterfoil.move_request[], p_actor text, p_reason text, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.ids_of(p_flow text, p_keys text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.ids_of(p_flow text, p_keys text[]) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.is_owned(p_to_state text, p_event text, p_next_action_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.is_stopped(p_state text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.judge_moves(p_flow text, p_requests counterfoil.move_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.keep_rendered(p_flow text, p_ids bigint[], p_attempts uuid[], p_files jsonb[]) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.keep_rendered(p_flow text, p_ids bigint[], p_attempts uuid[], p_files jsonb[]) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.kinds_of(p_flow text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.live_workers() FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.live_workers() TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.live_workers() TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.lock_groups(p_flow text, p_groups text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.lock_items(p_flow text, p_requests counterfoil.move_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.lock_parents(p_flow text, p_children bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.lonely_groups(p_flow text, p_requests counterfoil.accept_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.mark_sending(p_flow text, p_ids bigint[], p_attempts uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.mark_sending(p_flow text, p_ids bigint[], p_attempts uuid[]) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.may_read(p_flow text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.may_read(p_flow text) TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_reference text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.move(p_flow text, p_key text, p_event text, p_reason text, p_actor text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_reference text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.move_existing(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_reason text, p_worker bigint, p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.move_items(p_flow text, p_requests counterfoil.move_request[], p_actor text, p_reason text, p_worker bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.need_flow(p_flow text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.next_due(p_flow text, p_lane text, p_limit integer, p_after bigint, OUT ids bigint[], OUT turned_to bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.note_exchanges(p_flow text, p_exchanges counterfoil.exchange_row[]) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.note_exchanges(p_flow text, p_exchanges counterfoil.exchange_row[]) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.now() FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.now() TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.now() TO counterfoil_reader;

REVOKE ALL ON FUNCTION counterfoil.open_cases(p_flow text, p_faults text[], p_titles text[], p_leaving bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.open_cases_for(p_flow text, p_births counterfoil.move_request[], p_judged counterfoil.judged_move[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.open_flow_case(p_flow text, p_fault text, p_title text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.place(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.receipt_of(p_state text, p_receipt text, p_reference text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.renew_items(p_flow text, p_attempts uuid[], p_lease interval) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.request(p_event text, p_id bigint, p_key text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_payload text, p_reference text, p_receipt text, p_case_fault text, p_doubtful boolean, p_kind text, p_group_key text, p_parent_id bigint, p_lane text, p_not_before timestamp with time zone, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.request(p_event text, p_id bigint, p_key text, p_next_action_at timestamp with time zone, p_fault text, p_problem text, p_attempt_id uuid, p_payload text, p_reference text, p_receipt text, p_case_fault text, p_doubtful boolean, p_kind text, p_group_key text, p_parent_id bigint, p_lane text, p_not_before timestamp with time zone, p_reason text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.requeue_items(p_flow text, p_faults text[], p_accepted_since timestamp with time zone, p_limit integer, p_actor text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.requeue_items(p_flow text, p_faults text[], p_accepted_since timestamp with time zone, p_limit integer, p_actor text, p_reason text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.rescue_items(p_flow text, p_crashes integer, p_limit integer) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.revise_content(p_flow text, p_items bigint[], p_placed counterfoil.placed_request[], p_now timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.settle_deliveries(p_flow text, p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.settle_deliveries(p_flow text, p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_worker bigint) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.settle_polls(p_flow text, p_results counterfoil.poll_result[], p_steps counterfoil.step_row[], p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.settle_polls(p_flow text, p_results counterfoil.poll_result[], p_steps counterfoil.step_row[], p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_actor text) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.stopped_problem(p_key text, p_state text, p_problem text) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.wake_items(p_flow text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.wake_items(p_flow text, p_limit integer) TO counterfoil_app;

REVOKE ALL ON FUNCTION counterfoil.with_kinds(p_flow text, p_requests counterfoil.accept_request[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) TO counterfoil_app;
GRANT ALL ON FUNCTION counterfoil.worker_alive(p_worker bigint) TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.attempt TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.attempt TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil."case" TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil."case" TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.content TO counterfoil_app;

GRANT SELECT ON TABLE counterfoil.exchange TO counterfoil_app;

GRANT SELECT(id) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(at) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(flow) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(item_id) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(call_id) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(attempt_id) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(kind) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(method) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(address) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(status) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(outcome) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(took_ms) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(sent_bytes) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(sent_sha256) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(got_bytes) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(got_sha256) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT(fault) ON TABLE counterfoil.exchange TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.expectation TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.expectation TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.flow TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.flow TO counterfoil_reader;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.gate TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.gate TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.group_lock TO counterfoil_app;

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

GRANT SELECT(kind) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(group_key) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(lane) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(receipt) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(receipt_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(doubt_at) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(not_before) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(version) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT(sent_version) ON TABLE counterfoil.item TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_count TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_count TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_event TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_event TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_move TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_move TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.item_step TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.item_step TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.migration TO counterfoil_app;

GRANT SELECT ON TABLE counterfoil.poll TO counterfoil_app;
GRANT SELECT ON TABLE counterfoil.poll TO counterfoil_reader;

GRANT SELECT ON TABLE counterfoil.reader_flow TO counterfoil_app;

GRANT SELECT,INSERT,UPDATE ON TABLE counterfoil.relay_call TO counterfoil_app;

GRANT SELECT(id) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(at) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(ended_at) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(flow) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(operation) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(caller) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(method) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(path) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(fingerprint) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(request_bytes) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(status) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(outcome) ON TABLE counterfoil.relay_call TO counterfoil_reader;

GRANT SELECT(problem) ON TABLE counterfoil.relay_call TO counterfoil_reader;

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
