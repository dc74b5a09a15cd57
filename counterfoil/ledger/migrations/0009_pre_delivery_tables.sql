-- Deliveries: moves of their own, what an item of theirs is and carries, the proof of each exchange, confirmation by polling. Only added to what
-- is there, so that processes of the release before go on working; what takes something from them comes after they are gone (0010 and later).
insert into counterfoil.item_move (from_state, event, to_state) values
  ('NEW', 'confirm', 'SUCCESS'),
  ('WAITING', 'revise', 'WAITING'),
  ('QUEUED', 'revise', 'QUEUED'),
  ('IN_PROGRESS', 'give_back', 'QUEUED'),
  ('TEMPORARY_ERROR', 'revise', 'QUEUED'),
  ('TEMPORARY_ERROR', 'regenerate', 'QUEUED'),
  ('IN_DOUBT', 'revise', 'IN_DOUBT'),
  ('ACCEPTED', 'revise', 'QUEUED'),
  ('ACCEPTED', 'regenerate', 'QUEUED'),
  ('PERMANENT_ERROR', 'confirm', 'SUCCESS'),
  ('PERMANENT_ERROR', 'revise', 'QUEUED'),
  ('PERMANENT_ERROR', 'regenerate', 'QUEUED'),
  ('SUCCESS', 'revise', 'QUEUED'),
  ('SUCCESS', 'regenerate', 'QUEUED'),
  ('REJECTED', 'revise', 'QUEUED'),
  ('REJECTED', 'regenerate', 'QUEUED');

-- The kinds of a delivery flow in their order, with what the ledger itself must know of them: it makes children wait and lets them go.
create table counterfoil.flow_kind (
  flow           text not null references counterfoil.flow (name),
  kind           text not null,
  position       smallint not null,                  -- a parent stands before its children
  parent_kind    text,
  inherits       text not null default 'last' check (inherits in ('last', 'first')),
  stand_in       text,                               -- the receipt where the group has no parent at all
  parent_wait    interval not null default '7 days',
  resend         text not null default 'person' check (resend in ('safe', 'look_up', 'person')),
  resend_update  text not null default 'person' check (resend_update in ('safe', 'look_up', 'person')),
  look_up_after  interval not null default '2 minutes',
  updates        boolean not null default false,     -- newer content under the same key is sent again, as an update
  poll_first     interval,                           -- null: its receipt is its success
  complete_within interval,                          -- so long after it was accepted, what it expects must be there
  primary key (flow, kind)
);

alter table counterfoil.item
  add column kind         text not null default 'record',
  add column group_key    text,                      -- what belongs together beyond parent and child: a claim, a report over its submissions
  add column lane         text not null default 'live' check (lane in ('live', 'bulk')),
  add column receipt      text,                      -- what the other side gave for it
  add column receipt_at   timestamptz,
  add column doubt_at     timestamptz,               -- since then it may have arrived without our knowing; nothing is resent unlooked
  add column not_before   timestamptz,               -- held until then, whatever else it waits for
  add column version      integer not null default 1,  -- of its content
  add column sent_version integer;                   -- the newest version that may have left

-- What is delivered: apart from the item, so that a move of the item does not rewrite it.
create table counterfoil.content (
  flow        text not null,
  item_id     bigint not null,
  payload     text not null,                         -- JSON, as it was handed in
  sha256      text not null,                         -- of payload and file
  file        jsonb,                                 -- {name, type, size, sha256, object}, where one was handed in
  rendered    jsonb,                                 -- the same of a file that was made for it
  handed_in_at timestamptz not null,
  primary key (flow, item_id)
);

-- The proof of each request and its answer. Bodies are redacted before they come here; sizes and hashes are of the real ones.
create table counterfoil.exchange (
  id          bigint generated always as identity,
  at          timestamptz not null,
  flow        text not null,
  item_id     bigint,                                -- null: of many items (a bulk poll), or of a relay's call
  call_id     bigint,
  attempt_id  uuid,
  kind        text not null check (kind in ('send', 'look_up', 'poll', 'relay')),
  method      text not null,
  address     text not null,
  status      smallint,                              -- null: no answer came
  outcome     text not null,
  took_ms     integer not null,
  sent_bytes  bigint not null,
  sent_sha256 text,
  got_bytes   bigint not null,
  got_sha256  text,
  request     text,
  reply       text,
  fault       text,
  primary key (id, at)
);
create index exchange_item on counterfoil.exchange (flow, item_id, id) where item_id is not null;
create index exchange_call on counterfoil.exchange (call_id) where call_id is not null;

-- What is being asked about in bulk: a narrow row beside the item, so that an answer which says nothing new costs little.
create table counterfoil.poll (
  flow         text not null,
  item_id      bigint not null,
  receipt      text not null,
  phase        text not null check (phase in ('confirm', 'late', 'recheck')),
  next_poll_at timestamptz not null,
  polled_at    timestamptz,
  keep_until   timestamptz,                          -- of a recheck: after that success is final
  status       text,                                 -- the other side's own word
  seen         text,                                 -- digest of the last answer: only a different one is written to the history
  not_found    smallint not null default 0,          -- answers in a row that did not know it
  primary key (flow, item_id)
);
create index poll_due on counterfoil.poll (flow, next_poll_at, item_id);

-- Steps in somebody else's system, a row whenever one changed.
create table counterfoil.item_step (
  id         bigint generated always as identity,
  at         timestamptz not null,
  flow       text not null,
  item_id    bigint not null,
  step       text not null,                          -- '' is the delivery as a whole
  status     text not null,                          -- the other side's own word
  started_at timestamptz,
  ended_at   timestamptz,
  error      text,
  primary key (flow, item_id, id)
);

-- Groups whose members must be complete: counted when their time has come, and what is missing becomes an item that a case owns.
create table counterfoil.expectation (
  flow       text not null,
  item_id    bigint not null,
  due_at     timestamptz not null,
  checked_at timestamptz,
  expected   integer,
  missing    integer,
  primary key (flow, item_id)
);
create index expectation_due on counterfoil.expectation (flow, due_at) where checked_at is null;

-- Every call that came to a relay, whatever became of it.
create table counterfoil.relay_call (
  id            bigint generated always as identity primary key,
  at            timestamptz not null,
  ended_at      timestamptz,
  flow          text not null references counterfoil.flow (name),
  operation     text,
  caller        text,                                -- who proved to be calling: an access key, a subject; never a secret
  method        text not null,
  path          text not null,
  fingerprint   text,                                -- of the operation and its content: the same call again has the same
  request_bytes bigint not null default 0,
  status        smallint,
  outcome       text,
  reply         text,                                -- what was answered, for the same call again
  problem       text
);
create index relay_call_same on counterfoil.relay_call (flow, fingerprint, id desc) where fingerprint is not null;
create index relay_call_listing on counterfoil.relay_call (flow, id desc);

-- Groups are locked by who hands in a parent, or a child that finds none: one of the two sees the other, whoever commits first.
create table counterfoil.group_lock (
  flow      text not null,
  group_key text not null,
  primary key (flow, group_key)
);

alter table counterfoil.attempt
  add column sent_at timestamptz,                    -- from then on a request may have left
  add column version integer;                        -- of the content it was given
alter table counterfoil.attempt drop constraint attempt_pkey, add primary key (flow, item_id, number);
drop index counterfoil.attempt_item;
alter table counterfoil.item_event drop constraint item_event_pkey, add primary key (flow, item_id, id, at);
drop index counterfoil.item_event_item;

alter table counterfoil.schedule add column name text not null default 'run';

create index item_claim on counterfoil.item (flow, lane, next_action_at, id)
  where state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and next_action_at is not null;
-- Children by family: so that one parent's ten thousand do not stand before everybody else.
create index item_family on counterfoil.item (flow, lane, coalesce(parent_id, id), next_action_at)
  where state in ('QUEUED', 'TEMPORARY_ERROR', 'IN_DOUBT') and next_action_at is not null;
create index item_deadline on counterfoil.item (flow, next_action_at, id) where state in ('WAITING', 'ACCEPTED');
create index item_group on counterfoil.item (flow, group_key, kind, id) where group_key is not null;
create index item_children on counterfoil.item (flow, parent_id, id) where parent_id is not null;
-- Those that a parent's receipt lets go, and those that wait for any parent of their group.
create index item_held on counterfoil.item (parent_id, id) where parent_id is not null and state in ('WAITING', 'PERMANENT_ERROR');
create index item_orphan on counterfoil.item (flow, group_key, id)
  where parent_id is null and group_key is not null and state in ('WAITING', 'PERMANENT_ERROR');
create index item_receipt on counterfoil.item (receipt) where receipt is not null;
