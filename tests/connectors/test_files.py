"""The file connector on real files: whole ones, broken ones, ones that change, and ones that are too large."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from counterfoil.connectors import files
from counterfoil.connectors.files import FileSource
from counterfoil.flows.flow import Limits, SourceSpec
from counterfoil.model.clock import SystemClock
from counterfoil.model.errors import ConnectorError, Misconfigured, Refused, Transient
from counterfoil.model.ports import Page, Source
from counterfoil.model.run import Window
from counterfoil.testing.source_suite import SourceSuite, SourceWorld, pages_of

EVERYTHING = Window()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def source_of(folder: Path, name: str, **more: Any) -> FileSource:
    spec = replace(SourceSpec("file", url=name), **more)
    return FileSource(spec, environment={"DATA": "data.csv"}, folder=folder, concurrency=1, clock=SystemClock())


async def read(folder: Path, content: bytes | str, name: str = "data.csv", **more: Any) -> Page:
    """All pages of a file with this content, as one."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    pages = await pages_of(source_of(folder, name, **more), EVERYTHING)
    return Page([e for page in pages for e in page.entries], None, [b for page in pages for b in page.broken])


async def failing(call: Any) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await call
    return caught.value


def values(page: Page) -> list[list[str]]:
    return [list(json.loads(entry).values()) for entry in page.entries]


def places(page: Page) -> list[str]:
    return [broken.where for broken in page.broken]


# --- the suite ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    folder: Path
    name: str
    keys: list[str] = field(default_factory=lambda: [f"K-{number}" for number in range(5000)])
    unknown_key: str = "none"
    hangs: bool = False
    failures: dict[str, tuple[type[ConnectorError], str]] = field(
        default_factory=lambda: {"missing": (Transient, "file_missing"), "folder": (Misconfigured, "misconfigured")}
    )

    def source(self) -> Source:
        return source_of(self.folder, self.name)

    def key_of(self, entry: bytes) -> str:
        return str(json.loads(entry)["id"])

    def fail(self, name: str) -> None:
        path, aside = self.folder / self.name, self.folder / "aside"
        if name:
            path.rename(aside)
        if name == "folder":
            path.mkdir()
        if not name:
            if path.exists():
                path.rmdir()
            aside.rename(path)

    async def asked(self) -> None:
        raise NotImplementedError

    async def all_closed(self) -> bool:
        opened = (link.resolve() for link in Path("/proc/self/fd").iterdir() if link.exists())
        return self.folder / self.name not in set(opened)


class FileSuite(SourceSuite):
    name = ""

    @pytest.fixture(autouse=True)
    def _write(self, folder: Path) -> None:
        self.made = World(folder.resolve(), self.name)
        lines = [f'{key},"two\n lines"' for key in self.made.keys]
        if self.name.endswith("jsonl"):
            lines = [json.dumps({"id": key}) for key in self.made.keys]
        header = [] if self.name.endswith("jsonl") else ["id,name"]
        (folder / self.name).write_text("\n".join(header + lines))

    def world(self) -> AbstractAsyncContextManager[SourceWorld]:
        return self._world()

    @asynccontextmanager
    async def _world(self) -> AsyncIterator[SourceWorld]:
        yield self.made


class TestCsv(FileSuite):
    name = "data.csv"


class TestJsonl(FileSuite):
    name = "data.jsonl"


# --- CSV ----------------------------------------------------------------------------------------------------------


async def test_rows_become_objects_with_the_names_of_the_header(folder: Path) -> None:
    page = await read(folder, 'License Number,"Name, full",\r\n8002756,"O""Neil",x\r\n\r\n1,é,\r\n')
    assert [json.loads(entry) for entry in page.entries] == [
        {"License Number": "8002756", "Name, full": 'O"Neil', "column_3": "x"},
        {"License Number": "1", "Name, full": "é", "column_3": ""},
    ]


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ("x", ["line 3"]),
        ("x,y,z", ["line 3"]),
        ('x,"never closed', ["line 3"]),
        ('"x"y,z', ["line 3"]),
        ('x,"two\nlines",z', ["line 3"]),
        ('x,"stray\nx,"stray', ["line 3", "line 4"]),
    ],
)
async def test_a_broken_line_is_named_and_the_rest_goes_on(folder: Path, broken: str, where: list[str]) -> None:
    page = await read(folder, f"a,b\n1,2\n{broken}\n3,4\n5,6\n")
    assert values(page) == [["1", "2"], ["3", "4"], ["5", "6"]]
    assert places(page) == where


async def test_a_quote_inside_a_value_is_text(folder: Path) -> None:
    assert values(await read(folder, 'a,b\n5" pipe,2\n3,4\n')) == [['5" pipe', "2"], ["3", "4"]]


async def test_a_line_in_another_encoding_is_broken_alone(folder: Path) -> None:
    page = await read(folder, b"a,b\n1,2\n\xff\xfe,2\n3,4\n")
    assert values(page) == [["1", "2"], ["3", "4"]]
    assert places(page) == ["line 3"]
    assert page.broken[0].raw == b"\xff\xfe,2\n"


async def test_mark_encoding_and_delimiter(folder: Path) -> None:
    assert values(await read(folder, b"\xef\xbb\xbfid;b\n1;\xc3\xa9", delimiter=";")) == [["1", "é"]]
    assert values(await read(folder, b"id;b\n1;\xe9", delimiter=";", encoding="cp1252")) == [["1", "é"]]
    page = await read(folder, b"\xef\xbb\xbfid\tb\n1\t2", name="data.tsv")
    assert json.loads(page.entries[0]) == {"id": "1", "b": "2"}


async def test_a_line_of_50_mb_is_refused_in_flat_memory(folder: Path) -> None:
    with (folder / "data.csv").open("wb") as file:
        file.write(b"a,b\n1,2\n3,")
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b"\n5,6\n")
    source = source_of(folder, "data.csv", limits=Limits(record_bytes=1_000_000))
    tracemalloc.start()
    try:
        page = await source.page(EVERYTHING, None)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert values(page) == [["1", "2"], ["5", "6"]]
    assert places(page) == ["line 3"]
    assert "50000003 bytes" in page.broken[0].problem
    assert len(page.broken[0].raw) == files.KEPT_OF_BROKEN


async def test_a_quote_that_never_closes_in_a_large_file_costs_one_line(folder: Path) -> None:
    rows = "".join(f"{number},y\n" for number in range(20_000))
    page = await read(folder, f'a,b\nx,"open\n{rows}', limits=Limits(record_bytes=50_000))
    assert len(page.entries) == 20_000
    assert places(page) == ["line 2"]


async def test_values_over_the_limit_of_the_csv_module_are_read(folder: Path) -> None:
    assert len((await read(folder, f"a,b\n1,{'x' * 200_000}\n")).entries) == 1


@pytest.mark.parametrize("content", ["a,a\n1,2\n", "\na,b\n", b"\xff\xfea\x00,\x00b\x00\n\x00", 'a,"b\n'])
async def test_a_header_that_cannot_be_used_is_refused(folder: Path, content: bytes | str) -> None:
    error = await failing(read(folder, content))
    assert isinstance(error, Refused)
    assert error.fault == "bad_header"


@pytest.mark.parametrize("content", ["", "a,b", "a,b\n", "a,b\n\n\n"])
async def test_a_file_without_rows_is_an_empty_list(folder: Path, content: str) -> None:
    assert await read(folder, content) == Page([], None, [])


async def test_pages_in_any_place_give_the_same_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(4)
    pieces = ["1,2", 'x,"two\nlines"', "x", 'y,"open', "", "é,ü", '"q""q",z', "a,b,c", 'p,"m\n\nn"']
    content = "a,b\n" + "\n".join(dice.choice(pieces) for _ in range(400))
    whole = await read(folder, content)
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(files, "PAGE_ENTRIES", size)
        assert await read(folder, content) == whole


# --- JSON lines ---------------------------------------------------------------------------------------------------


async def test_lines_that_are_no_objects_are_broken_and_the_rest_goes_on(folder: Path) -> None:
    content = b'\xef\xbb\xbf{"id": 1.10}\r\n\n[1]\n{"id": \n{"id": "\xff"}\n{"id": NaN}\n  {"id": "\xc3\xa9"} '
    page = await read(folder, content, name="data.jsonl")
    assert page.entries == [b'{"id": 1.10}', '{"id": "é"}'.encode()]
    assert places(page) == ["line 3", "line 4", "line 5", "line 6"]


async def test_json_lines_in_another_encoding(folder: Path) -> None:
    page = await read(folder, b'{"id": "\xe9"}\n', name="data.ndjson", encoding="latin-1")
    assert page.entries == ['{"id": "é"}'.encode()]


async def test_a_json_line_over_the_limit_is_broken(folder: Path) -> None:
    content = '{"id": "1"}\n{"id": "' + "x" * 1000 + '"}\n{"id": "3"}\n'
    page = await read(folder, content, name="data.jsonl", limits=Limits(record_bytes=100))
    assert [json.loads(entry)["id"] for entry in page.entries] == ["1", "3"]
    assert places(page) == ["line 2"]


# --- files that change, are missing, or are elsewhere ---------------------------------------------------------------


async def test_a_file_that_changed_between_pages_is_read_again_and_not_for_ever(folder: Path) -> None:
    path = folder / "data.csv"
    path.write_text("a\n" + "".join(f"{number}\n" for number in range(3000)))
    source = source_of(folder, "data.csv")
    page = await source.page(EVERYTHING, None)
    for extra in range(files.MOST_RESTARTS):
        with path.open("a") as file:
            file.write(f"extra {extra}\n")
        page = await source.page(EVERYTHING, page.cursor)
        assert values(page)[0] == ["0"]
    rest = await source.page(EVERYTHING, page.cursor)
    assert values(rest)[-1] == [f"extra {files.MOST_RESTARTS - 1}"]
    with path.open("a") as file:
        file.write("one more\n")
    assert (await failing(source.page(EVERYTHING, page.cursor))).fault == "file_changing"


async def test_another_file_of_the_same_size_is_noticed(folder: Path) -> None:
    path = folder / "data.csv"
    path.write_text("a\n" + "old\n" * 3000)
    page = await source_of(folder, "data.csv").page(EVERYTHING, None)
    (folder / "new").write_text("a\n" + "new\n" * 3000)
    (folder / "new").replace(path)
    assert values(await source_of(folder, "data.csv").page(EVERYTHING, page.cursor))[0] == ["new"]


async def test_a_cursor_from_elsewhere_is_refused(folder: Path) -> None:
    (folder / "data.csv").write_text("a\n1\n")
    assert (await failing(source_of(folder, "data.csv").page(EVERYTHING, {"at": 3}))).fault == "unknown_cursor"


async def test_a_missing_file_may_still_be_delivered(folder: Path) -> None:
    assert (await failing(source_of(folder, "${DATA}").page(EVERYTHING, None))).fault == "file_missing"


@pytest.mark.parametrize("name", ["../secret.csv", "link.csv", "inside/../../secret.csv"])
def test_nothing_outside_the_project_folder_is_read(folder: Path, name: str) -> None:
    secret = folder.parent / "secret.csv"
    secret.write_text("a\n1\n")
    (folder / "link.csv").symlink_to(secret)
    for path in (name, str(secret)):
        with pytest.raises(Misconfigured, match="outside"):
            source_of(folder, path)


async def test_a_link_put_there_later_is_not_followed_outside(folder: Path) -> None:
    source = source_of(folder, "data.csv")
    (folder / "data.csv").symlink_to("/etc/passwd")
    assert isinstance(await failing(source.page(EVERYTHING, None)), Misconfigured)


@pytest.mark.parametrize(
    "change",
    [{"name": "data.xlsx"}, {"name": ""}, {"encoding": "utf-16"}, {"encoding": "no such"}, {"name": "${NOT_SET}"}],
)
def test_a_wrong_flow_is_refused_before_the_first_page(folder: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured) as caught:
        source_of(folder, **{"name": "data.csv", **change})
    assert caught.value.remedy


async def test_there_is_no_write_back(folder: Path) -> None:
    assert isinstance(await failing(source_of(folder, "data.csv").write_back("1", {})), Misconfigured)
