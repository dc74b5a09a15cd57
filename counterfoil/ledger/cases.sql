-- name: list_cases
-- $1 flow or null, $2 open only, $3 limit. The ones due first on top.
select * from counterfoil."case" where ($1::text is null or flow = $1) and (not $2::boolean or closed_at is null)
order by closed_at nulls first, due_at limit $3;

-- name: get_case
-- $1 case.
select * from counterfoil."case" where id = $1;

-- name: open_flow_case
-- $1 flow, $2 fault, $3 title. For trouble of a whole flow (fault "run:…"): it owns no items and is closed by the next good run, or by hand.
select counterfoil.open_flow_case($1, $2, $3);

-- name: close_flow_cases
-- $1 flow, $2 fault prefix, $3 who, $4 why.
select counterfoil.close_flow_cases($1, $2, $3, $4);
