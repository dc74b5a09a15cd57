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
  counterfoil.request(text, bigint, text, timestamptz, text, text, uuid, text, text, text, text, boolean, text, text, bigint, text, timestamptz, text),
  counterfoil.accept(text, text, jsonb, text, text, text, jsonb, text, timestamptz, text),
  counterfoil.accept_items(text, counterfoil.accept_request[], text, text),
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
