-- The seed's own side: where the web application puts what is to be sent, and its words for where a document is. Safe to repeat.
create schema if not exists dd;

create table if not exists dd.document (
  id                     text primary key,
  kind                   text not null check (kind in ('report', 'supporting_document', 'checklist')),
  report_id              text not null,                 -- what belongs together over all submissions
  report_document_id     text,                          -- the report it came with; null: an additional document, or a checklist
  submission_id          bigint,
  caseref                text not null,
  period_from            date,
  period_to              date,
  year                   integer,
  report_type            text,
  submitted_at           timestamptz,
  submitter_email        text,
  answers                jsonb,                         -- of a checklist
  file_name              text,
  storage_reference      text,                          -- its key in the object store
  archived               boolean not null default false,
  synchronisation_status text default 'QUEUED'
);
create index if not exists document_queued on dd.document (id) where synchronisation_status = 'QUEUED';

grant usage on schema dd to counterfoil_app;
grant select, update on dd.document to counterfoil_app;

-- Where each document is, in the words that the seed's pages and alarms know. `sentence` is what to tell the one who asks.
create or replace view dd.document_status as
select
  d.id,
  d.kind,
  d.report_id,
  case
    when i.id is null then d.synchronisation_status
    when i.state in ('SUCCESS', 'TRANSFERRED') then 'SUCCESS'
    when i.state in ('WAITING', 'QUEUED', 'ACCEPTED') then 'QUEUED'
    when i.state = 'IN_PROGRESS' then 'IN_PROGRESS'
    when i.state in ('TEMPORARY_ERROR', 'IN_DOUBT') then 'TEMPORARY_ERROR'
    else 'PERMANENT_ERROR'
  end as synchronisation_status,
  i.state,
  i.problem as synchronisation_error,
  i.receipt as uuid,
  i.receipt_at as synchronisation_time,
  i.attempts as sync_attempts,
  i.next_action_at,
  i.case_id
from dd.document d left join counterfoil.item i on i.flow = 'deputy-documents' and i.key = d.id;

-- The seed's line of four counts, each now a count of rows that really are so, by the time they have been so.
create or replace view dd.sync_health as
select
  count(*) filter (where state in ('WAITING', 'QUEUED') and next_action_at < now() - interval '1 hour') as queued_over_1_hour,
  count(*) filter (where state = 'IN_PROGRESS' and state_since < now() - interval '1 hour') as in_progress_over_1_hour,
  count(*) filter (where state in ('TEMPORARY_ERROR', 'IN_DOUBT')) as temporary_error_count,
  count(*) filter (where state in ('PERMANENT_ERROR', 'REVIEW')) as permanent_error_count
from counterfoil.item where flow = 'deputy-documents' and settled_at is null;
