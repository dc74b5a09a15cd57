-- Flows as the ledger knows them (settings an item needs when it fails, the watermark) and cases in their simplest form.
create table counterfoil.flow (
  name          text primary key check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  title         text not null,
  owner         text not null default 'operators',
  case_due      interval not null default '4 hours',
  definition    text not null default '',           -- SHA-256 of the declared flow, to notice a change
  watermark     timestamptz,
  registered_at timestamptz not null default counterfoil.now()
);

-- An open problem with an owner and a due time. One open case per flow and fault, however many items it owns.
create table counterfoil."case" (
  id         bigint generated always as identity primary key,
  flow       text not null references counterfoil.flow (name),
  fault      text not null,
  title      text not null,
  owner      text not null,
  opened_at  timestamptz not null,
  due_at     timestamptz not null,
  open_items bigint not null default 0 check (open_items >= 0),
  closed_at  timestamptz,
  closed_by  text,
  reason     text,
  -- A case that owns items can't be closed: its items would be owned by nobody.
  constraint case_closed_owns_nothing check (closed_at is null or (open_items = 0 and reason is not null))
);
create unique index case_one_open on counterfoil."case" (flow, fault) where closed_at is null;
create index case_open_due on counterfoil."case" (due_at) where closed_at is null;
