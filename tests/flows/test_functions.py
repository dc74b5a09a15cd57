from __future__ import annotations

import sys
from pathlib import Path

import pytest

from counterfoil.flows.functions import load_functions
from counterfoil.model.errors import NotFoundError


def test_only_what_the_file_defines_itself_is_known(tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text("from json import dumps\ndef a(r): ...\nclass B: ...\n_c = a\nd = 5\n")
    before = list(sys.path)
    functions, faults = load_functions(tmp_path)
    assert functions.known == ("B", "a")
    assert faults == ()
    assert sys.path == before
    with pytest.raises(NotFoundError, match="Known: `B`, `a`"):
        functions.get("dumps")


def test_two_projects_do_not_see_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "functions.py").write_text(f"def who(r): return '{name}'\n")
    assert [load_functions(tmp_path / name)[0].get("who")({}) for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a = 1\ndef f(:\n", 2, "Not valid Python"),
        ("a = 1\nb = 1 / 0\n", 2, "ZeroDivisionError"),
        ("def f():\n    raise KeyError('x')\n\nf()\n", 2, "KeyError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit"),
    ],
)
def test_a_file_that_does_not_import_is_one_fault(tmp_path: Path, text: str, line: int, problem: str) -> None:
    (tmp_path / "functions.py").write_text(text)
    functions, faults = load_functions(tmp_path)
    assert functions.known == ()
    assert [(fault.file, fault.line) for fault in faults] == [("functions.py", line)]
    assert problem in faults[0].problem


def test_a_file_with_a_nul_or_no_utf8(tmp_path: Path) -> None:
    for raw in (b"a = 1\x00\n", b"a = '\xff'\n"):
        (tmp_path / "functions.py").write_bytes(raw)
        assert [fault.line for fault in load_functions(tmp_path)[1]] == [1]


def test_no_file_is_no_functions(tmp_path: Path) -> None:
    functions, faults = load_functions(tmp_path)
    assert (functions.known, faults) == ((), ())
