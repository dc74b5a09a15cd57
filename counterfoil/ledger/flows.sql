-- name: register_flow
-- $1 name, $2 title, $3 owner, $4 case_due, $5 definition. Tells whether it is new.
insert into counterfoil.flow (name, title, owner, case_due, definition) values ($1, $2, $3, $4, $5)
on conflict (name) do update set title = excluded.title, owner = excluded.owner, case_due = excluded.case_due, definition = excluded.definition
returning (xmax = 0) as new;

-- name: keep_kinds
-- $1 flow, $2 kinds. The kinds of a delivery flow as declared now.
insert into counterfoil.flow_kind select (k).* from unnest($2::counterfoil.flow_kind[]) k where (k).flow = $1
on conflict (flow, kind) do update set position = excluded.position, parent_kind = excluded.parent_kind, inherits = excluded.inherits,
  stand_in = excluded.stand_in, parent_wait = excluded.parent_wait, resend = excluded.resend, resend_update = excluded.resend_update,
  look_up_after = excluded.look_up_after, updates = excluded.updates, poll_first = excluded.poll_first, complete_within = excluded.complete_within;

-- name: drop_kinds
-- $1 flow, $2 kinds that are declared. One that still has unfinished items stays: they must not lose their rules.
delete from counterfoil.flow_kind k where k.flow = $1 and k.kind <> all ($2::text[]) and not exists (
  select 1 from counterfoil.item i where i.flow = k.flow and i.kind = k.kind and i.settled_at is null);

-- name: list_kinds
-- $1 flow. In their order.
select * from counterfoil.flow_kind where flow = $1 order by position;

-- name: get_flow
-- $1 name.
select * from counterfoil.flow where name = $1;

-- name: list_flows
-- All, by name.
select f.*, s.cron, s.next_fire_at, s.last_fire_at, s.last_outcome from counterfoil.flow f left join counterfoil.schedule s on s.flow = f.name and s.name = 'run' order by f.name;

-- name: move_watermark
-- $1 flow, $2 watermark. Never backwards.
update counterfoil.flow set watermark = $2 where name = $1 and (watermark is null or watermark < $2) returning watermark;

-- name: set_schedule
-- $1 flow, $2 name, $3 cron, $4 timezone, $5 catch_up, $6 next_fire_at. A changed cron starts anew; an unchanged one keeps its next time.
insert into counterfoil.schedule (flow, name, cron, timezone, catch_up, next_fire_at) values ($1, $2, $3, $4, $5, $6)
on conflict (flow, name) do update set cron = excluded.cron, timezone = excluded.timezone, catch_up = excluded.catch_up,
  next_fire_at = case when (schedule.cron, schedule.timezone) = (excluded.cron, excluded.timezone)
    then schedule.next_fire_at else excluded.next_fire_at end;

-- name: drop_schedules
-- $1 flows, $2 names, side by side: the schedules that are still declared.
delete from counterfoil.schedule s where not exists (
  select 1 from unnest($1::text[], $2::text[]) as k (flow, name) where k.flow = s.flow and k.name = s.name);

-- name: claim_schedules
-- $1 flow or null, $2 name or null (then all but those of intakes). Schedules whose time has come, locked: over many hosts one transaction has each.
select flow, name, cron, timezone, catch_up, next_fire_at, last_fire_at from counterfoil.schedule
where next_fire_at <= counterfoil.now() and ($1::text is null or flow = $1) and (name = $2 or $2::text is null and name <> 'intake')
order by flow, name for update skip locked;

-- name: fire_schedule
-- $1 flow, $2 name, $3 next_fire_at, $4 last_fire_at, $5 outcome.
update counterfoil.schedule set next_fire_at = $3, last_fire_at = coalesce($4, last_fire_at), last_outcome = $5 where flow = $1 and name = $2;

-- name: list_schedules
-- All, by flow.
select * from counterfoil.schedule order by flow, name;
