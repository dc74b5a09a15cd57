-- What follows from moves of deliveries, in the same transaction: parents and children, newer content, confirmation by polling.

-- One lock for each group, in order, whether its row is there or not.
create function counterfoil.lock_groups(p_flow text, p_groups text[]) returns void language sql set search_path = pg_catalog, pg_temp as $$
  insert into counterfoil.group_lock (flow, group_key)
  select distinct p_flow, u.group_key from unnest(p_groups) as u (group_key) where u.group_key is not null order by u.group_key
  on conflict (flow, group_key) do update set group_key = excluded.group_key where false
$$;

-- Groups in which somebody might be looked for whom another session is just handing in: those of parents, and of children that find none.
create function counterfoil.lonely_groups(p_flow text, p_requests counterfoil.accept_request[]) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Hold on to the parents of these children that have no receipt, so that one which comes at this moment is not missed.
create function counterfoil.lock_parents(p_flow text, p_children bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- What these children do now, as their parents stand. They go where those have a receipt; they share the case of a parent that stopped, and come
-- back from there; else they wait.
create function counterfoil.family_moves(p_flow text, p_children bigint[], p_now timestamptz) returns counterfoil.move_request[]
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Children that no parent was found for belong to the one their group has by now. Their groups are locked, as for those who hand in parents.
create function counterfoil.adopt(p_flow text, p_children bigint[]) returns bigint[]
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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

-- Orphans of the groups that these items are in have a parent now.
create function counterfoil.find_orphans(p_flow text, p_kind counterfoil.flow_kind, p_parents bigint[], p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
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

-- The parts that most moves don't need are not run. One call for all that follows: no lock on an item comes after the counters'.
create function counterfoil.follow_moves(p_flow text, p_judged counterfoil.judged_move[], p_actor text, p_now timestamptz) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
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
