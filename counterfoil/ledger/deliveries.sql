-- name: claim_deliveries
-- $1 flow, $2 lane, $3 limit, $4 lease, $5 worker, $6 the last family that had its turn.
select * from counterfoil.claim_deliveries($1, $2, $3, $4, $5, $6);

-- name: mark_sending
-- $1 flow, $2 items, $3 attempts, side by side. Returns the attempts that still hold their item.
select counterfoil.mark_sending($1, $2::bigint[], $3::uuid[]);

-- name: keep_rendered
-- $1 flow, $2 items, $3 attempts, $4 files.
select counterfoil.keep_rendered($1, $2::bigint[], $3::uuid[], $4::jsonb[]);

-- name: settle_deliveries
-- $1 flow, $2 requests, $3 exchanges, $4 worker.
select id, key, from_state, to_state, moved, why
from counterfoil.settle_deliveries($1, $2::counterfoil.move_request[], $3::counterfoil.exchange_row[], $4);

-- name: note_exchanges
-- $1 flow, $2 exchanges.
select counterfoil.note_exchanges($1, $2::counterfoil.exchange_row[]);

-- name: list_exchanges
-- $1 flow, $2 item. Oldest first.
select at, attempt_id, kind, method, address, status, outcome, took_ms, sent_bytes, sent_sha256, got_bytes, got_sha256, request, reply, fault
from counterfoil.exchange where flow = $1 and item_id = $2 order by id;

-- name: list_steps
-- $1 flow, $2 item. Oldest first.
select at, step, status, started_at, ended_at, error from counterfoil.item_step where flow = $1 and item_id = $2 order by id;

-- name: get_content
-- $1 flow, $2 item.
select payload, sha256, file, rendered, handed_in_at from counterfoil.content where flow = $1 and item_id = $2;

-- name: due_expectations
-- $1 flow, $2 limit. Items whose group is to be looked at now, locked, with what they say.
select e.item_id, i.key, i.kind, i.group_key, c.payload from counterfoil.expectation e
join counterfoil.item i on i.flow = e.flow and i.id = e.item_id
left join counterfoil.content c on c.flow = e.flow and c.item_id = e.item_id
where e.flow = $1 and e.checked_at is null and e.due_at <= counterfoil.now()
order by e.due_at limit $2 for update of e skip locked;

-- name: known_keys
-- $1 flow, $2 keys. Those that are items.
select k.key from unnest($2::text[], counterfoil.ids_of($1, $2)) as k (key, id) where k.id is not null;

-- name: finish_expectations
-- $1 flow, $2 items, $3 expected, $4 missing, side by side.
update counterfoil.expectation e set checked_at = counterfoil.now(), expected = u.expected, missing = u.missing
from unnest($2::bigint[], $3::int[], $4::int[]) as u (id, expected, missing) where e.flow = $1 and e.item_id = u.id;

-- name: sum_expectations
-- $1 flow or null. How many groups were looked at, what they expected, what was missing then, and what is missing still.
select f.name as flow, e.waiting, e.checked, coalesce(e.expected, 0) as expected, coalesce(e.missing, 0) as missing_then, coalesce(m.missing, 0) as missing_now
from counterfoil.flow f
join lateral (
  select count(*) filter (where checked_at is null) as waiting, count(checked_at) as checked, sum(expected)::bigint as expected, sum(missing)::bigint as missing
  from counterfoil.expectation e where e.flow = f.name having count(*) > 0) e on true
left join lateral (select sum(k.open_items)::bigint as missing from counterfoil."case" k where k.flow = f.name and k.fault = 'missing' and k.closed_at is null) m on true
where $1::text is null or f.name = $1 order by f.name;

-- name: start_call
-- $1 flow, $2 operation, $3 caller, $4 method, $5 path, $6 fingerprint, $7 bytes.
insert into counterfoil.relay_call (at, flow, operation, caller, method, path, fingerprint, request_bytes)
values (counterfoil.now(), $1, $2, $3, $4, $5, $6, $7) returning id;

-- name: end_call
-- $1 call, $2 status, $3 outcome, $4 reply, $5 problem.
update counterfoil.relay_call set ended_at = counterfoil.now(), status = $2, outcome = $3, reply = $4, problem = $5 where id = $1;

-- name: same_call
-- $1 flow, $2 fingerprint, $3 not this call, $4 since. The newest call with the same content.
select id, status, outcome, reply, ended_at from counterfoil.relay_call
where flow = $1 and fingerprint = $2 and id < $3 and at >= $4 order by id desc limit 1;

-- name: hold_alone
-- $1 name. Until the end of the transaction: over all hosts only one has it.
select pg_advisory_xact_lock(7248, hashtext($1));

-- name: list_calls
-- $1 flow or null, $2 outcome or null, $3 limit. Newest first.
select id, at, ended_at, flow, operation, caller, method, path, request_bytes, status, outcome, problem from counterfoil.relay_call
where ($1::text is null or flow = $1) and ($2::text is null or outcome = $2) order by id desc limit $3;
