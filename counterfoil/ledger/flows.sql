-- name: register_flow
-- $1 name, $2 title, $3 owner, $4 case_due, $5 definition. Tells whether it is new.
insert into counterfoil.flow (name, title, owner, case_due, definition) values ($1, $2, $3, $4, $5)
on conflict (name) do update set title = excluded.title, owner = excluded.owner, case_due = excluded.case_due, definition = excluded.definition
returning (xmax = 0) as new;

-- name: get_flow
-- $1 name.
select * from counterfoil.flow where name = $1;

-- name: list_flows
-- All, by name.
select f.*, s.cron, s.next_fire_at, s.last_fire_at, s.last_outcome from counterfoil.flow f left join counterfoil.schedule s on s.flow = f.name order by f.name;

-- name: move_watermark
-- $1 flow, $2 watermark. Never backwards.
update counterfoil.flow set watermark = $2 where name = $1 and (watermark is null or watermark < $2) returning watermark;

-- name: set_schedule
-- $1 flow, $2 cron, $3 timezone, $4 catch_up, $5 next_fire_at. A changed cron starts anew; an unchanged one keeps its next time.
insert into counterfoil.schedule (flow, cron, timezone, catch_up, next_fire_at) values ($1, $2, $3, $4, $5)
on conflict (flow) do update set cron = excluded.cron, timezone = excluded.timezone, catch_up = excluded.catch_up,
  next_fire_at = case when (schedule.cron, schedule.timezone) = (excluded.cron, excluded.timezone)
    then schedule.next_fire_at else excluded.next_fire_at end;

-- name: drop_schedules
-- $1 flows that still have one.
delete from counterfoil.schedule where flow <> all ($1::text[]);

-- name: claim_schedules
-- Schedules whose time has come, locked: over many hosts one transaction has each.
select flow, cron, timezone, catch_up, next_fire_at, last_fire_at from counterfoil.schedule where next_fire_at <= counterfoil.now()
order by flow for update skip locked;

-- name: fire_schedule
-- $1 flow, $2 next_fire_at, $3 last_fire_at, $4 outcome.
update counterfoil.schedule set next_fire_at = $2, last_fire_at = coalesce($3, last_fire_at), last_outcome = $4 where flow = $1;

-- name: list_schedules
-- All, by flow.
select * from counterfoil.schedule order by flow;
