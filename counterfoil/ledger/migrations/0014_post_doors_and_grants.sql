-- The last doors of deliveries (settling with its proof, files that were made, confirmation in bulk, a hand-in by other programs), and who may
-- open which.

-- Exchanges as they come from a worker; the proof is kept whatever becomes of the move.
create type counterfoil.exchange_row as (
  item_id bigint, call_id bigint, attempt_id uuid, at timestamptz, kind text, method text, address text, status smallint, outcome text,
  took_ms integer, sent_bytes bigint, sent_sha256 text, got_bytes bigint, got_sha256 text, request text, reply text, fault text
);

create function counterfoil.note_exchanges(p_flow text, p_exchanges counterfoil.exchange_row[]) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
  insert into counterfoil.exchange (at, flow, item_id, call_id, attempt_id, kind, method, address, status, outcome, took_ms, sent_bytes, sent_sha256,
    got_bytes, got_sha256, request, reply, fault)
  select e.at, p_flow, e.item_id, e.call_id, e.attempt_id, e.kind, e.method, e.address, e.status, e.outcome, e.took_ms, e.sent_bytes, e.sent_sha256,
    e.got_bytes, e.got_sha256, e.request, e.reply, e.fault
  from unnest(p_exchanges) e
$$;

-- Settle a slice: the proof, then the moves, in one statement.
create function counterfoil.settle_deliveries(p_flow text, p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[],
  p_worker bigint)
returns setof counterfoil.move_result language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
begin
  perform counterfoil.note_exchanges(p_flow, p_exchanges);
  return query select m.* from counterfoil.move_items(p_flow, p_requests, 'worker ' || p_worker, null, p_worker) m;
end $$;

-- A file that was made for an item is kept, so that a retry sends the same one: only of the attempt that has the item, and for the content
-- it was made from. The items are locked first, as those do who bring newer content.
create function counterfoil.keep_rendered(p_flow text, p_ids bigint[], p_attempts uuid[], p_files jsonb[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
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

-- Confirmation in bulk: a constant number of statements for each call, whatever its size.
create type counterfoil.poll_result as (
  item_id      bigint,
  next_poll_at timestamptz,      -- null: nothing more is asked
  phase        text,             -- confirm | late | recheck; null leaves it
  keep_until   timestamptz,
  answered     boolean,          -- whether the other side said anything of it
  status       text,
  seen         text,
  not_found    smallint
);

create type counterfoil.step_row as (
  item_id bigint, step text, status text, started_at timestamptz, ended_at timestamptz, error text
);

-- What one call found out; requests name their items by id. What has left meanwhile (it has no row in `poll` any more) is passed over: its steps,
-- its move, its row. Moves that are no longer legal are told and nothing else.
create function counterfoil.settle_polls(p_flow text, p_results counterfoil.poll_result[], p_steps counterfoil.step_row[],
  p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_actor text)
returns setof counterfoil.move_result language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
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

-- One item, for programs that share the database. Returns its id, also where the key was known. It takes the place of the one with four
-- parameters, so that a call by these goes on meaning the same.
drop function counterfoil.accept(text, text, jsonb, text);
create function counterfoil.accept(p_flow text, p_key text, p_payload jsonb default null, p_parent_key text default null,
  p_kind text default null, p_group text default null, p_file jsonb default null, p_lane text default null, p_due_at timestamptz default null,
  p_receipt text default null)
returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  return (select a.id from counterfoil.accept_items(p_flow,
    array[row(p_key, p_kind, p_payload::text, p_parent_key, p_group, p_lane, p_file, p_due_at, p_receipt)::counterfoil.accept_request],
    session_user::text) a);
end $$;

-- Least privilege for what deliveries added: content is never a reader's; the app writes it, exchanges and polls through functions only.
revoke all on all functions in schema counterfoil from public;
grant select on all tables in schema counterfoil to counterfoil_app;
grant insert, update, delete on counterfoil.flow_kind to counterfoil_app;
grant insert, update on counterfoil.relay_call, counterfoil.expectation to counterfoil_app;
grant execute on function
  counterfoil.request(text, bigint, text, timestamptz, text, text, uuid, text, text, text, text, boolean, text, text, bigint, text,
    timestamptz, text),
  counterfoil.accept(text, text, jsonb, text, text, text, jsonb, text, timestamptz, text),
  counterfoil.ids_of(text, text[]), counterfoil.accept_items(text, counterfoil.accept_request[], text, text),
  counterfoil.claim_deliveries(text, text, integer, interval, bigint, bigint),
  counterfoil.mark_sending(text, bigint[], uuid[]), counterfoil.keep_rendered(text, bigint[], uuid[], jsonb[]),
  counterfoil.settle_deliveries(text, counterfoil.move_request[], counterfoil.exchange_row[], bigint),
  counterfoil.settle_polls(text, counterfoil.poll_result[], counterfoil.step_row[], counterfoil.move_request[], counterfoil.exchange_row[], text),
  counterfoil.note_exchanges(text, counterfoil.exchange_row[]),
  counterfoil.wake_items(text, integer), counterfoil.requeue_items(text, text[], timestamptz, integer, text, text) to counterfoil_app;

grant select on counterfoil.flow_kind, counterfoil.poll, counterfoil.item_step, counterfoil.expectation to counterfoil_reader;
grant select (kind, group_key, lane, receipt, receipt_at, doubt_at, not_before, version, sent_version) on counterfoil.item to counterfoil_reader;
grant select (id, at, flow, item_id, call_id, attempt_id, kind, method, address, status, outcome, took_ms, sent_bytes, sent_sha256, got_bytes,
  got_sha256, fault) on counterfoil.exchange to counterfoil_reader;
grant select (id, at, ended_at, flow, operation, caller, method, path, fingerprint, request_bytes, status, outcome, problem)
  on counterfoil.relay_call to counterfoil_reader;

do $$
declare
  v_table text;
begin
  foreach v_table in array array['flow_kind', 'content', 'exchange', 'poll', 'item_step', 'expectation', 'relay_call'] loop
    execute format('alter table counterfoil.%I enable row level security', v_table);
    execute format('create policy app_all on counterfoil.%I to counterfoil_app using (true) with check (true)', v_table);
    execute format('create policy reader_flows on counterfoil.%I for select to counterfoil_reader using (counterfoil.may_read(flow))', v_table);
  end loop;
end $$;
