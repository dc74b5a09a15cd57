-- name: sum_flows
-- $1 flow or null. The sum of the product from the counters, with the oldest of each kind: accepted = settled + due + owned.
with counted as (
  select flow,
    coalesce(sum(items) filter (where state = 'NEW'), 0)::bigint as accepted,
    coalesce(sum(items) filter (where state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED')), 0)::bigint as settled
  from counterfoil.item_count group by flow
)
select f.name as flow, f.watermark, coalesce(c.accepted, 0) as accepted, coalesce(c.settled, 0) as settled,
  coalesce(c.accepted, 0) - coalesce(c.settled, 0) - coalesce(o.owned, 0) as due, coalesce(o.owned, 0) as owned,
  d.oldest_due, w.oldest_owned, l.overdue, n.next_action_at
from counterfoil.flow f
left join counted c on c.flow = f.name
left join lateral (select sum(open_items)::bigint as owned from counterfoil."case" k where k.flow = f.name and k.closed_at is null) o on true
left join lateral (  -- one probe for each state
  select min(x.accepted_at) as oldest_due
  from unnest(array['WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'ACCEPTED', 'IN_DOUBT']) as s (state) cross join lateral (
    select i.accepted_at from counterfoil.item i where i.flow = f.name and i.state = s.state and i.settled_at is null
      and (s.state <> 'IN_DOUBT' or i.case_id is null) order by i.accepted_at, i.id limit 1) x) d on true
left join lateral (
  select min(x.accepted_at) as oldest_owned from unnest(array['REVIEW', 'PERMANENT_ERROR', 'IN_DOUBT']) as s (state) cross join lateral (
    select i.accepted_at from counterfoil.item i where i.flow = f.name and i.state = s.state and i.settled_at is null
      and (s.state <> 'IN_DOUBT' or i.case_id is not null) order by i.accepted_at, i.id limit 1) x) w on true
left join lateral (  -- a capped count: 10,001 means more than 10,000
  select (select count(*) from (
      select 1 from unnest(array['live', 'bulk']) as lanes (lane) cross join lateral (
        select 1 from counterfoil.item i where i.flow = f.name and i.lane = lanes.lane and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT')
          and i.next_action_at < counterfoil.now() - interval '15 minutes' limit 10001) q limit 10001) a)
    + (select count(*) from (
      select 1 from counterfoil.item i where i.flow = f.name and i.state in ('WAITING', 'ACCEPTED')
        and i.next_action_at < counterfoil.now() - interval '15 minutes' limit 10001) b)
    + (select count(*) from (
      select 1 from counterfoil.item i where i.flow = f.name and i.state = 'IN_PROGRESS' and i.settled_at is null
        and i.next_action_at < counterfoil.now() - interval '15 minutes' limit 10001) c) as overdue) l on true
left join lateral (
  select min(x.next_action_at) as next_action_at from (
    select q.next_action_at from unnest(array['live', 'bulk']) as lanes (lane) cross join lateral (
      select i.next_action_at from counterfoil.item i where i.flow = f.name and i.lane = lanes.lane
        and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and i.next_action_at is not null order by i.next_action_at, i.id limit 1) q
    union all
    (select i.next_action_at from counterfoil.item i where i.flow = f.name and i.state in ('WAITING', 'ACCEPTED')
     order by i.next_action_at, i.id limit 1)
    union all  -- what an attempt holds: its lease
    select min(i.next_action_at) from counterfoil.item i where i.flow = f.name and i.state = 'IN_PROGRESS' and i.settled_at is null) x) n on true
where $1::text is null or f.name = $1
order by f.name;

-- name: recount_flow
-- $1 flow. The same sum from the rows themselves, for the audit: reads all items of the flow.
select count(*) as accepted, count(*) filter (where settled_at is not null) as settled,
  count(*) filter (where next_action_at is not null) as due, count(*) filter (where case_id is not null) as owned,
  count(*) filter (where case_id is not null and not exists (
    select 1 from counterfoil."case" c where c.id = i.case_id and c.closed_at is null)) as owned_by_closed_case
from counterfoil.item i where i.flow = $1;

-- name: differing_counters
-- $1 flow. States whose counter and rows differ.
select state, coalesce(c.items, 0) as counted, coalesce(r.items, 0) as rows
from (select state, sum(items)::bigint as items from counterfoil.item_count where flow = $1 and state <> 'NEW' group by state) c
full join (select state, count(*) as items from counterfoil.item where flow = $1 group by state) r using (state)
where coalesce(c.items, 0) <> coalesce(r.items, 0);

-- name: broken_histories
-- $1 flow, $2 limit. Items whose last event does not lead to the state they are in, or whose events are no chain.
select i.id, i.key, i.state from counterfoil.item i
left join lateral (
  select bool_and(e.from_state = coalesce(e.before, 'NEW')) as chained, max(e.to_state) filter (where e.last) as ends_in
  from (select from_state, to_state, lag(to_state) over (order by id) as before, lead(id) over (order by id) is null as last
        from counterfoil.item_event where flow = i.flow and item_id = i.id) e) h on true
where i.flow = $1 and (h.chained is not true or h.ends_in is distinct from i.state)
limit $2;

-- name: differing_cases
-- $1 flow. Open cases whose number of items is not what their rows say.
select c.id, c.open_items, count(i.id) as rows from counterfoil."case" c
left join counterfoil.item i on i.case_id = c.id and i.flow = c.flow
where c.flow = $1 group by c.id, c.open_items having c.open_items <> count(i.id);

-- name: unbalanced_runs
-- $1 flow or null, $2 limit. Ended runs whose sum does not hold; the schema refuses them, so this proves the schema.
select id, flow, state, found from counterfoil.run
where state in ('completed', 'partial', 'empty') and ($1::text is null or flow = $1)
  and (found <> inserted + updated + unchanged + rejected + review + failed or listed <> found + duplicates) limit $2;

-- name: stale_runs
-- $1 flow or null. Runs called running that nobody works on: at once where no worker is left to take them over, else after a minute.
select id, flow, next_action_at from counterfoil.run
where state = 'running' and ($1::text is null or flow = $1) and not counterfoil.worker_alive(worker_id)
  and (next_action_at < counterfoil.now() - interval '1 minute' or not exists (select from counterfoil.live_workers()));

-- name: login_rights
-- Whether this login may take the role that all work is done in.
select session_user::text as login, r.role is not null as there, coalesce(pg_has_role(session_user, r.role, 'member'), false) as member
from (select to_regrole('counterfoil_app') as role) r;

-- name: server_facts
-- Version, size, clock, sessions.
select current_setting('server_version') as version, current_setting('server_version_num')::int as version_number,
  pg_database_size(current_database()) as database_bytes, clock_timestamp() as clock,
  (select count(*) from pg_stat_activity where datname = current_database()) as sessions, current_setting('max_connections')::int as max_sessions,
  current_user as role, session_user as login, pg_is_in_recovery() as standby;
