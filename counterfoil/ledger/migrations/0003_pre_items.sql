-- Items, their events and attempts, and the counters kept beside them in the same transaction.
create table counterfoil.item (
  id              bigint generated always as identity,
  flow            text not null references counterfoil.flow (name),
  key             text not null,
  parent_id       bigint,
  state           text not null check (state in ('WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'IN_DOUBT', 'ACCEPTED', 'REVIEW', 'PERMANENT_ERROR', 'SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED')),
  state_since     timestamptz not null,
  accepted_at     timestamptz not null,
  settled_at      timestamptz,
  next_action_at  timestamptz,
  case_id         bigint references counterfoil."case" (id),
  attempt_id      uuid,                              -- the open attempt; every settling move must name it
  attempts        integer not null default 0,
  crashes         integer not null default 0,        -- attempts that ended with their worker
  first_failed_at timestamptz,                       -- start of the budget of time
  fault           text,
  problem         text,
  run_id          bigint,                            -- the run that saw it last
  superseded_by   bigint,
  reference       text,                              -- where it was handed over by hand
  payload         text,                              -- as it came; only while unfinished, and only where it can't be fetched again
  payload_sha256  text,
  released_sha256 text,                              -- the content a person let pass in spite of its verdict
  primary key (flow, id),
  unique (flow, key),
  -- The promise of the product: settled, or due at a known time, or owned by a named case. No fourth possibility.
  constraint item_accounted_for check (settled_at is not null or next_action_at is not null or case_id is not null),
  constraint item_in_one_place check (num_nonnulls(settled_at, next_action_at, case_id) = 1),
  constraint item_settled check ((settled_at is not null) = (state in ('SUCCESS', 'REJECTED', 'TRANSFERRED', 'SUPERSEDED', 'ARCHIVED', 'CANCELLED'))),
  constraint item_due check (next_action_at is not null or state not in ('WAITING', 'QUEUED', 'IN_PROGRESS', 'TEMPORARY_ERROR', 'ACCEPTED')),
  constraint item_owned check (case_id is not null or state not in ('REVIEW', 'PERMANENT_ERROR')),
  constraint item_claimed check ((attempt_id is not null) = (state = 'IN_PROGRESS')),
  constraint item_superseded check (state <> 'SUPERSEDED' or superseded_by is not null)
);
create index item_id on counterfoil.item (id);
-- Partial indexes on what is unfinished: the hot set stays small however much history there is.
create index item_next_action on counterfoil.item (flow, next_action_at, id) where next_action_at is not null;
create index item_lease on counterfoil.item (flow, next_action_at) where state = 'IN_PROGRESS';
create index item_case on counterfoil.item (case_id, id) where case_id is not null;
create index item_unfinished on counterfoil.item (flow, state, accepted_at, id) where settled_at is null;
create index item_listing on counterfoil.item (accepted_at desc, id desc);

create table counterfoil.item_event (
  id         bigint generated always as identity,
  at         timestamptz not null,
  flow       text not null,
  item_id    bigint not null,
  from_state text not null,
  event      text not null,
  to_state   text not null,
  actor      text not null,
  reason     text,
  attempt_id uuid,
  run_id     bigint,
  fault      text,
  problem    text,
  next_action_at timestamptz,
  primary key (id, at),                              -- the time is in the key: ready for partitions by month
  foreign key (from_state, event, to_state) references counterfoil.item_move (from_state, event, to_state)
);
create index item_event_item on counterfoil.item_event (flow, item_id, id);

create table counterfoil.attempt (
  id          uuid not null,
  flow        text not null,
  item_id     bigint not null,
  number      integer not null,
  worker_id   bigint,
  started_at  timestamptz not null,
  lease_until timestamptz not null,
  primary key (id, started_at)
);
create index attempt_item on counterfoil.attempt (flow, item_id, number);

-- How many items stand in each state, in shards so that writers don't queue for one row. State NEW counts every item ever accepted.
create table counterfoil.item_count (
  flow  text not null,
  state text not null,
  shard smallint not null,
  items bigint not null,
  primary key (flow, state, shard)
);
