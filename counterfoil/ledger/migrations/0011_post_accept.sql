-- Taking items in, inside the caller's own transaction: the same key twice is one item; children wait for their parent; newer content of a
-- kind that is updated is sent again. Locks: groups, then parents and items by id, cases, new keys in order, counters.
create type counterfoil.accept_request as (
  key        text,
  kind       text,               -- null where the flow has one kind only
  payload    text,               -- JSON
  parent_key text,
  group_key  text,
  lane       text,               -- live | bulk; null is live
  file       jsonb,              -- {name, type, size, sha256, object}
  due_at     timestamptz,        -- not before
  receipt    text                -- where the other side has it already
);

create type counterfoil.accepted as (
  key     text,
  id      bigint,
  state   text,
  outcome text                   -- new | known | revised
);

-- A request with everything the ledger knows about where it belongs.
create type counterfoil.placed_request as (
  request        counterfoil.accept_request,
  sha256         text,
  parent_id      bigint,
  parent_key     text,
  parent_state   text,
  parent_problem text,
  parent_receipt text,
  parent_case_fault text
);

-- Each request has a key, and a kind that the flow declares; where it declares one only, the kind may be left out. Of two with the same key the
-- first counts, of a kind that is updated the last. A sync has no lanes.
create function counterfoil.with_kinds(p_flow text, p_requests counterfoil.accept_request[]) returns counterfoil.accept_request[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
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

-- Which items requests of one kind belong to, one id (or null) for each in their order: the parent they name; else the newest in their group;
-- or, as the kind says, the first that has arrived, and if none has, the first there is. The order by group and id can come only from its index.
create function counterfoil.find_parents(p_flow text, p_kind counterfoil.flow_kind, p_keys text[], p_groups text[])
returns bigint[] language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
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

-- Requests of one kind with their parents as they stand. Those without a receipt are locked, so that one which comes at this moment is either
-- seen here or sees the child.
create function counterfoil.place(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[])
returns counterfoil.placed_request[] language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- What a new item expects beside it is looked for when its time has come.
create function counterfoil.expect(p_flow text, p_kind counterfoil.flow_kind, p_new bigint[], p_now timestamptz) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  insert into counterfoil.expectation (flow, item_id, due_at)
  select p_flow, u.id, p_now + p_kind.complete_within from unnest(p_new) as u (id) where p_kind.complete_within is not null on conflict do nothing
$$;

-- How new items of a kind begin.
create function counterfoil.births_of(p_kind counterfoil.flow_kind, p_placed counterfoil.placed_request[], p_now timestamptz)
returns counterfoil.move_request[] language sql stable set search_path = pg_catalog, pg_temp as $$
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

-- Many at once. One row for each key, in no particular order.
create function counterfoil.accept_items(p_flow text, p_requests counterfoil.accept_request[], p_actor text default session_user,
  p_reason text default null)
returns setof counterfoil.accepted
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
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

create function counterfoil.accept_kind(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text,
  p_reason text)
returns counterfoil.accepted[] language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Keys that are items already. Newer content counts where the kind is updated, and where the item was only expected so far.
create function counterfoil.accept_known(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text,
  p_now timestamptz)
returns counterfoil.accepted[] language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Newer content beside items that are locked. Returns those that had none: they were expected, and are handed in only now.
create function counterfoil.revise_content(p_flow text, p_items bigint[], p_placed counterfoil.placed_request[], p_now timestamptz) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

revoke all on all functions in schema counterfoil from public;
