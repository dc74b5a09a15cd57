-- Least privilege. Owner: migrations only. App: reads all, writes runs, moves items only through the functions; events, attempts, items,
-- counters and cases are closed to its own writes. Reader: reads the flows it was given, never a payload.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['counterfoil_owner', 'counterfoil_app', 'counterfoil_reader'] loop
    if not exists (select 1 from pg_catalog.pg_roles where rolname = v_role) then
      begin
        execute format('create role %I nologin', v_role);
      exception when duplicate_object or unique_violation then
        null;  -- roles belong to the whole server: the migrator of another database made it at this moment
      end;
    end if;
  end loop;
end $$;
grant counterfoil_owner, counterfoil_app, counterfoil_reader to current_user;

create table counterfoil.reader_flow (
  reader text not null,
  flow   text not null,       -- '*' for all
  primary key (reader, flow)
);

-- May the reader who is logged in see this flow? Nothing unless it was granted.
create function counterfoil.may_read(p_flow text) returns boolean language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select exists (select 1 from counterfoil.reader_flow g where g.reader = session_user and g.flow in (p_flow, '*'))
$$;

revoke all on all functions in schema counterfoil from public;
grant usage on schema counterfoil to counterfoil_app, counterfoil_reader;
grant select on all tables in schema counterfoil to counterfoil_app;
grant insert, update on counterfoil.run, counterfoil.worker, counterfoil.schedule, counterfoil.gate, counterfoil.flow to counterfoil_app;
grant insert, update, delete on counterfoil.run_key, counterfoil.run_fault, counterfoil.write_back to counterfoil_app;
grant delete on counterfoil.schedule to counterfoil_app;
grant execute on function counterfoil.now(), counterfoil.accept(text, text, jsonb, text), counterfoil.worker_alive(bigint), counterfoil.live_workers(),
  counterfoil.move(text, text, text, text, text, timestamptz, text, text, uuid, text),
  counterfoil.move_items(text, counterfoil.move_request[], text, text, bigint),
  counterfoil.claim_items(text, integer, interval, bigint), counterfoil.renew_items(text, uuid[], interval),
  counterfoil.rescue_items(text, integer, integer), counterfoil.open_flow_case(text, text, text),
  counterfoil.close_flow_cases(text, text, text, text) to counterfoil_app;
grant execute on function counterfoil.now(), counterfoil.may_read(text), counterfoil.worker_alive(bigint), counterfoil.live_workers() to counterfoil_reader;

grant select on counterfoil.item_move, counterfoil.flow, counterfoil.item_event, counterfoil.attempt, counterfoil."case", counterfoil.run,
  counterfoil.run_fault, counterfoil.item_count, counterfoil.worker, counterfoil.schedule, counterfoil.gate to counterfoil_reader;
grant select (id, flow, key, parent_id, state, state_since, accepted_at, settled_at, next_action_at, case_id, attempts, crashes,
  first_failed_at, fault, problem, run_id, superseded_by, reference) on counterfoil.item to counterfoil_reader;

do $$
declare
  v_table text;
  v_flow  text;
begin
  foreach v_table in array array['item', 'item_event', 'attempt', 'case', 'run', 'item_count', 'schedule', 'flow'] loop
    v_flow := case v_table when 'flow' then 'name' else 'flow' end;
    execute format('alter table counterfoil.%I enable row level security', v_table);
    execute format('create policy app_all on counterfoil.%I to counterfoil_app using (true) with check (true)', v_table);
    execute format('create policy reader_flows on counterfoil.%I for select to counterfoil_reader using (counterfoil.may_read(%I))', v_table, v_flow);
  end loop;
end $$;
alter table counterfoil.run_fault enable row level security;
create policy app_all on counterfoil.run_fault to counterfoil_app using (true) with check (true);
create policy reader_flows on counterfoil.run_fault for select to counterfoil_reader
  using (exists (select 1 from counterfoil.run r where r.id = run_fault.run_id and counterfoil.may_read(r.flow)));
