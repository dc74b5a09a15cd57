"""`make bench-sync`: records in, beside others. Lines A, B, C and J of docs/explanation/performance.md in one run.

One HTTP server, one PostgreSQL, a fresh database for each run; contestants take turns within each repeat, so that a busy
minute of the machine hits all of them. Progress on stderr, the table on stdout. Never fails because of a figure.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import contestants, data, database, peer_environments, report
from benchmarks.contestants import CONTESTANTS, Contestant, Task
from benchmarks.measure import Taken, last_line, run
from benchmarks.works import WORKS, Work

ENOUGH = 60.0  # seconds: whoever took longer is not asked to repeat it
SMALLEST = 60  # records, with --size


@dataclass(slots=True)
class Bench:
    """One run of the benchmark: where everything is, what was found so far."""

    dsn: str
    url: str
    folder: Path
    limit: float
    results: report.Results

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    options = _options()
    works = [_scaled(WORKS[name], options.size) for name in options.only]
    with tempfile.TemporaryDirectory(prefix="counterfoil-bench-") as place:
        folder = Path(place)
        with database.server(options.dsn, folder / "pg") as dsn, _other_side(works) as url:
            bench = Bench(dsn, url, folder, options.limit, report.Results(options.size))
            who = _present(bench, options.who)
            if not who:
                raise SystemExit(f"Nobody to measure: {bench.results.missing}")
            _versions(bench, who)
            for repeat in range(options.repeats):
                for work in works:
                    _measure(bench, work, who, repeat)
    print(report.table(bench.results, works))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(bench.results), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", type=_names(WORKS), default=list(WORKS), help="works, such as A,B")
    parser.add_argument(
        "--who", type=_names(CONTESTANTS), default=list(CONTESTANTS), help="contestants, such as ours,dlt"
    )
    parser.add_argument(
        "--size", type=float, default=1.0, help="share of the full number of records; 0.02 for a quick look"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_const", const=1, dest="repeats", help="the same as --repeats 1")
    parser.add_argument(
        "--limit", type=float, default=400.0, help="seconds after which a run is stopped and said to be"
    )
    parser.add_argument("--dsn", help="an empty PostgreSQL to use, its owner's login; otherwise one is started here")
    parser.add_argument("--json", type=Path, help="also write every run into this file")
    return parser.parse_args()


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    """Reads "A,B"."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]}; there are {', '.join(known)}")
        return names

    return read


def _scaled(work: Work, size: float) -> Work:
    return replace(work, count=max(SMALLEST, int(work.count * size)))


# --- the other side -----------------------------------------------------------------------------------------------


@contextmanager
def _other_side(works: Sequence[Work]) -> Iterator[str]:
    """The HTTP server in its own process; ends with its standard input."""
    counts = {work.base[1]: work.count for work in works}
    sizes = [part for letter in "abc" for part in (f"--{letter}", str(counts.get(letter, 0)))]
    command = [sys.executable, "-m", "benchmarks.server", *sizes]
    process = subprocess.Popen(command, cwd=contestants.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)


def _stats(bench: Bench, path: str) -> Mapping[str, Any]:
    with urllib.request.urlopen(f"{bench.url}/{path}", timeout=30) as response:  # loopback
        return json.load(response)


# --- who is here --------------------------------------------------------------------------------------------------


def _present(bench: Bench, names: Sequence[str]) -> list[Contestant]:
    """The contestants that can be had here; the others are named in the table with the reason."""
    here = []
    for name in names:
        one = CONTESTANTS[name]
        try:
            for environment in one.peers:
                peer_environments.ensure(environment)
        except peer_environments.NotInstalled as error:
            bench.results.missing[name] = str(error)
            continue
        here.append(one)
    return here


def _versions(bench: Bench, who: Sequence[Contestant]) -> None:
    found = bench.results.versions
    found["Python"] = sys.version.split()[0]
    found["PostgreSQL"] = str(database.ask(bench.dsn, "show server_version")[0][0]).split(" ")[0]
    found.update(peer_environments.versions(Path(sys.executable).parent, ["aiohttp", "asyncpg", "msgspec"]))
    for one in who:
        for environment, packages in one.peers.items():
            found.update(peer_environments.versions(peer_environments.ensure(environment), list(packages)))


# --- measuring ----------------------------------------------------------------------------------------------------


def _measure(bench: Bench, work: Work, who: Sequence[Contestant], repeat: int) -> None:
    bench.results.counts[work.name] = work.count
    _measure_floor(bench, work, repeat)
    for one in [*who[repeat % len(who) :], *who[: repeat % len(who)]]:  # nobody is always the first
        if one.name not in work.who or not _wanted(bench, work, one):
            continue
        name = f"bench_{work.name}_{one.name}_{repeat}".lower()
        with (
            tempfile.TemporaryDirectory(dir=bench.folder, prefix=name) as place,
            database.database(bench.dsn, name) as dsn,
        ):
            task = Task(work.kind, work.flow, bench.url + work.base, dsn, Path(place))
            _one_run(bench, work, one, task, repeat)


def _wanted(bench: Bench, work: Work, one: Contestant) -> bool:
    """No second time for who took a minute or failed."""
    before = bench.results.taken.get(work.name, {}).get(one.name, [])
    return not any(taken.problem or taken.wall > ENOUGH for taken in before)


def _one_run(bench: Bench, work: Work, one: Contestant, task: Task, repeat: int) -> None:
    for commands in one.prepare(task):
        done = _run(bench, one, commands, task)
        if done.problem:
            return _tell(bench, work.name, one, _failed(done, "could not be made ready"), repeat)
    if work.before:
        half = Task(task.kind, task.flow, bench.url + work.before, task.dsn, task.folder)
        done = _run(bench, one, one.work(half), half)
        if done.problem:
            return _tell(bench, work.name, one, _failed(done, "the load before"), repeat)
    before = _stats(bench, "reset")
    taken = _run(bench, one, one.work(task), task)
    _tell(bench, work.name, one, _checked(bench, work, one, task, taken), repeat)
    _check_calls(bench, work, one, taken, before)
    if work.again and not taken.problem:
        taken = _run(bench, one, one.work(task), task)
        _tell(bench, f"{work.name} again", one, _checked(bench, work, one, task, taken), repeat)
    return None


def _run(bench: Bench, one: Contestant, commands: contestants.Commands, task: Task) -> Taken:
    environment = one.environment(task)
    return run(commands, environment=environment, folder=task.folder, limit=bench.limit, log=task.folder / "log")


def _failed(taken: Taken, what: str) -> Taken:
    return Taken(taken.wall, taken.cpu, taken.memory, f"{what}: {taken.problem}")


def _checked(bench: Bench, work: Work, one: Contestant, task: Task, taken: Taken) -> Taken:
    """Who loads other rows than the source has is not fast but wrong."""
    if taken.problem:
        return taken
    expected = [work.count, sum(data.score(n) for n in data.numbers(work.count))]
    try:
        sums = f"select count(*), coalesce(sum(score), 0) from {one.place}"
        found = [int(value) for value in database.ask(task.dsn, sums)[0]]
    except RuntimeError as error:
        return _failed(Taken(taken.wall, taken.cpu, taken.memory, str(error)), "wrong result")
    if found == expected:
        return taken
    said = last_line(task.folder / "log")
    problem = f"wrong result: {found[0]} rows, sum {found[1]}, not {expected[0]}, {expected[1]}; {said}"
    return Taken(taken.wall, taken.cpu, taken.memory, problem)


def _check_calls(bench: Bench, work: Work, one: Contestant, taken: Taken, before: Mapping[str, Any]) -> None:
    """The source's own count: calls too many, too many at a time, or a source that was itself the limit, is told beside the table."""
    now = _stats(bench, "stats")
    found, busy = now[work.base], (now["cpu"] - before["cpu"]) / taken.wall
    bench.say(f"         the source: {found['calls']} calls, {found['most']} at a time, busy {busy:.0%} of the time")
    expected = work.count + 1 if work.kind == "changed" else None
    cap = 60 if work.flow.endswith("adaptive") else 15
    told = {
        f"made {found['calls']} calls where {expected} would do": expected not in (None, found["calls"]),
        f"had {found['most']} calls open at a time, more than {cap}": work.kind == "changed" and found["most"] > cap,
        f"kept the source busy {busy:.0%} of the time: the source may have been the limit": busy > 0.6,
    }
    bench.results.notes += [
        f"{work.name}: {one.name} {text}." for text, true in told.items() if true and not taken.problem
    ]


def _measure_floor(bench: Bench, work: Work, repeat: int) -> None:
    if work.base == "/a":
        floor = sum(data.latency(n) for n in data.numbers(work.count)) / 15
    else:
        with database.database(bench.dsn, "bench_floor") as dsn:
            parts = _floor_parts(work, bench.url + work.base, dsn)
        floor = parts["parse"] + parts["copy"]
        bench.results.parts.setdefault(work.name, []).append(parts)
    bench.results.floors.setdefault(work.name, []).append(floor)
    bench.say(f"{work.name:8} floor   {repeat + 1}  {floor:8.2f} s")


def _floor_parts(work: Work, base: str, dsn: str) -> Mapping[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.floor", work.kind, base, str(work.count)],
        env={**contestants.clean(), "DATABASE_URL": dsn},
        cwd=contestants.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The floor of {work.name} could not be measured: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _tell(bench: Bench, name: str, one: Contestant, taken: Taken, repeat: int) -> None:
    bench.results.add(name, one.name, taken)
    said = taken.problem or f"{taken.cpu:8.2f} s CPU {taken.memory:6.0f} MB"
    bench.say(f"{name:8} {one.name:7} {repeat + 1}  {taken.wall:8.2f} s {said}")


if __name__ == "__main__":
    main()
