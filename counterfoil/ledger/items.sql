-- name: move_items
-- $1 flow, $2 requests, $3 actor, $4 reason, $5 worker. The only door.
select id, key, from_state, to_state, moved, why
from counterfoil.move_items($1, $2::counterfoil.move_request[], $3, $4, $5);

-- name: accept_items
-- $1 flow, $2 requests, $3 actor, $4 reason. The same key twice is one item.
select key, id, state, outcome from counterfoil.accept_items($1, $2::counterfoil.accept_request[], $3, $4);

-- name: claim_items
-- $1 flow, $2 limit, $3 lease, $4 worker.
select * from counterfoil.claim_items($1, $2, $3, $4);

-- name: renew_items
-- $1 flow, $2 attempts, $3 lease. Returns the attempts that still hold their item.
select counterfoil.renew_items($1, $2::uuid[], $3);

-- name: rescue_items
-- $1 flow, $2 crashes after which a person must look, $3 limit.
select rescued, failed from counterfoil.rescue_items($1, $2, $3);

-- name: due_flows
-- Flows and lanes that have items to work on now.
select f.name as flow, l.lane from counterfoil.flow f cross join (values ('live'), ('bulk')) as l (lane)
where exists (
  select 1 from counterfoil.item i
  where i.flow = f.name and i.lane = l.lane and i.next_action_at <= counterfoil.now() and i.state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT'));

-- name: held_flows
-- Flows that have items whose attempt may be gone.
select f.name as flow from counterfoil.flow f
where exists (
  select 1 from counterfoil.item i
  left join lateral (
    select a.worker_id from counterfoil.attempt a where a.flow = i.flow and a.item_id = i.id and a.number = i.attempts offset 0) a on true
  where i.flow = f.name and i.state = 'IN_PROGRESS' and i.settled_at is null and (i.next_action_at <= counterfoil.now()
    or a.worker_id is not null and a.worker_id not in (select w from counterfoil.live_workers() w)));

-- name: waking_flows
-- Flows that have items held until a time that has come.
select f.name as flow from counterfoil.flow f
where exists (
  select 1 from counterfoil.item i where i.flow = f.name and i.state in ('WAITING', 'ACCEPTED') and i.next_action_at <= counterfoil.now());

-- name: wake_items
-- $1 flow, $2 limit.
select released, failed from counterfoil.wake_items($1, $2);

-- name: requeue_items
-- $1 flow, $2 fault words, $3 accepted since, $4 limit, $5 actor, $6 reason. Returns how many.
select counterfoil.requeue_items($1, $2, $3, $4, $5, $6);

-- name: known_items
-- $1 flow, $2 keys. What stands in the ledger about records of this chunk: one probe of the unique index for each key.
select i.key, i.state, i.released_sha256 from unnest(counterfoil.ids_of($1, $2)) as k (id) cross join lateral (
  select o.key, o.state, o.released_sha256 from counterfoil.item o where o.flow = $1 and o.id = k.id offset 0) i;

-- name: any_items
-- $1 flow. Whether the flow has any item at all: most syncs have none, and then no key is probed.
select (select i.key from counterfoil.item i where i.flow = $1 order by i.flow, i.key limit 1) is not null;

-- name: get_item
-- $1 flow or null, $2 key or null, $3 id or null, $4 receipt or null.
select i.*, c.title as case_title, c.owner as case_owner, c.due_at as case_due_at, p.key as parent_key, p.state as parent_state,
  coalesce(p.receipt, case when p.state = 'TRANSFERRED' then p.reference end) as parent_receipt
from (
  select i.* from counterfoil.item i where i.id = $3::bigint and ($1::text is null or i.flow = $1)
  union all  -- flow by flow, so that a key without a flow is a few probes and no scan
  select i.* from counterfoil.flow f cross join lateral unnest(counterfoil.ids_of(f.name, array[$2])) as k (id)
  join counterfoil.item i on i.flow = f.name and i.id = k.id
  where $3::bigint is null and ($1::text is null or f.name = $1)
  union all
  select i.* from counterfoil.item i where i.receipt = $4 and $3::bigint is null and ($1::text is null or i.flow = $1)
) i left join counterfoil."case" c on c.id = i.case_id
left join lateral (select o.key, o.state, o.receipt, o.reference from counterfoil.item o where o.flow = i.flow and o.id = i.parent_id offset 0) p on true
limit 2;

-- name: list_items
-- $1 flow, $2 state, $3 fault, $4 case, $5 unfinished only, $6 key prefix, $7 before (id), $8 limit, $9 kind. Newest first.
select i.id, i.flow, i.key, i.kind, i.group_key, i.parent_id, i.lane, i.state, i.state_since, i.accepted_at, i.settled_at, i.next_action_at, i.case_id,
  i.attempts, i.crashes, i.first_failed_at, i.fault, i.problem, i.run_id, i.receipt, i.doubt_at
from counterfoil.item i
where ($1::text is null or i.flow = $1) and ($2::text is null or i.state = $2) and ($3::text is null or i.fault = $3)
  and ($4::bigint is null or i.case_id = $4) and (not $5::boolean or i.settled_at is null)
  and (i.settled_at is null or $2 is null or $2 in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED'))
  and ($6::text is null or starts_with(i.key, $6)) and ($7::bigint is null or i.id < $7) and ($9::text is null or i.kind = $9)
order by i.id desc limit $8;

-- name: list_group
-- As list_items, and $10 group: flow by flow, so that a group without a flow is a few probes and no scan.
select i.id, i.flow, i.key, i.kind, i.group_key, i.parent_id, i.lane, i.state, i.state_since, i.accepted_at, i.settled_at, i.next_action_at, i.case_id,
  i.attempts, i.crashes, i.first_failed_at, i.fault, i.problem, i.run_id, i.receipt, i.doubt_at
from counterfoil.flow f cross join lateral (
  select o.* from counterfoil.item o where o.flow = f.name and o.group_key between $10::text and $10 order by o.group_key, o.kind, o.id) i
where ($1::text is null or f.name = $1) and ($2::text is null or i.state = $2) and ($3::text is null or i.fault = $3)
  and ($4::bigint is null or i.case_id = $4) and (not $5::boolean or i.settled_at is null) and ($6::text is null or starts_with(i.key, $6))
  and ($7::bigint is null or i.id < $7) and ($9::text is null or i.kind = $9)
order by i.id desc limit $8;

-- name: list_children
-- $1 flow, $2 item, $3 limit. In the order they were handed in.
select id, key, kind, state, receipt from counterfoil.item where flow = $1 and parent_id = $2 order by id limit $3;

-- name: list_events
-- $1 flow, $2 item. The whole story, oldest first.
select at, from_state, event, to_state, actor, reason, attempt_id, run_id, fault, problem, next_action_at
from counterfoil.item_event where flow = $1 and item_id = $2 order by id;

-- name: list_attempts
-- $1 flow, $2 item.
select a.id, a.number, a.started_at, a.lease_until, a.sent_at, a.worker_id, w.host, w.pid
from counterfoil.attempt a left join counterfoil.worker w on w.id = a.worker_id where a.flow = $1 and a.item_id = $2 order by a.number;

-- name: count_states
-- $1 flow or null. Exact, from the counters: never counts rows.
select flow, state, sum(items)::bigint as items from counterfoil.item_count
where ($1::text is null or flow = $1) group by flow, state having sum(items) <> 0 order by flow, state;
