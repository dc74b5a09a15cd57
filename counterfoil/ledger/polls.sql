-- name: due_polls
-- $1 flow, $2 limit. What is to be asked about now, the longest due first.
select item_id, receipt, phase, keep_until, seen, not_found from counterfoil.poll
where flow = $1 and next_poll_at <= counterfoil.now() order by next_poll_at, item_id limit $2;

-- name: polling_flows
-- Flows that have something to ask about now.
select f.name as flow from counterfoil.flow f
where exists (select 1 from counterfoil.poll p where p.flow = f.name and p.next_poll_at <= counterfoil.now());

-- name: settle_polls
-- $1 flow, $2 results, $3 steps, $4 requests, $5 exchanges, $6 actor.
select id, key, from_state, to_state, moved, why from counterfoil.settle_polls($1, $2::counterfoil.poll_result[], $3::counterfoil.step_row[],
  $4::counterfoil.move_request[], $5::counterfoil.exchange_row[], $6);

-- name: get_poll
-- $1 flow, $2 item.
select receipt, phase, next_poll_at, polled_at, keep_until, status, not_found from counterfoil.poll where flow = $1 and item_id = $2;

-- name: sum_polls
-- $1 flow or null. What waits for an answer, by phase, and the answer that is the longest overdue.
select f.name as flow, p.phase, p.items, p.oldest_due from counterfoil.flow f join lateral (
  select phase, count(*) as items, min(next_poll_at) as oldest_due from counterfoil.poll q where q.flow = f.name group by phase) p on true
where $1::text is null or f.name = $1 order by f.name, p.phase;
