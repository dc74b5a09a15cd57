-- Runs of syncs, the keys a run still has to fetch, faults by run, workers, schedules and gates.
create table counterfoil.worker (
  id           bigint generated always as identity primary key,
  host         text not null,
  pid          integer not null,
  version      text not null,
  started_at   timestamptz not null default counterfoil.now(),
  heartbeat_at timestamptz not null default counterfoil.now(),
  stopped_at   timestamptz
);

create table counterfoil.run (
  id             bigint generated always as identity primary key,
  flow           text not null references counterfoil.flow (name),
  state          text not null check (state in ('queued', 'running', 'completed', 'partial', 'empty', 'failed', 'cancelled')),
  trigger        text not null check (trigger in ('schedule', 'person', 'backfill')),
  actor          text not null,
  reason         text,
  fired_for      timestamptz,                        -- the time of the schedule this run stands for
  since          timestamptz,
  until          timestamptz,
  given          boolean not null default false,     -- the window was given by a person, not taken from the watermark
  backfill_until timestamptz,                        -- more windows follow, each a run of its own
  backfill_step  interval,
  created_at     timestamptz not null,
  started_at     timestamptz,
  ended_at       timestamptz,
  next_action_at timestamptz,                        -- queued: due; running: end of the lease
  attempt_id     uuid,                               -- fences every write of the worker that has it
  worker_id      bigint references counterfoil.worker (id),
  attempts       integer not null default 0,
  crashes        integer not null default 0,         -- in a row, without progress in between
  suspect_key    text,                               -- the record that was in hand at the crash
  suspect_crashes integer not null default 0,
  cursor         jsonb,
  pages          bigint not null default 0,
  list_ended     boolean not null default false,
  next_key       bigint not null default 0,
  chunks         bigint not null default 0,          -- settled so far: tells a lost answer to COMMIT from a lost chunk
  listed         bigint not null default 0,
  duplicates     bigint not null default 0,
  found          bigint not null default 0,
  inserted       bigint not null default 0,
  updated        bigint not null default 0,
  unchanged      bigint not null default 0,
  rejected       bigint not null default 0,
  review         bigint not null default 0,
  failed         bigint not null default 0,
  deleted        bigint not null default 0,
  written_back   bigint not null default 0,
  latest_changed timestamptz,
  watermark_before timestamptz,
  watermark_after  timestamptz,
  fault          text,
  problem        text,
  constraint run_open_is_due check ((ended_at is null) = (next_action_at is not null)),
  constraint run_ended check ((ended_at is not null) = (state not in ('queued', 'running'))),
  constraint run_claimed check ((attempt_id is not null) = (state = 'running')),
  -- The sum. A run may not be called completed, nor partial, while one record is missing from it.
  constraint run_sum check (state not in ('completed', 'partial', 'empty') or (
    listed = found + duplicates
    and found = inserted + updated + unchanged + rejected + review + failed)),
  constraint run_completed_is_clean check (state <> 'completed' or review + failed = 0)
);
create unique index run_one_open on counterfoil.run (flow) where ended_at is null;
create unique index run_fired_once on counterfoil.run (flow, fired_for) where fired_for is not null;
create index run_due on counterfoil.run (next_action_at) where ended_at is null;
create index run_listing on counterfoil.run (flow, id desc);

-- Keys a run has listed: to fetch each once, to know a duplicate, and to know a complete listing. Emptied by upkeep after the run.
create table counterfoil.run_key (
  run_id bigint not null,     -- no foreign key: its check for each key was half the cost of noting them
  key    text not null,
  n      bigint not null,
  done   boolean not null default false,
  primary key (run_id, key)
);
create index run_key_open on counterfoil.run_key (run_id, n) where not done;

-- What went wrong in a run, one row per fault, with a few keys as examples: constant size whatever the number of records.
create table counterfoil.run_fault (
  run_id  bigint not null references counterfoil.run (id) on delete cascade,
  outcome text not null check (outcome in ('rejected', 'review', 'failed')),
  fault   text not null,
  problem text not null,
  records bigint not null,
  keys    text[] not null,
  primary key (run_id, outcome, fault)
);

create table counterfoil.schedule (
  flow         text primary key references counterfoil.flow (name),
  cron         text not null,
  timezone     text not null,
  catch_up     text not null check (catch_up in ('once', 'skip')),
  next_fire_at timestamptz not null,
  last_fire_at timestamptz,
  last_outcome text
);

-- What all workers and hosts must respect about one source: closed until, failures in a row, tokens left.
create table counterfoil.gate (
  name          text primary key,
  closed_until  timestamptz,
  reason        text,
  failures      integer not null default 0,
  times_opened  integer not null default 0,
  tokens        double precision not null default 0,
  refilled_at   timestamptz not null default counterfoil.now()
);

-- What the source still has to be told about records that were loaded. A row goes when the source has answered, or when the record is an item.
create table counterfoil.write_back (
  run_id bigint not null references counterfoil.run (id),
  key    text not null,
  body   jsonb not null,
  primary key (run_id, key)
);
