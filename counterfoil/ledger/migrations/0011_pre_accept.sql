-- Taking items in, inside the caller's own transaction: the same key twice is one item; children wait for their parent; newer content of a
-- kind that is updated is sent again.
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
  kind           counterfoil.flow_kind,
  sha256         text,
  parent_id      bigint,
  parent_key     text,
  parent_state   text,
  parent_fault   text,
  parent_problem text,
  parent_receipt text
);

-- Kinds as declared. A flow that declares none (a sync) has the one kind `record`, which waits for nothing and keeps its payload in the item.
create function counterfoil.kinds_of(p_flow text) returns setof counterfoil.flow_kind language sql stable as $$
  select k.* from counterfoil.flow_kind k where k.flow = p_flow
  union all
  select p_flow, 'record', 0::smallint, null, 'last', null, interval '7 days', 'record', 'record', interval '0', false, null, null
  where not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow)
$$;

-- Each request has a key, and a kind that the flow declares; where it declares one only, the kind may be left out.
create function counterfoil.with_kinds(p_flow text, p_requests counterfoil.accept_request[]) returns counterfoil.accept_request[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v_kinds text[] := array(select k.kind from counterfoil.kinds_of(p_flow) k order by k.position);
  v_bad   counterfoil.accept_request;
begin
  if exists (select 1 from unnest(p_requests) r where coalesce(r.key, '') = '') then
    raise exception 'an item needs a key' using errcode = 'CF003', hint = 'Give the business key that is unique in the flow.';
  end if;
  select r.* into v_bad from unnest(p_requests) r
  where coalesce(r.kind, case when cardinality(v_kinds) = 1 then v_kinds[1] end) is null or coalesce(r.kind, v_kinds[1]) <> all (v_kinds) limit 1;
  if found then
    raise exception 'flow "%" has no kind "%" (item "%")', p_flow, coalesce(v_bad.kind, ''), v_bad.key
      using errcode = 'CF006', hint = format('Kinds: %s.', array_to_string(v_kinds, ', '));
  end if;
  return array(
    select row(r.key, coalesce(r.kind, v_kinds[1]), coalesce(r.payload, 'null'), r.parent_key, r.group_key, coalesce(r.lane, 'live'), r.file,
      r.due_at, r.receipt)::counterfoil.accept_request
    from unnest(p_requests) r);
end $$;

-- Where requests of one kind belong: the parent they name, else the one their group has. Parents are locked, so that a receipt which
-- comes at this moment is either seen here or sees the child.
create function counterfoil.place(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[])
returns counterfoil.placed_request[] language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_orphan text;
  v_ids    bigint[];
begin
  select r.key || '" names the parent "' || r.parent_key into v_orphan from unnest(p_requests) r
  left join lateral (select o.id from counterfoil.item o where o.flow = p_flow and o.key = r.parent_key offset 0) i on true
  where r.parent_key is not null and i.id is null limit 1;
  if found then
    raise exception '"%", which is no item of flow "%"', v_orphan, p_flow using errcode = 'CF003', hint = 'Accept the parent first.';
  end if;
  v_ids := array(
    select counterfoil.parent_of(p_flow, p_kind, r.parent_key, r.group_key) from unnest(p_requests) r
    where r.parent_key is not null or p_kind.parent_kind is not null and r.group_key is not null);
  perform 1 from (select distinct u.id from unnest(v_ids) as u (id) where u.id is not null order by u.id) u cross join lateral (
    select 1 from counterfoil.item i where i.flow = p_flow and i.id = u.id offset 0 for share) l;
  return array(
    select row(r, p_kind, encode(sha256(convert_to(r.payload || coalesce(r.file::text, ''), 'UTF8')), 'hex'), p.id, p.key, p.state, p.fault,
      p.problem, coalesce(p.receipt, p.reference))::counterfoil.placed_request
    from unnest(p_requests) r
    left join lateral (
      select o.* from counterfoil.item o where o.flow = p_flow and o.id = case
        when r.parent_key is not null or p_kind.parent_kind is not null and r.group_key is not null
        then counterfoil.parent_of(p_flow, p_kind, r.parent_key, r.group_key) end offset 0) p on true);
end $$;

create function counterfoil.parent_of(p_flow text, p_kind counterfoil.flow_kind, p_parent_key text, p_group_key text) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
  if p_parent_key is not null then
    return (select i.id from counterfoil.item i where i.flow = p_flow and i.key = p_parent_key);
  elsif p_kind.inherits = 'first' then  -- the first one that arrived, else the first one there is
    return coalesce(
      (select i.id from counterfoil.item i where i.flow = p_flow and i.group_key = p_group_key and i.kind = p_kind.parent_kind
         and coalesce(i.receipt, i.reference) is not null order by i.id limit 1),
      (select i.id from counterfoil.item i where i.flow = p_flow and i.group_key = p_group_key and i.kind = p_kind.parent_kind order by i.id limit 1));
  end if;
  return (select i.id from counterfoil.item i where i.flow = p_flow and i.group_key = p_group_key and i.kind = p_kind.parent_kind
    order by i.id desc limit 1);
end $$;

-- How a new item begins.
create function counterfoil.birth_of(p_placed counterfoil.placed_request) returns counterfoil.move_request
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  v       counterfoil.accept_request := p_placed.request;
  v_wait  timestamptz := counterfoil.now() + (p_placed.kind).parent_wait;
  v_event text := 'accept';
  v_at    timestamptz;
begin
  if v.receipt is not null then
    v_event := 'confirm';
  elsif p_placed.parent_id is not null and p_placed.parent_receipt is null
    and p_placed.parent_state in ('PERMANENT_ERROR', 'ARCHIVED', 'CANCELLED', 'REJECTED') then
    return counterfoil.request('fail', p_key => v.key, p_fault => 'parent_failed',
      p_problem => format('Its parent %s stopped: %s', p_placed.parent_key, coalesce(p_placed.parent_problem, lower(p_placed.parent_state))),
      p_case_fault => case when p_placed.parent_state = 'PERMANENT_ERROR' then p_placed.parent_fault end,
      p_kind => v.kind, p_group_key => v.group_key, p_parent_id => p_placed.parent_id, p_lane => v.lane, p_not_before => v.due_at);
  elsif p_placed.parent_id is not null and p_placed.parent_receipt is null
    or p_placed.parent_id is null and (p_placed.kind).parent_kind is not null and (p_placed.kind).stand_in is null then
    v_event := 'hold';
    v_at := greatest(v_wait, v.due_at);
  elsif v.due_at > counterfoil.now() then
    v_event := 'hold';
    v_at := v.due_at;
  end if;
  return counterfoil.request(v_event, p_key => v.key, p_next_action_at => v_at, p_receipt => v.receipt, p_kind => v.kind,
    p_group_key => v.group_key, p_parent_id => p_placed.parent_id, p_lane => v.lane, p_not_before => v.due_at,
    p_payload => case when (p_placed.kind).resend = 'record' then nullif(v.payload, 'null') end);
end $$;

-- Many at once. One row for each request, in no particular order.
create function counterfoil.accept_items(p_flow text, p_requests counterfoil.accept_request[], p_actor text default session_user,
  p_reason text default null)
returns setof counterfoil.accepted
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
  v_requests counterfoil.accept_request[] := counterfoil.with_kinds(p_flow, p_requests);
  v_kind     counterfoil.flow_kind;
begin
  for v_kind in
    select k.* from counterfoil.kinds_of(p_flow) k where k.kind in (select r.kind from unnest(v_requests) r) order by k.position
  loop
    return query select a.* from counterfoil.accept_kind(p_flow, v_kind,
      array(select distinct on (r.key) r from unnest(v_requests) r where r.kind = v_kind.kind order by r.key), p_actor, p_reason) a;
  end loop;
end $$;

create function counterfoil.accept_kind(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text, p_reason text)
returns setof counterfoil.accepted language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_fresh  counterfoil.accept_request[];
  v_placed counterfoil.placed_request[];
  v_moved  counterfoil.move_result[] := '{}';
  v_new    bigint[];
begin
  v_fresh := array(
    select r from unnest(p_requests) r
    left join lateral (select o.id from counterfoil.item o where o.flow = p_flow and o.key = r.key offset 0) i on true where i.id is null);
  if cardinality(v_fresh) > 0 then
    v_placed := counterfoil.place(p_flow, p_kind, v_fresh);
    v_moved := array(select m from counterfoil.move_items(p_flow, array(select counterfoil.birth_of(p) from unnest(v_placed) p), p_actor, p_reason) m
      where m.from_state = 'NEW');
    insert into counterfoil.content (flow, item_id, payload, sha256, file, handed_in_at)
    select p_flow, m.id, (p.request).payload, p.sha256, (p.request).file, counterfoil.now()
    from unnest(v_placed) p join unnest(v_moved) m on m.key = (p.request).key where p_kind.resend <> 'record';
    v_new := array(select m.id from unnest(v_moved) m);
    perform counterfoil.begin_family(p_flow, p_kind, v_new);
    return query select m.key, m.id, m.to_state, 'new' from unnest(v_moved) m;
  end if;
  if cardinality(v_moved) < cardinality(p_requests) then
    return query select a.* from counterfoil.accept_known(p_flow, p_kind,
      array(select r from unnest(p_requests) r where r.key not in (select m.key from unnest(v_moved) m)), p_actor) a;
  end if;
end $$;

-- What a new item of a parent's kind means for others: orphans of its group have a parent now; what it expects is looked for in time.
create function counterfoil.begin_family(p_flow text, p_kind counterfoil.flow_kind, p_new bigint[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_adopted counterfoil.move_request[];
begin
  if p_kind.complete_within is not null then
    insert into counterfoil.expectation (flow, item_id, due_at)
    select p_flow, u.id, counterfoil.now() + p_kind.complete_within from unnest(p_new) as u (id) on conflict do nothing;
  end if;
  if not exists (select 1 from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind = p_kind.kind) then
    return;
  end if;
  with adopted as (
    update counterfoil.item c set parent_id = p.id
    from unnest(p_new) as u (id)
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0) p
    where c.flow = p_flow and c.group_key = p.group_key and c.state = 'WAITING' and c.parent_id is null
      and c.kind in (select k.kind from counterfoil.flow_kind k where k.flow = p_flow and k.parent_kind = p_kind.kind)
    returning c.id, p.receipt, case when c.not_before > counterfoil.now() then c.not_before end as not_before
  )
  select array_agg(counterfoil.request('release', p_id => a.id, p_next_action_at => a.not_before)) into v_adopted
  from adopted a where a.receipt is not null;
  if cardinality(v_adopted) > 0 then
    perform counterfoil.move_items(p_flow, v_adopted, 'ledger', 'its parent has a receipt');
  end if;
end $$;

-- Keys that are items already. Newer content counts where the kind is updated, and where the item was only expected so far.
create function counterfoil.accept_known(p_flow text, p_kind counterfoil.flow_kind, p_requests counterfoil.accept_request[], p_actor text)
returns setof counterfoil.accepted language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  v_placed counterfoil.placed_request[];
  v_moves  counterfoil.move_request[];
begin
  perform 1 from (select i.id from unnest(p_requests) r cross join lateral (
      select o.id from counterfoil.item o where o.flow = p_flow and o.key = r.key offset 0) i order by i.id) u
  cross join lateral (select 1 from counterfoil.item o where o.flow = p_flow and o.id = u.id offset 0 for update) l;
  -- Those that differ: only these are placed, since a parent they name must exist.
  v_placed := counterfoil.place(p_flow, p_kind, array(
    select r from unnest(p_requests) r
    cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.key = r.key offset 0) i
    left join counterfoil.content c on c.flow = p_flow and c.item_id = i.id
    where i.kind = p_kind.kind and i.state not in ('TRANSFERRED', 'ARCHIVED', 'CANCELLED', 'SUPERSEDED')
      and (p_kind.updates or i.fault = 'missing' and c.item_id is null)
      and c.sha256 is distinct from encode(sha256(convert_to(r.payload || coalesce(r.file::text, ''), 'UTF8')), 'hex')));
  if cardinality(v_placed) > 0 then
    insert into counterfoil.content as c (flow, item_id, payload, sha256, file, handed_in_at)
    select p_flow, i.id, (p.request).payload, p.sha256, (p.request).file, counterfoil.now()
    from unnest(v_placed) p cross join lateral (
      select o.id from counterfoil.item o where o.flow = p_flow and o.key = (p.request).key offset 0) i
    on conflict (flow, item_id) do update set payload = excluded.payload, sha256 = excluded.sha256, file = excluded.file, rendered = null,
      handed_in_at = excluded.handed_in_at;
    update counterfoil.item i set version = i.version + 1, parent_id = coalesce(i.parent_id, p.parent_id), group_key = coalesce((p.request).group_key, i.group_key)
    from unnest(v_placed) p cross join lateral (
      select o.ctid as place from counterfoil.item o where o.flow = p_flow and o.key = (p.request).key offset 0) x
    where i.ctid = x.place;
    v_moves := array(select counterfoil.request('revise', p_key => (p.request).key) from unnest(v_placed) p);
    perform counterfoil.move_items(p_flow, v_moves, p_actor, 'newer content was handed in');
  end if;
  return query
  select i.key, i.id, i.state, case when i.key in (select (p.request).key from unnest(v_placed) p) then 'revised' else 'known' end
  from unnest(p_requests) r cross join lateral (select o.* from counterfoil.item o where o.flow = p_flow and o.key = r.key offset 0) i;
end $$;
