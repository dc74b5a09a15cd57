"""Uploads over real sockets: what is taken, every way in which one is refused, duplicates, replies lost, and the record of all."""

import hashlib
import json
from typing import Any

import aiohttp
import pytest

from counterfoil.simulators.lighthouse_uploads import DUPLICATE, ONE_IDENTIFIER, kind_of, whole
from counterfoil.simulators.lighthouse_workflow import FIRST
from tests.simulators.lighthouse import CLAIM, CONTRACT, PDF, opened

UPLOAD = ("/documents", "post")


async def test_an_upload_gets_a_request_id_of_eight_digits_and_each_a_higher_one() -> None:
    async with opened() as caller:
        answer = await caller.upload()
        assert answer.json == {"data": {"success": True, "requestId": FIRST}}
        assert len(str(FIRST)) == 8
        assert await caller.stored(claimId=2) == FIRST + 1


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"claimId": "600", "participantId": 796130115}, PDF),
        ({"participantId": None, "fileNumber": "796130115"}, PDF),
        ({"participantId": "", "fileNumber": "796130115"}, PDF),
        ({"trackedItemIds": [1, 2], "validationToken": "t" * 64}, PDF),
        ({"fileName": "a" * 252 + ".pdf"}, PDF),
        ({"claimId": 2**63 - 1, "docType": "L702"}, PDF),
        ({"fileName": "notes.TXT"}, b"plain"),
        ({"fileName": "scan.tiff"}, b"II*\0"),
        ({"fileName": "photo.jpeg"}, "ü".encode()),
    ],
)
async def test_what_is_taken(changes: dict[str, Any], file: bytes) -> None:
    async with opened() as caller:
        data = {name: value for name, value in {**CLAIM, **changes}.items() if value is not None}
        assert (await caller.upload(data={"data": data}, file=file)).status == 200


@pytest.mark.parametrize(
    ("changes", "file", "said"),
    [
        ({"fileNumber": "796130115"}, PDF, ONE_IDENTIFIER),
        ({"participantId": None}, PDF, ONE_IDENTIFIER),
        ({"participantId": ""}, PDF, ONE_IDENTIFIER),
        ({"participantId": "A1"}, PDF, "participantId must be"),
        ({"participantId": None, "fileNumber": 796130115}, PDF, "fileNumber must be"),
        ({"docType": None}, PDF, "docType"),
        ({"docType": "23"}, PDF, "docType"),
        ({"docType": "L0234"}, PDF, "docType"),
        ({"systemName": " "}, PDF, "systemName"),
        ({"claimId": None}, PDF, "claimId"),
        ({"claimId": 0}, PDF, "claimId"),
        ({"claimId": -1}, PDF, "claimId"),
        ({"claimId": True}, PDF, "claimId"),
        ({"claimId": 1.5}, PDF, "claimId"),
        ({"claimId": 2**63}, PDF, "claimId"),
        ({"claimId": "12x"}, PDF, "claimId"),
        ({"fileName": None}, PDF, "fileName must not be blank"),
        ({"fileName": "a" * 253 + ".pdf"}, PDF, "longer than 256"),
        ({"fileName": "instructions.docx"}, PDF, "one of these types"),
        ({"fileName": "instructions"}, PDF, "one of these types"),
        ({"fileName": ".pdf"}, PDF, "one of these types"),
        ({"trackedItemIds": "1"}, PDF, "trackedItemIds"),
        ({"trackedItemIds": [1, None]}, PDF, "trackedItemIds"),
        ({"validationToken": "t" * 65}, PDF, "validationToken"),
        ({"fileName": "notes.txt"}, "Zoë".encode(), "ASCII"),
        ({"fileName": "notes.txt"}, "ë".encode() + b"x" * 1_000_000, "ASCII"),
        ({}, b"", "empty"),
    ],
)
async def test_what_is_refused(changes: dict[str, Any], file: bytes, said: str) -> None:
    async with opened() as caller:
        answer = await caller.upload(file=file, **changes)
        assert answer.status == 400
        assert said in answer.details[0]
        entry = answer.json["errors"][0]
        assert set(entry) == {"detail", "status", "title", "instance", "diagnostics"}
        assert entry["status"] == 400
        assert (await caller.control("/record")).json["uploads"]["stored"] == 0


async def test_all_that_is_wrong_is_said_at_once() -> None:
    async with opened() as caller:
        assert len((await caller.upload(file=b"", claimId=0, docType="x", fileName="")).details) == 4


async def test_what_the_contract_refuses_before_it_leaves() -> None:
    """The contract and the simulator agree on what must not be sent."""
    for changes in (
        {"fileNumber": "1"},
        {"claimId": 0},
        {"docType": "x"},
        {"fileName": "a" * 257},
        {"validationToken": "t" * 65},
    ):
        assert CONTRACT.request(UPLOAD, {"data": {**CLAIM, **changes}}) != []
    assert CONTRACT.request(UPLOAD, {"data": {**CLAIM, "participantId": None}}) != []
    assert CONTRACT.request(UPLOAD, {"data": CLAIM}) == []


async def _raw(caller: Any, body: bytes, kind: str = "multipart/form-data; boundary=b") -> Any:
    return await caller.call("POST", "/documents", data=body, headers={"Content-Type": kind})


def _part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n'.encode() + value + b"\r\n"


PARAMETERS = _part("parameters", json.dumps({"data": CLAIM}).encode())
FILE = _part("file", PDF)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (FILE + b"--b--\r\n", "'parameters' is not present"),
        (PARAMETERS + b"--b--\r\n", "'file' is not present"),
        (b"no multipart at all", "cannot be read"),
        (_part("parameters", b"{") + FILE + b"--b--\r\n", "no JSON"),
        (_part("parameters", b"[]") + FILE + b"--b--\r\n", "data must not be null"),
        (_part("parameters", b'{"data":null}') + FILE + b"--b--\r\n", "data must not be null"),
        (_part("parameters", b"[" * 60_000) + FILE + b"--b--\r\n", "no JSON"),
        (
            _part("parameters", b"--c\r\n\r\n\r\n--c--", "Content-Type: multipart/mixed; boundary=c\r\n")
            + b"--b--\r\n",
            "itself multipart",
        ),
    ],
)
async def test_a_body_that_cannot_be_read(body: bytes, said: str) -> None:
    async with opened() as caller:
        answer = await _raw(caller, body)
        assert answer.status == 400
        assert said in answer.details[0]


async def test_a_body_that_is_no_form() -> None:
    async with opened() as caller:
        assert "multipart/form-data" in (await _raw(caller, b"{}", "application/json")).details[0]
        assert "cannot be read" in (await _raw(caller, b"x", "multipart/form-data")).details[0]


async def test_parts_may_come_in_any_order_with_others_between() -> None:
    async with opened() as caller:
        answer = await _raw(caller, FILE + _part("other", b"x" * 300_000) + PARAMETERS + b"--b--\r\n")
        assert answer.status == 200
        (line,) = await caller.lines()
        assert line["sha256"] == hashlib.sha256(PDF).hexdigest()


@pytest.mark.parametrize(
    ("name", "size", "status"),
    [("a.pdf", 3000, 200), ("a.pdf", 3001, 413), ("a.png", 1000, 200), ("a.png", 1001, 413)],
)
async def test_files_above_a_limit(name: str, size: int, status: int) -> None:
    async with opened(size_limit=3000, plain_limit=1000) as caller:
        answer = await caller.upload(file=b"x" * size, fileName=name)
        assert answer.status == status
        if status == 413:
            assert answer.json == {"message": "Request size limit exceeded"}


async def test_a_file_above_the_limit_is_not_read_to_its_end() -> None:
    async with opened(size_limit=3000) as caller:
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            yield PARAMETERS + _part("file", b"")[:-2]
            for _ in range(1000):
                sent += 100_000
                yield b"x" * 100_000

        try:
            answer = await _raw(caller, endless())  # type: ignore[arg-type]
            assert answer.status == 413
        except aiohttp.ClientError:
            pass  # the server hung up on us, as it may
        assert sent < 50_000_000


async def test_parameters_above_their_limit() -> None:
    async with opened() as caller:
        answer = await _raw(caller, _part("parameters", b" " * 70_000) + FILE + b"--b--\r\n")
        assert answer.status == 413


async def test_by_default_the_same_document_is_taken_again() -> None:
    async with opened() as caller:
        first, second = await caller.stored(), await caller.stored()
        assert second == first + 1
        lines = await caller.lines()
        assert [(line["requestId"], line["stored"]) for line in lines] == [(first, 2), (second, 2)]


async def test_a_duplicate_may_be_refused() -> None:
    async with opened(duplicates="refuse") as caller:
        await caller.stored()
        answer = await caller.upload()
        assert (answer.status, answer.details) == (400, [DUPLICATE])
        assert [line["stored"] for line in await caller.lines()] == [1]


async def test_a_duplicate_may_be_flagged() -> None:
    async with opened(duplicates="flag") as caller:
        first = await caller.stored()
        answer = await caller.upload()
        assert answer.json == {"data": {"success": True, "requestId": first, "duplicate": True}}
        assert (await caller.control("/record")).json["uploads"]["flagged"] == 1


@pytest.mark.parametrize("changes", [{"claimId": 2}, {"docType": "L228"}, {"fileName": "b.pdf"}, {"file": PDF + b"\n"}])
async def test_another_document_is_no_duplicate(changes: dict[str, Any]) -> None:
    async with opened(duplicates="refuse") as caller:
        await caller.stored()
        assert (await caller.upload(**changes)).status == 200


async def test_who_sends_it_does_not_make_it_another_document() -> None:
    async with opened(duplicates="refuse") as caller:
        await caller.stored()
        assert (await caller.upload(participantId=None, fileNumber="796130115")).status == 400


async def test_the_policy_can_change_while_it_runs() -> None:
    async with opened() as caller:
        await caller.stored()
        assert (await caller.control("/duplicates", policy="refuse")).json == {"policy": "refuse"}
        assert (await caller.upload()).status == 400
        assert "Known: accept, refuse, flag" in (await caller.control("/duplicates", policy="drop")).json["error"]


async def test_an_idempotency_key_is_honoured_only_when_told() -> None:
    key = {"Idempotency-Key": "one"}
    async with opened() as caller:
        ids = [(await caller.upload(headers=key)).data["requestId"] for _ in range(2)]
        assert ids == [FIRST, FIRST + 1]
    async with opened(idempotency=True) as caller:
        ids = [(await caller.upload(headers=key)).data["requestId"] for _ in range(2)]
        assert ids == [FIRST, FIRST]
        assert (await caller.upload(headers=key, claimId=7)).status == 422
        assert (await caller.upload(headers={"Idempotency-Key": "two"})).data["requestId"] == FIRST + 1
        assert (await caller.upload()).data["requestId"] == FIRST + 2


async def test_the_record_of_an_upload() -> None:
    async with opened(step=(1.0, 1.0)) as caller:
        await caller.stored(claimId="77", fileName="Statement.PDF", docType="L228")
        expected = {
            "requestId": FIRST,
            "claimId": 77,
            "docType": "L228",
            "fileName": "Statement.PDF",
            "sha256": hashlib.sha256(PDF).hexdigest(),
            "size": len(PDF),
            "stored": 1,
            "lost": 0,
            "status": "IN_PROGRESS",
        }
        assert await caller.lines() == [expected]
        await caller.forward(5)
        assert await caller.lines() == [{**expected, "status": "SUCCESS"}]


@pytest.mark.parametrize("fault", ["lost_reply", "truncated", "timeout"])
async def test_a_reply_can_be_lost_after_the_upload_was_stored(fault: str) -> None:
    async with opened(faults=(f"{fault}=1@upload",), hang=0.05) as caller:
        with pytest.raises(aiohttp.ClientError):
            await caller.upload()
        (line,) = await caller.lines()
        assert (line["stored"], line["lost"]) == (1, 1)
        assert (await caller.control("/record")).json["uploads"]["lost"] == 1


@pytest.mark.parametrize(("fault", "status"), [("invalid_json", 200), ("empty", 200), ("html", 200), ("error504", 504)])
async def test_a_reply_can_be_spoilt_after_the_upload_was_stored(fault: str, status: int) -> None:
    async with opened(faults=(f"{fault}=1@upload",)) as caller:
        form = aiohttp.FormData()
        form.add_field("parameters", json.dumps({"data": CLAIM}), content_type="application/json")
        form.add_field("file", PDF, filename="file")
        headers = {"Authorization": f"Bearer {caller.token}"}
        answer = await caller.send("POST", "/services/benefits-documents/v1/documents", data=form, headers=headers)
        assert answer.status == status
        (line,) = await caller.lines()
        assert (line["stored"], line["lost"]) == (1, 1)


async def test_a_slow_reply_is_not_a_lost_one() -> None:
    async with opened(faults=("slow_body=1@upload",), drip=0.05) as caller:
        await caller.stored()
        assert [line["lost"] for line in await caller.lines()] == [0]


async def test_a_lost_reply_stays_lost_when_the_document_comes_again() -> None:
    async with opened(duplicates="flag", faults=("lost_reply=1@upload",), max_in_a_row=1) as caller:
        with pytest.raises(aiohttp.ClientError):
            await caller.upload()
        assert (await caller.upload()).data == {"success": True, "requestId": FIRST, "duplicate": True}
        (line,) = await caller.lines()
        assert (line["stored"], line["lost"]) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        "disconnect",
        "error500",
        "error500_verify",
        "error502",
        "error503",
        "error504_unstored",
        "html500",
        "throttle",
        "expired_token",
    ],
)
async def test_a_fault_before_the_upload_was_stored(fault: str) -> None:
    async with opened(faults=(f"{fault}=1@upload",)) as caller:
        if fault == "disconnect":
            with pytest.raises(aiohttp.ClientError):
                await caller.upload()
        else:
            assert (await caller.upload()).status >= 400
        assert await caller.lines() == []


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5), ("5", 5), ("-5", -5), (None, None), (True, None), (5.0, None), ("", None), ("٣", None), ("1_0", None), (" 1", None),
     ("9" * 21, None), ([1], None)],
)  # fmt: skip
def test_whole_numbers(value: object, number: int | None) -> None:
    assert whole(value) == number


@pytest.mark.parametrize(
    ("name", "kind"), [("a.PDF", "pdf"), ("a.b.txt", "txt"), ("a", ""), (".pdf", ""), ("a.", ""), (None, "")]
)
def test_kinds_of_files(name: object, kind: str) -> None:
    assert kind_of(name) == kind
