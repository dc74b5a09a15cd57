"""Project folders with a sound delivery and a sound relay, and the same with one thing changed. Each says everything that can be said."""

from __future__ import annotations

DELIVERY_FILE = "flows/papers.yaml"
RELAY_FILE = "flows/hop.yaml"

DELIVERY = """\
flow: papers
kind: delivery
title: Papers of claims
destination:
  url: ${GATEWAY_URL}
  auth: {type: sigv4, access_key: "${KEY}", secret_key: "${SECRET}", region: eu-west-1}
  headers: {Accept: application/json, X-Api-Key: "${API_KEY}"}
  tls: {certificate: tls/ours.pem, key: "${TLS_KEY_FILE}", authority: tls/theirs.pem}
  contract: gateway.yaml
  timeouts: {connect: 5s, first_byte: 35s, total: 40s}
  reply_bytes: 1MB
  concurrency: 10
  rate: 2.5
  bulk_share: 0.25
  breaker: {failures: 10, open: 30s}
kinds:
  claim: {handed_in: with_receipt}
  report:
    parent: {kind: claim, inherits: first, stand_in: "999", wait: 7d}
    create:
      method: POST
      path: /clients/{payload.caseref}/reports
      headers: {X-Request-Id: "{idempotency_key}"}
      body:
        data:
          claim: "{parent.receipt}"
          submission_id: "{payload.submission_id}"
          order: "{payload.order?}"
          sent: "{attempt} since {accepted_at}"
          file: {name: "{file.name}", mimetype: "{file.type}", source: "{file.base64}"}
    update: {method: PUT, path: "/reports/{receipt}", function: report_body}
    receipt: data.id
    file:
      from: payload
      value: document.content
      name: "{payload.name}.pdf"
      content_type: application/pdf
      types: [pdf, txt]
      least: 1KB
      most: 15MB
      most_by_type: {pdf: 150MB}
      encrypted: false
      ascii_text: true
      names: underscore
      name_length: 200
      required: true
    idempotency_header: Idempotency-Key
    confirmed: true
    expected:
      - of: claim
        for_each: attachments
        key: "{key}/attachment/{each.id}"
        when: {bddQualified: true, form.kind: a}
        within: 1h
  letter:
    parent: report
    create:
      method: POST
      path: /letters
      query: {source: counterfoil, page: 1}
      parts:
        parameters: {json: {data: {claimId: "{parent.payload.claim_id}", fileName: "{file.name}"}}}
        note: {text: "for {group?}"}
        file: {file: true}
    receipt: data.id
    file: {from: static, value: files/letter.pdf}
replies:
  - {is: duplicate, status: 400, code: OPGDATA-API-INVALIDREQUEST, says: already exists, receipt: errors.meta.id}
  - {is: temporary, status: [403, "5xx", "500-503"], fault: forbidden, after: 5m, body: {error.code: X}}
look_up:
  method: GET
  path: /documents
  query: {caserecnumber: "{payload.caseref}", report: "{parent.receipt}"}
  destination: {url: "${CASES_URL}", auth: {type: bearer, token: "${CASES_TOKEN}"}}
  items: ""
  match: {metadata.submission_id: "{payload.submission_id}", type: 5}
  receipt: uuid
  absent: [404]
  after: 2m
poll:
  method: POST
  path: /uploads/status
  body: {data: {requestIds: "{receipts}"}}
  ids: 100
  id_type: string
  items: data.statuses
  id: requestId
  status: status
  values: {SUCCESS: done, FAILED: failed, IN_PROGRESS: running}
  steps: steps
  step_name: name
  step_status: status
  error: error.detail
  error_step: error.step
  started: time.startTime
  ended: time.endTime
  not_found: data.requestIdsNotFound
  none_found: [404]
  not_found_limit: 3
  first: 5m
  every: 1h
  deadline: 24h
  recheck: {every: 7d, keep: 365d}
retry: {first_delay: 1m, max_delay: 1h, budget: 24h, crashes: 3}
requeue:
  overnight: {schedule: "0 8 * * *", faults: ["http_5*", unreachable], younger: 3d, limit: 100}
evidence: {bodies: always, redact: [data.submitter_email, "items.*.name"], most: 4KB}
intake:
  schedule: "* * * * *"
  table:
    table: dd.document
    key: id
    where: {status: QUEUED, archived: false}
    taken: {status: IN_PROGRESS}
    kind: "{kind}"
    parent: report_id
    group: submission_id
    file: storage_key
    limit: 50
on_failure: {owner: support, due: 4h}
"""

RELAY = """\
flow: hop
kind: relay
title: The middle hop
endpoint:
  path: /v2
  auth: {type: sigv4, access_key: "${CALLER_KEY}", secret_key: "${CALLER_SECRET}", region: eu-west-1}
  contract: gateway.yaml
  errors: problem
  body_limit: 10MB
  deadline: 27s
destination:
  url: ${CASES_URL}
  auth: {type: jwt, algorithm: HS256, secret: "${JWT_SECRET}"}
operations:
  createReport:
    file: {from: object, value: "{body.file.s3_reference?}", required: false}
    call:
      method: POST
      path: /documents
      body:
        caseRecNumber: "{path.caseref}"
        metadata: "{body.attributes}"
        file: {source: "{file.base64}"}
        by: "{caller}"
  createSupporting:
    find:
      method: GET
      path: /documents
      query: {caserecnumber: "{path.caseref}", "metadata[report_id]": "{path.id}", all: "{query.all?}"}
      alone: "{path.caseref}/{path.id}"
      function: first_of
      same: same_document
    call: {method: POST, path: /documents, body: {parentUuid: "{found?}"}}
    reply: {status: 201, body: {data: {id: "{answer.uuid}", of: "{path.id}", was: "{found?}"}}}
replies:
  - {is: temporary, status: 503}
evidence: {bodies: never}
on_failure: {owner: support, due: 1h}
"""

FUNCTIONS = """\
def report_body(item):
    return {}


def first_of(answer, request):
    return None


def same_document(answer, request):
    return None
"""

FILES = {
    DELIVERY_FILE: DELIVERY,
    RELAY_FILE: RELAY,
    "functions.py": FUNCTIONS,
    "contracts/gateway.yaml": "openapi: 3.0.0\n",
    "contracts/cases.json": "{}\n",
    "files/letter.pdf": "%PDF-1.7\n",
}


def changed(file: str, old: str, new: str) -> dict[str, str]:
    """The sound project with one text replaced; the text must be there exactly once."""
    assert FILES[file].count(old) == 1, f"{old!r} stands {FILES[file].count(old)} times in {file}"
    return {**FILES, file: FILES[file].replace(old, new)}
