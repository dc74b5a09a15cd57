-- name: read_gate
-- $1 name. Seconds until the gate opens (0: open), why it is closed.
select greatest(0, extract(epoch from closed_until - counterfoil.now()))::float8 as wait, reason, failures, times_opened
from counterfoil.gate where name = $1;

-- name: close_gate
-- $1 name, $2 seconds, $3 reason. Never shortens what another host has set.
insert into counterfoil.gate (name, closed_until, reason) values ($1, counterfoil.now() + make_interval(secs => $2), $3)
on conflict (name) do update set closed_until = greatest(gate.closed_until, excluded.closed_until), reason = excluded.reason;

-- name: note_failures
-- $1 name, $2 failures in a row seen here, $3 how many open the circuit, $4 seconds open at first. Failures of all hosts add up; a full count closes the gate, longer each time.
insert into counterfoil.gate as g (name, failures, times_opened, closed_until, reason)
select $1, case when o.full then 0 else $2::int end, o.full::int,
  case when o.full then counterfoil.now() + make_interval(secs => $4) end,
  case when o.full then 'circuit open: too many failures in a row' end
from (select $2::int >= $3::int as full) o
on conflict (name) do update set
  failures = case when g.failures + $2 >= $3 then 0 else g.failures + $2 end,
  times_opened = g.times_opened + (g.failures + $2 >= $3)::int,
  closed_until = case when g.failures + $2 >= $3
    then greatest(g.closed_until, counterfoil.now() + make_interval(secs => $4 * 2 ^ least(g.times_opened, 4))) else g.closed_until end,
  reason = case when g.failures + $2 >= $3 then 'circuit open: too many failures in a row' else g.reason end
returning greatest(0, extract(epoch from closed_until - counterfoil.now()))::float8 as wait;

-- name: note_success
-- $1 name.
update counterfoil.gate set failures = 0, times_opened = 0 where name = $1 and (failures > 0 or times_opened > 0);

-- name: take_tokens
-- $1 name, $2 how many, $3 tokens a second. One bucket for all hosts; it may go into debt, and the caller waits the seconds returned.
insert into counterfoil.gate as g (name, tokens, refilled_at) values ($1, $3::float8 - $2::float8, counterfoil.now())
on conflict (name) do update set
  tokens = least($3::float8, g.tokens + $3::float8 * greatest(0, extract(epoch from clock_timestamp() - g.refilled_at))) - $2::float8,
  refilled_at = clock_timestamp()
returning greatest(0, -g.tokens / $3::float8)::float8 as wait;

-- name: list_gates
-- Closed or counting, by name.
select name, closed_until, reason, failures, times_opened from counterfoil.gate order by name;
