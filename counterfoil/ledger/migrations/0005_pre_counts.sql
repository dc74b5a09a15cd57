-- What is kept beside the items in the same transaction: counters by state, and cases with the number of items they own.

-- Counters, with deltas already summed: one row for each (flow, state) in this backend's own shard.
create function counterfoil.count_moves(p_flow text, p_states text[], p_deltas bigint[]) returns void language sql as $$
  insert into counterfoil.item_count as c (flow, state, shard, items)
  select p_flow, d.state, (pg_backend_pid() % 8)::smallint, sum(d.delta)
  from unnest(p_states, p_deltas) as d (state, delta)
  group by d.state having sum(d.delta) <> 0
  order by d.state
  on conflict (flow, state, shard) do update set items = c.items + excluded.items
$$;

-- Open cases for faults that need a person, one per flow and fault, and lock them together with those that will lose items, so that
-- nobody closes one before the caller's items are in it. Callers join by (flow, fault).
create function counterfoil.open_cases(p_flow text, p_faults text[], p_titles text[], p_leaving bigint[] default '{}') returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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

-- Cases gain and lose items; one that loses its last item is closed by the ledger itself. `open_cases` has locked them.
create function counterfoil.count_cases(p_cases bigint[], p_deltas bigint[]) returns void language sql as $$
  update counterfoil."case" c
  set open_items = c.open_items + d.delta,
      closed_at = case when c.open_items + d.delta = 0 then counterfoil.now() end,
      closed_by = case when c.open_items + d.delta = 0 then 'ledger' end,
      reason = case when c.open_items + d.delta = 0 then 'all its items went on or were settled' end
  from (select u.id, sum(u.delta) as delta from unnest(p_cases, p_deltas) as u (id, delta) group by u.id having sum(u.delta) <> 0) d
  where c.id = d.id
$$;
