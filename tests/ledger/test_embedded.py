"""The embedded PostgreSQL, for real: real servers, real kills, real full disks. As root and as others where we are root.

Other processes are `USER` below: one that says in JSON how it fared, then waits for a line on its input and lets go.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from counterfoil.ledger import embedded as e
from counterfoil.ledger.embedded_errors import diagnose
from counterfoil.ledger.embedded_folder import Folder
from counterfoil.ledger.embedded_host import find_binaries

REPOSITORY = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
USER = """
import json, os, subprocess, sys
from pathlib import Path
from counterfoil.ledger import embedded as e
if sys.argv[2:]:  # only now: the interpreter itself may stand where the others may not look
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
try:
    server = e.ensure_running(Path(sys.argv[1]), durable=False)
except e.EmbeddedError as error:
    print(json.dumps({"error": type(error).__name__, "words": str(error)}), flush=True)
    sys.exit()
print(json.dumps({"pid": server.pid, "ours": server.started_by_us, "dsn": server.dsn, "notes": server.notes}), flush=True)
sys.stdin.readline()
print(json.dumps({"stopped": e.release(server)}), flush=True)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Beside pytest's own folders, whose mode 700 would shut out everybody but us."""
    place = Path(tempfile.mkdtemp(prefix="counterfoil-"))
    place.chmod(0o755)
    yield place
    for folder in place.glob("*"):
        e.stop(folder)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="counterfoil-"))
    with e.embedded(place / "data", durable=False):
        pass
    yield place / "data"
    shutil.rmtree(place)


@pytest.fixture
def data(made: Path) -> Iterator[Path]:
    """A database that was made and is stopped, for the tests that are not about its making nor spoil it."""
    yield made
    e.stop(made)


def process(folder: Path, *prefix: str, script: str = USER, uid: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", script, str(folder), *([] if uid is None else [str(uid)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        cwd="/",
        start_new_session=True,
    )


def heard(other: subprocess.Popen[str]) -> dict[str, Any]:
    assert other.stdout is not None
    return dict(json.loads(other.stdout.readline()))


def let_go(other: subprocess.Popen[str]) -> bool:
    assert other.stdin is not None
    other.stdin.write("\n")
    other.stdin.flush()
    stopped = bool(heard(other)["stopped"])
    end(other)
    return stopped


def end(other: subprocess.Popen[str]) -> None:
    os.killpg(other.pid, signal.SIGKILL)
    other.communicate()


async def ask(dsn: str, question: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


# --- start and stop -----------------------------------------------------------------------------------------------


async def test_first_start_makes_a_closed_database_and_the_last_release_stops_it(home: Path) -> None:
    folder = home / "data with 'odd' $name"
    with e.embedded(folder) as server:
        assert server.started_by_us
        assert await ask(server.dsn, "select current_database() || current_user") == "counterfoilcounterfoil"
        assert (
            await ask(server.dsn, "select rolpassword from pg_authid where rolname = 'counterfoil'") > "SCRAM-SHA-256"
        )
        wanted = {"fsync": "on", "jit": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        for name, value in wanted.items():
            assert await ask(server.dsn, f"show {name}") == value
        password = folder.joinpath("password").read_text().strip()
        assert password in server.dsn
        assert password not in repr(server)
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(server.dsn.replace(password, "guess"), "select 1")
        assert os.getsid(server.pid) != os.getsid(0), "a Ctrl-C of our terminal must not reach it"
        assert e.status(folder) == e.Status(
            "running", "18", server.port, server.pid, (os.getpid(),), folder / "server.log"
        )
    assert {name: (folder / name).stat().st_mode & 0o777 for name in (".", "pgdata", "users", "password", "lock")} == {
        ".": 0o700, "pgdata": 0o700, "users": 0o700, "password": 0o600, "lock": 0o600
    }  # fmt: skip
    assert home.stat().st_mode & 0o777 == 0o755
    assert e.status(folder) == e.Status("stopped", "18", server.port, None, (), folder / "server.log")
    assert not e.release(server), "a second release does nothing"


async def test_data_and_port_stay_over_a_restart(data: Path) -> None:
    with e.embedded(data, durable=False) as first:
        await ask(first.dsn, "create table kept as select 7 as seven")
    with e.embedded(data, durable=False) as second:
        assert await ask(second.dsn, "select seven from kept") == 7
    assert (second.port, second.started_by_us) == (first.port, True)


async def test_two_handles_of_one_process_count_twice(data: Path) -> None:
    with e.embedded(data, durable=False) as first:
        with e.embedded(data) as second:
            assert (second.pid, second.started_by_us) == (first.pid, False)
            assert "fsync is off" in second.notes[0]
        assert await ask(first.dsn, "select 1") == 1
    assert e.status(data).state == "stopped"


async def test_processes_that_start_at_once_share_one_server_and_the_last_stops_it(home: Path) -> None:
    others = [process(home / "data") for _ in range(3)]
    told = [heard(other) for other in others]
    assert len({one["pid"] for one in told}) == 1
    assert sorted(one["ours"] for one in told) == [False, False, True]
    assert [let_go(others[0]), let_go(others[1])] == [False, False]
    assert await ask(told[2]["dsn"], "select 1") == 1
    assert let_go(others[2])
    assert e.status(home / "data").state == "stopped"


def test_status_and_stop_of_a_folder_that_is_not_there_make_nothing(home: Path) -> None:
    assert e.status(home / "none") == e.Status("absent")
    assert not e.stop(home / "none")
    assert not (home / "none").exists()


def test_stop_ends_it_for_all_and_status_says_busy_while_somebody_starts(data: Path) -> None:
    other = process(data)
    heard(other)
    assert e.stop(data)
    assert not let_go(other), "there was nothing left to stop"
    with Folder(data).guarded(1):
        assert e.status(data).state == "busy"


# --- kills --------------------------------------------------------------------------------------------------------


async def test_server_outlives_its_starter_and_the_next_start_adopts_it(data: Path) -> None:
    starter = process(data)
    told = heard(starter)
    end(starter)
    assert await ask(told["dsn"], "select 1") == 1
    with e.embedded(data) as server:
        assert (server.pid, server.started_by_us) == (told["pid"], False)
        assert e.status(data).users == (os.getpid(),), "the dead one does not count"
    assert e.status(data).state == "stopped"


async def test_killed_server_is_recovered_with_all_that_was_committed(data: Path) -> None:
    with e.embedded(data) as server:
        await ask(server.dsn, "create table many as select generate_series(1, 1000) as n")
        busy = await asyncpg.connect(server.dsn)
        # Runs for ever and looks at nothing meanwhile: an orphan that does not notice the death of the server.
        endless = asyncio.ensure_future(busy.execute("do $$ begin loop null; end loop; end $$"))
        await ask(server.dsn, "select 1")
        os.kill(server.pid, signal.SIGKILL)
        with e.embedded(data) as again:
            assert again.pid != server.pid
            assert again.port == server.port
            assert any("recovered" in note for note in again.notes)
            assert await ask(server.dsn, "select count(*) from many") == 1000
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await endless
        busy.terminate()


async def test_number_of_a_dead_server_may_belong_to_somebody_else_now(data: Path) -> None:
    sleeper = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with e.embedded(data, durable=False) as server:
        os.kill(server.pid, signal.SIGKILL)
    trace = data / "pgdata/postmaster.pid"
    lines = trace.read_text().splitlines()
    trace.write_text("\n".join([str(sleeper.pid), *lines[1:]]) + "\n")
    assert not e.stop(data)
    with e.embedded(data, durable=False) as again:
        assert await ask(again.dsn, "select 1") == 1
    assert sleeper.poll() is None, "nobody else was signalled"
    sleeper.communicate()


@pytest.mark.parametrize("instants", [(0.1, 0.2, 0.3, 0.4), (0.5, 0.7)])
async def test_starts_killed_at_any_instant_leave_nothing_that_stops_the_next(
    home: Path, instants: tuple[float, ...]
) -> None:
    for instant in instants:
        other = process(home / "data")
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=instant)
        end(other)
    with e.embedded(home / "data", durable=False) as server:
        assert await ask(server.dsn, "select 1") == 1
    assert not list((home / "data").glob("pgdata.new-*"))


async def test_half_made_database_of_a_killed_start_is_swept(home: Path) -> None:
    half = home / "data/pgdata.new-0badcafe"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with e.embedded(home / "data", durable=False) as server:
        assert await ask(server.dsn, "select 1") == 1
        assert any("killed while it made" in note for note in server.notes)
    assert not half.exists()


async def test_server_that_is_not_ready_in_time_is_joined_by_the_next(data: Path) -> None:
    with e.embedded(data, durable=False) as first:
        trace = data / "pgdata/postmaster.pid"
        ready = trace.read_text()
        trace.write_text(ready.replace("ready   ", "starting"))
        with pytest.raises(e.StartTimeout, match=r"(?s)last lines of its log:.*ready to accept connections"):
            e.ensure_running(data, timeout=0)
        trace.write_text(ready)
        os.kill(first.pid, signal.SIGSTOP)
        with pytest.raises(e.StartTimeout, match="runs but does not answer"):
            e.ensure_running(data, timeout=0)
        os.kill(first.pid, signal.SIGCONT)
        with e.embedded(data, durable=False) as second:
            assert (second.pid, second.started_by_us) == (first.pid, False)


# --- what a person must hear --------------------------------------------------------------------------------------


async def test_taken_port_is_left_to_its_owner_unless_it_was_insisted_on(data: Path) -> None:
    with e.embedded(data, durable=False) as before:
        pass
    with socket.create_server(("127.0.0.1", before.port)):
        with e.embedded(data, durable=False) as server:
            assert server.port != before.port
            assert any(f"Port {before.port} is used by another program" in note for note in server.notes)
            assert await ask(server.dsn, "select 1") == 1
        with pytest.raises(e.PortTaken, match=f"Port {before.port} of 127.0.0.1 .* ask for no particular port"):
            e.ensure_running(data, port=before.port)
    assert e.status(data).users == ()


def test_data_of_another_major_is_named_and_left_alone(home: Path, made: Path) -> None:
    data = home / "data"
    subprocess.run(["cp", "-a", str(made), str(data)], check=True)
    version = data / "pgdata/PG_VERSION"
    version.write_text("15\n")
    with pytest.raises(e.OtherMajor, match=r"PostgreSQL 15; the programs here are of 18.*pg_upgrade.*dump.*move.*DSN"):
        e.ensure_running(data)
    version.unlink()
    with pytest.raises(e.DataDamaged, match="no PG_VERSION"):
        e.ensure_running(data)
    version.write_text("18\n")
    (data / "pgdata/global/pg_control").rename(data / "pgdata/away")
    with pytest.raises(e.DataDamaged, match=r"is damaged\. Restore it"):
        e.ensure_running(data)


async def test_lost_password_is_replaced_when_the_server_is_down(data: Path) -> None:
    with e.embedded(data, durable=False) as before:
        (data / "password").unlink()
        with pytest.raises(e.DataDamaged, match="password is gone while the server runs"):
            e.ensure_running(data)
    with e.embedded(data, durable=False) as server:
        assert server.dsn != before.dsn
        assert await ask(server.dsn, "select 1") == 1


def test_foreign_server_on_our_data_is_not_touched(data: Path) -> None:
    lock = data / "server.lock"
    # A server that holds another lock than ours: as if somebody had called pg_ctl by hand.
    with e.embedded(data, durable=False) as server:
        lock.rename(data / "hidden")
        with pytest.raises(e.FolderBusy, match=rf"did not start \(process {server.pid}\)"):
            e.ensure_running(data)
        (data / "hidden").rename(lock)


def test_processes_out_of_sight_hold_the_folder(data: Path) -> None:
    """Such as a server in another container: its lock is seen, its processes are not."""
    lock = Folder(data).take(data / "server.lock")
    assert lock is not None
    (data / "pgdata/postmaster.pid").write_text("4194304\n/data\n1\n5432\n\n127.0.0.1\n1 1\nready\n")
    with pytest.raises(e.FolderBusy, match="another container"):
        e.ensure_running(data, timeout=0.1)
    assert e.status(data).state == "orphaned"
    os.close(lock)


def test_missing_programs_ask_for_a_dsn() -> None:
    with pytest.raises(e.BinariesMissing, match=r"for this platform .* as DSN"):
        find_binaries("no_such_package_of_ours")
    assert find_binaries().major >= 18, "the newest of those in the wheel"


def test_file_in_the_way_of_the_folder(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(e.FolderNotWritable, match="there is a file in its way"):
        e.ensure_running(home / "file/data")


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("initdb: error: could not write to file: No space left on device", e.DiskFull),
        ("x\nunshare: unshare failed: Operation not permitted", e.NoUnprivilegedUser),
        ("initdb: error: could not look up effective user ID 12: user does not exist", e.NoUnprivilegedUser),
        ("FATAL:  data directory has wrong ownership", e.FolderNotWritable),
        ("PANIC:  could not locate a valid checkpoint record at 0/1", e.DataDamaged),
        ("FATAL:  something new", e.StartFailed),
    ],
)
def test_cause_is_read_from_the_log(log: str, error: type[e.EmbeddedError]) -> None:
    found = diagnose(log, Path("/data"), e.StartFailed, "PostgreSQL did not start")
    assert type(found) is error
    assert found.remedy
    assert "/data" in str(found) or "/etc/passwd" in str(found)


FULL = """
import json, subprocess, sys
from pathlib import Path
from counterfoil.ledger import embedded as e
home, told = Path(sys.argv[1]), []
def attempt(folder):
    try:
        with e.embedded(folder, durable=False):
            told.append("runs")
    except e.EmbeddedError as error:
        told.append(f"{type(error).__name__}: {error}")
for name, size in (("small", "20M"), ("tight", "120M")):
    (home / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(home / name)], check=True)
attempt(home / "small/data")
told.append(sorted(path.name for path in (home / "small/data").iterdir() if path.name.startswith("pgdata")))
attempt(home / "tight/data")
with (home / "tight/filler").open("wb", buffering=0) as filler:
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        pass
attempt(home / "tight/data")
(home / "tight/filler").unlink()
attempt(home / "tight/data")
print(json.dumps({"told": told}), flush=True)
"""


@as_root
def test_full_disk_is_named_and_nothing_half_stays(home: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no mounts here")
    other = process(home, "unshare", "-m", script=FULL)
    small, rest, first, full, after = heard(other)["told"]
    other.communicate()
    assert small.startswith("DiskFull: The disk of ")
    assert rest == []
    assert first == "runs"
    assert full.startswith("DiskFull: ")
    assert "Free some space there" in full
    assert after == "runs"


# --- whoever we are -----------------------------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("uid", [65534, 54321])
async def test_normal_user_and_one_without_a_name(home: Path, uid: int) -> None:
    os.chown(home, uid, uid)
    other = process(home / "data", uid=uid)
    told = heard(other)
    assert "error" not in told, told
    assert await ask(told["dsn"], "select 1") == 1
    with e.embedded(home / "data") as server:
        assert server.pid == told["pid"], "root joins it"
        assert not let_go(other)
    # And once more, started by root in that user's folder: it stays that user's.
    with e.embedded(home / "data", durable=False):
        pass
    assert {path.stat().st_uid for path in (home / "data").rglob("*")} == {uid}
    other = process(home / "data", uid=uid)
    assert heard(other)["ours"]
    assert let_go(other)


@as_root
def test_folder_of_somebody_else_is_refused_with_a_remedy(home: Path, data: Path) -> None:
    for folder in (data, home / "new"):
        told = heard(process_of_nobody := process(folder, uid=65534))
        process_of_nobody.communicate()
        assert told["error"] == "FolderNotWritable"
        assert "DSN" in told["words"]


@as_root
async def test_root_in_the_folder_of_a_user_runs_as_that_user(home: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    os.chown(home, daemon.pw_uid, daemon.pw_gid)
    home.chmod(0o700)
    with e.embedded(home / "data", durable=False) as server:
        assert any("as user daemon" in note for note in server.notes)
        assert await ask(server.dsn, "select 1") == 1
    assert {path.stat().st_uid for path in (home / "data").rglob("*")} == {daemon.pw_uid}


@as_root
async def test_root_without_namespaces_falls_back_to_nobody(
    home: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "bin").mkdir()
    refusing = home / "bin/unshare"
    refusing.write_text("#!/bin/sh\necho unshare: unshare failed: Operation not permitted\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(home / "bin"))
    with e.embedded(home / "data", durable=False) as server:
        assert any("as user nobody" in note for note in server.notes)
        assert await ask(server.dsn, "select 1") == 1
        assert Path(f"/proc/{server.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    with e.embedded(home / "data", durable=False) as server:
        assert server.started_by_us
    with pytest.raises(e.NoUnprivilegedUser, match=r"allows no user namespace .*chown -R nobody pgdata"):
        e.ensure_running(data)
    home.chmod(0o700)
    with pytest.raises(e.NoUnprivilegedUser, match=r"nobody else can reach .* normal user"):
        e.ensure_running(home / "new")
    assert home.stat().st_mode & 0o777 == 0o700, "no parent folder was opened"
    assert not list((home / "new").glob("pgdata*"))
