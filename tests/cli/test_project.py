"""The commands on a project as `init` makes it, on a real database: what is printed, what is JSON, what the exit code says."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import Cli

NOTHING_LEFT = "inserted 0 + updated 0"


def test_from_nothing_to_the_proof(folder: Path, cli: Cli) -> None:
    assert cli("check").code == 0
    assert "new table public.members" in cli("plan").out
    first = cli("sync", "run", "example")
    assert first.code == 5
    assert (
        "found 7 = inserted 3 + updated 0 + unchanged 0 + rejected 3 + review 1 + failed 0 (each an item)" in first.out
    )
    assert "1 item for a person" in first.out
    again = cli("sync", "run", "example")
    assert NOTHING_LEFT in again.out
    assert "unchanged 3" in again.out
    assert cli("plan").out.strip() == "example: nothing to change"
    audit = cli("audit", "--json")
    assert (audit.code, audit.json["holds"]) == (0, True)
    (flow,) = audit.json["flows"]
    assert flow["accepted"] == flow["settled"] + flow["due"] + flow["owned"] == 4
    told = cli("status", "--check")
    assert told.code == 0
    assert "of example, 1 item: No fee is known; a person decides. Owner operators, due" in told.out
    assert cli("doctor").code == 0


def test_a_dry_run_shows_all_and_writes_nothing(folder: Path, cli: Cli) -> None:
    cli("migrate")
    said = cli("sync", "run", "example", "--dry-run")
    assert said.code == 0
    assert "found 7 = inserted 3" in said.out
    assert cli("sync", "list", "--json").json["runs"] == []
    assert cli("items", "list", "--all", "--json").json["items"] == []


def test_an_item_by_hand(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example")
    (item,) = cli("items", "list", "--json").json["items"]
    assert (item["key"], item["state"]) == ("1004", "REVIEW")
    told = cli("items", "explain", "1004").out
    assert "In review: a person decides" in told
    assert f"counterfoil items release id:{item['id']} --reason" in told
    assert cli("items", "release", "1004").code == 2
    preview = cli("items", "release", "1004", "--dry-run", "--json").json
    assert (preview["changed"], preview["items"][0]["to"]) == (1, "QUEUED")
    assert cli("items", "list", "--state", "REVIEW", "--json").json["items"] != []
    assert cli("items", "release", "--where", "flow=example state=REVIEW", "--reason", "known to us").code == 0
    story = cli("items", "explain", "1004", "--json").json
    assert story["state"] == "QUEUED"
    assert "released by ana@desk. known to us." in story["history"][-1]
    assert cli("items", "release", "1004", "--reason", "again").code == 6


def test_items_from_a_file_and_stdin(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("sync", "run", "example")
    (folder / "keys.txt").write_text("1005\n\n1006\n")
    said = cli("items", "retry", "--file", "keys.txt", "--reason", "mended at the source", "--json").json
    assert [item["key"] for item in said["items"]] == ["1005", "1006"]
    assert said["changed"] == 2
    (folder / "keys.txt").write_text("1004\nnobody\n")
    unknown = cli("items", "archive", "--file", "keys.txt", "--reason", "x")
    assert (unknown.code, "`nobody`" in unknown.err) == (3, True)
    assert cli("items", "show", "1004", "--json").json["item"]["state"] == "REVIEW"


def test_many_items_need_a_yes(folder: Path, cli: Cli) -> None:
    rows = "".join(f"k{n},Somebody,01/01/2020,\n" for n in range(101))
    (folder / "data" / "example.csv").write_text("Member No,Name,Joined,Fee\n" + rows)
    cli("sync", "run", "example")
    refused = cli("items", "retry", "--flow", "example", "--reason", "x")
    assert (refused.code, "That is 101 items" in refused.err) == (2, True)
    assert cli("items", "retry", "--flow", "example", "--reason", "x", "--dry-run", "--json").json["meant"] == 101
    done = cli("items", "retry", "--flow", "example", "--reason", "x", "--yes")
    assert done.code == 0
    assert "101 of 101 items are due again." in done.err
    assert "and 81 more" in done.err


def test_a_case_until_it_is_closed(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example")
    (case,) = cli("case", "list", "--json").json["cases"]
    shown = cli("case", "show", str(case["id"])).out
    assert "owns 1 item\n" in shown
    assert "1004" in shown
    cli("items", "cancel", "1004", "--reason", "left the club")
    assert cli("case", "list", "--json").json["cases"] == []
    assert "closed" in cli("case", "show", str(case["id"])).out
    assert cli("case", "show", "999").code == 3


def test_runs_without_waiting_then_cancelled_then_shown(folder: Path, cli: Cli) -> None:
    assert cli("sync", "run", "example", "--no-wait").code == 0
    (run,) = cli("sync", "list", "example", "--json").json["runs"]
    assert run["state"] == "queued"
    assert cli("sync", "cancel", "example").code == 2
    assert "Would cancel" in cli("sync", "cancel", "example", "--dry-run").err
    assert cli("sync", "cancel", "example", "--reason", "not today").code == 0
    assert cli("sync", "cancel", "example", "--reason", "not today").code == 3
    shown = cli("sync", "show", str(run["id"]))
    assert "cancelled by a person" in shown.out


def test_a_queued_run_is_gone_on_with_and_not_doubled(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example", "--no-wait")
    said = cli("sync", "run", "example")
    assert "Going on with run" in said.err
    assert len(cli("sync", "list", "--json").json["runs"]) == 1


def test_a_window_is_not_given_to_a_run_that_is_open(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example", "--no-wait")
    said = cli("sync", "run", "example", "--since", "7d")
    assert said.code == 6
    assert "sync cancel example" in said.err


def test_an_outcome_for_other_programs(folder: Path, cli: Cli) -> None:
    found = cli("sync", "run", "example", "--json").json
    assert found["schema_version"] == 1
    assert found["run"]["balanced"] is True
    assert {fault["fault"] for fault in found["run"]["faults"]} == {"bad_date", "missing", "paying_member"}
    assert cli("sync", "show", "example", "--json").json["run"]["id"] == found["run"]["id"]


def test_check_says_every_fault_with_line_and_remedy(folder: Path, cli: Cli) -> None:
    flow = folder / "flows" / "example.yaml"
    flow.write_text(flow.read_text().replace("connector: file", "connectr: file"))
    (folder / "counterfoil.toml").write_text("[database]\ndsnn = 'x'\n")
    said = cli("check")
    assert said.code == 2
    assert "counterfoil.toml:2: Unknown field `dsnn`" in said.out
    assert "flows/example.yaml:" in said.out
    assert "Did you mean `connector`?" in said.out
    assert len(cli("check", "--json").json["faults"]) == len(said.out.splitlines())
    run = cli("sync", "run", "example")
    assert (run.code, "counterfoil.toml:2:" in run.err) == (2, True)


def test_a_project_without_flows_says_so(folder: Path, cli: Cli) -> None:
    (folder / "flows" / "example.yaml").unlink()
    for command in ("check", "plan"):
        assert "flows/NAME.yaml" in cli(command).err


def test_a_database_that_is_not_migrated_says_so(
    folder: Path, cli: Cli, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", os.environ["DATABASE_URL"].rpartition("/")[0] + "/postgres")
    said = cli("status")
    assert (said.code, "counterfoil migrate" in said.err) == (6, True)
    assert "migrations are missing" in cli("doctor", "--offline").out


def test_a_server_that_is_not_there(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    said = cli("status", "--json")
    assert said.code == 7
    assert '"code":"unhealthy"' in said.err
    assert "PostgreSQL at 127.0.0.1:1 can't be reached: Connection refused." in said.err
    assert said.out == ""
    assert cli("doctor").code == 7


def test_the_doctor_says_it_where_the_login_may_do_nothing(
    folder: Path, cli: Cli, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("migrate")
    place = urlsplit(database)
    with monkeypatch.context() as patch:
        patch.setenv("DATABASE_URL", place._replace(netloc=f"stranger@{place.netloc.rpartition('@')[2]}").geturl())
        said = cli("doctor", "--json")
    assert said.code == 7
    assert [check["well"] for check in said.json["checks"]][-1] is False


def test_a_dsn_that_can_not_be_read(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:hunter2@db:port/x")
    said = cli("status")
    assert (said.code, "hunter2" in said.err) == (2, False)
    assert "Write postgresql://user:password@host:5432/name." in said.err


def test_init_overwrites_nothing(folder: Path, cli: Cli) -> None:
    said = cli("init", str(folder))
    assert said.code == 6
    assert "Nothing was written" in said.err


def test_a_project_is_found_from_below_or_named(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "flows")
    assert cli("check").code == 0
    monkeypatch.chdir(folder.parent)
    assert cli("check").code == 3
    assert cli("check", "--project", str(folder)).code == 0
    assert cli("--project", str(folder), "--json", "check").json["faults"] == []


@pytest.mark.parametrize(
    "command", [["case", "show", "9" * 25], ["items", "show", "a\0b"], ["sync", "list", "--before", "9" * 25]]
)
def test_a_value_no_database_takes(folder: Path, cli: Cli, command: list[str]) -> None:
    cli("migrate")
    said = cli(*command)
    assert said.code in (2, 3)
    assert "should not" not in said.err


def test_a_folder_that_can_not_be_made(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli("init", str(tmp_path / "file" / "club"))
    assert said.code == 1
    assert str(tmp_path / "file") in said.err


def test_a_backfill_by_windows(folder: Path, cli: Cli) -> None:
    said = cli("sync", "run", "example", "--since", "2026-01-01", "--until", "2026-01-04", "--step", "1d", "--json")
    windows = [(run["since"][:10], run["until"][:10]) for run in said.json["runs"]]
    days = [f"2026-01-0{day}" for day in (1, 2, 3, 4)]
    assert windows == list(itertools.pairwise(days))
    assert said.json["run"]["id"] == said.json["runs"][-1]["id"]
    assert len(cli("sync", "list", "--json").json["runs"]) == 3


def test_a_window_the_source_is_not_asked_for_is_told(folder: Path, cli: Cli) -> None:
    said = cli("sync", "run", "example", "--since", "2d", "--until", "1d", "--step", "1d")
    assert "does not ask by {since} and {until}: each window reads more than its window" in said.err
    assert len(cli("sync", "list", "--json").json["runs"]) == 1  # both counted from the same now: no rest of a moment
    assert "does not ask" not in cli("sync", "run", "example").err


def test_nobody_reads_on(folder: Path) -> None:
    command = f"{sys.executable} -m counterfoil completion bash | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_migrate_twice(folder: Path, cli: Cli) -> None:
    first = cli("migrate", "--json").json
    assert first["migrations"] == []
    assert any("new table public.members" in change for change in first["changes"])
    assert cli("migrate", "--json").json["changes"] == []


def test_a_worker_stops_in_order_when_asked(folder: Path) -> None:
    command = [sys.executable, "-m", "counterfoil", "up"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "worker.started" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_no_data_is_mixed_with_words(folder: Path) -> None:
    """In a process of its own: the engine's log must not reach stdout either."""
    command = [sys.executable, "-m", "counterfoil", "sync", "run", "example", "--json", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith('{"schema_version":1')


@pytest.mark.parametrize("command", [["items", "list", "--flow"], ["case", "list", "--flow"], ["sync", "list"]])
def test_a_mistyped_flow_is_not_an_empty_one(folder: Path, cli: Cli, command: list[str]) -> None:
    cli("migrate")
    assert cli(*command, "example").code == 0
    said = cli(*command, "exmaple")
    assert (said.code, said.out) == (3, "")
    assert "no flow `exmaple`" in said.err
    assert "Known: example." in said.err


def test_acts_on_a_mistyped_flow_say_so(folder: Path, cli: Cli) -> None:
    cli("migrate")
    assert "no flow `exmaple`" in cli("items", "retry", "--flow", "exmaple", "--reason", "x").err


def test_stdin_is_written_as_a_hyphen(folder: Path) -> None:
    command = [sys.executable, "-m", "counterfoil", "items", "retry", "--file", "-", "--dry-run", "--json"]
    migrated = subprocess.run([sys.executable, "-m", "counterfoil", "sync", "run", "example"], capture_output=True)
    assert migrated.returncode == 5, migrated.stderr
    done = subprocess.run(command, input="1005\n1006\n", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"meant":2' in done.stdout


def test_every_unknown_name_of_a_file_is_told(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example")
    (folder / "keys.txt").write_text("1004\n" + "".join(f"nobody{n}\n" for n in range(12)))
    said = cli("items", "archive", "--file", "keys.txt", "--reason", "x")
    assert (said.code, said.err.count("There is no item `nobody")) == (3, 10)
    assert "and 2 more" in said.err
    assert "can't be read: No such file or directory." in cli("items", "archive", "--file", "none", "--reason", "x").err


def test_a_case_says_what_may_be_done(folder: Path, cli: Cli) -> None:
    cli("sync", "run", "example")
    (case,) = cli("case", "list", "--json").json["cases"]
    said = cli("case", "show", str(case["id"]))
    assert "owns 1 item\n" in said.out
    assert f"items release --case {case['id']}" in said.err
    assert "retry" not in said.err
    assert cli("case", "show", str(case["id"] + 1)).code == 3


def test_a_case_of_a_whole_flow_says_what_closes_it(folder: Path, cli: Cli) -> None:
    (folder / "data" / "example.csv").unlink()
    assert cli("sync", "run", "example").code == 1
    (case,) = cli("case", "list", "--json").json["cases"]
    assert (
        "closes by itself with the next good run: `counterfoil sync run example`"
        in cli("case", "show", str(case["id"])).err
    )
