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

-- What one call found out. Rows that have left meanwhile are passed over; moves that are no longer legal are told and nothing else.
create function counterfoil.settle_polls(p_flow text, p_results counterfoil.poll_result[], p_steps counterfoil.step_row[],
  p_requests counterfoil.move_request[], p_exchanges counterfoil.exchange_row[], p_actor text)
returns setof counterfoil.move_result language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
  v_now timestamptz := counterfoil.now();
begin
  perform counterfoil.note_exchanges(p_flow, p_exchanges);
  if cardinality(p_steps) > 0 then
    insert into counterfoil.item_step (at, flow, item_id, step, status, started_at, ended_at, error)
    select v_now, p_flow, s.item_id, s.step, s.status, s.started_at, s.ended_at, s.error from unnest(p_steps) s;
  end if;
  if cardinality(p_requests) > 0 then
    return query select m.* from counterfoil.move_items(p_flow, p_requests, p_actor) m;
  end if;
  update counterfoil.poll p set next_poll_at = r.next_poll_at, phase = coalesce(r.phase, p.phase), keep_until = coalesce(r.keep_until, p.keep_until),
    polled_at = case when r.answered then v_now else p.polled_at end, status = coalesce(r.status, p.status), seen = coalesce(r.seen, p.seen),
    not_found = r.not_found
  from unnest(p_results) r where p.flow = p_flow and p.item_id = r.item_id and r.next_poll_at is not null;
  if exists (select 1 from unnest(p_results) r where r.next_poll_at is null) then
    delete from counterfoil.poll p using unnest(p_results) r where p.flow = p_flow and p.item_id = r.item_id and r.next_poll_at is null;
  end if;
end $$;
