"""The administrator's programs: run as they are to be run, one at a time, and ended in time."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from oomwatchd.hooks import ENVIRONMENT, LIMIT_SECONDS, POLL_SECONDS, WAITING_MAX, Hooks
from oomwatchd.model import Command, Config, HookResult, Pressure, PressureHooks
from oomwatchd.record import Hooked, Record

PATIENCE_SECONDS = 30.0
PRESSURE = Pressure(60.0, 1.0, 1.0, 5.0, 40.0, 1.0, 1.0, 4.0)
NOW_SECONDS = 1000.0
# What a hook sees of itself, into the file named by its first argument.
SEES = """
import json, os, signal, sys
seen = {
    "arguments": sys.argv[2:],
    "stdin": sys.stdin.read(),
    "environment": {k: v for k, v in os.environ.items() if k != "LC_CTYPE"},
    "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
    "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "leads": [os.getpid() == os.getpgid(0), os.getpid() == os.getsid(0)],
    "directory": os.getcwd(),
    "open": [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")],
}
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(seen, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""
# Starts a child in its own group, tells its pid and its own, and does not end.
STAYS = """
import os, sys, time
child = os.fork()
if child:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(f"{os.getpid()} {child}")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
if not child or len(sys.argv) < 3:
    time.sleep(600)
"""


class Runner:
    """Hooks, with a clock of their own."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self.record = Record(dry_run=dry_run)
        self.hooks = Hooks(self.record, dry_run=dry_run)
        self.seconds = NOW_SECONDS

    def configure(self, on_incident: Command = (), **levels: Command) -> None:
        self.hooks.configure(Config(on_incident=on_incident, on_pressure=PressureHooks(**levels)))

    def tend_until(self, done: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        self.hooks.tend(self.seconds)
        while not done() and time.monotonic() < until:
            time.sleep(0.005)
            self.hooks.tend(self.seconds)
        assert done()

    def results(self, count: int = 1) -> list[tuple[HookResult, str]]:
        """How the next *count* have ended."""
        self.tend_until(lambda: len(self.record.news) >= count)
        return [
            (one.result, one.reason) for one in self.record.take_news() if isinstance(one, Hooked)
        ]


@pytest.fixture
def runner() -> Iterator[Runner]:
    yield (runner := Runner())
    runner.hooks.close()


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


def python(text: str, *arguments: object) -> Command:
    return (sys.executable, "-c", text, *map(str, arguments))


def seen(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text())
    return found


# -- what it gets ----------------------------------------------------------------------------------


def test_an_incident_is_on_standard_input_and_the_arguments_are_not_read_by_a_shell(
    runner: Runner, told: Path
) -> None:
    runner.configure(python(SEES, told, "$HOME; id", "*"))
    runner.hooks.incident_kept(b'{"id": "x"}\n')

    assert runner.results() == [("done", "")]
    assert seen(told)["stdin"] == '{"id": "x"}\n'
    assert seen(told)["arguments"] == ["$HOME; id", "*"]


def test_it_has_nothing_of_ours(
    runner: Runner, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "x")
    with (tmp_path / "ours").open("w"):
        runner.configure(python(SEES, told))
        runner.hooks.incident_kept(b"{}")
        runner.results()
    found = seen(told)

    assert found["environment"] == dict(ENVIRONMENT)
    assert (found["directory"], found["leads"]) == ("/", [True, True])
    assert str(tmp_path / "ours") not in found["open"]


def test_it_is_killed_and_served_like_any_program(runner: Runner, told: Path) -> None:
    """Its value is raised again in the service, and lowered here: that takes no right."""
    child = os.fork()
    if child == 0:
        Path("/proc/self/oom_score_adj").write_text("300")
        if os.geteuid() == 0:
            os.setpriority(os.PRIO_PROCESS, 0, -5)
        runner.configure(python(SEES, told))
        runner.hooks.incident_kept(b"{}")
        runner.results()
        os._exit(0)
    os.waitpid(child, 0)
    found = seen(told)

    assert found["oom_score_adj"] == 0
    assert found["nice"] == 0 or os.geteuid() != 0


def test_a_document_larger_than_any_pipe_arrives_whole(runner: Runner, told: Path) -> None:
    runner.configure(python(SEES, told))
    runner.hooks.incident_kept(b"x" * (1 << 20))
    runner.results()

    assert len(seen(told)["stdin"]) == 1 << 20


def test_a_rise_of_pressure_is_told_with_its_averages(runner: Runner, told: Path) -> None:
    runner.configure(critical=python(SEES, told))
    runner.hooks.pressure_rose("warning", PRESSURE)  # for which there is no hook
    runner.hooks.pressure_rose("critical", PRESSURE)
    assert runner.results() == [("done", "")]

    document = json.loads(seen(told)["stdin"])
    assert document["level"] == "critical"
    assert document["pressure"]["some_avg10"] == 60.0
    assert abs(document["time_unix_seconds"] - time.time()) < PATIENCE_SECONDS


def test_each_level_has_its_own_hook(runner: Runner, told: Path) -> None:
    runner.configure(warning=python(SEES, told, "w"), critical=("/bin/false",))
    runner.hooks.pressure_rose("warning", None)
    runner.results()

    assert seen(told)["arguments"] == ["w"]
    assert json.loads(seen(told)["stdin"])["pressure"] is None


def test_without_hooks_nothing_runs(runner: Runner) -> None:
    runner.configure()
    runner.hooks.incident_kept(b"{}")
    runner.hooks.pressure_rose("critical", PRESSURE)
    runner.hooks.tend(NOW_SECONDS)

    assert runner.hooks.due_seconds == float("inf")
    assert psutil.Process().children() == []


def test_in_a_dry_run_it_is_only_said(told: Path) -> None:
    runner = Runner(dry_run=True)
    runner.configure(python(SEES, told))
    runner.hooks.incident_kept(b"{}")
    runner.hooks.tend(NOW_SECONDS)

    assert runner.record.take_news() == [Hooked("on_incident", sys.executable, "done")]
    assert runner.record.hook_runs == {}
    assert psutil.Process().children() == []


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/bin/sh", "-c", "exit 3"), "exit status 3"),
        (("/bin/sh", "-c", "kill -11 $$"), "ended by signal 11"),
        (("/nowhere/to/be/found",), "exit status 127"),
        (("/etc/passwd",), "exit status 126"),
    ],
)
def test_how_it_failed_is_said(runner: Runner, command: Command, reason: str) -> None:
    runner.configure(command)
    runner.hooks.incident_kept(b"{}")

    assert runner.results() == [("failed", reason)]
    assert runner.record.hook_runs == {("on_incident", "failed"): 1}


def test_one_that_takes_too_long_is_killed_with_all_its_group(runner: Runner, told: Path) -> None:
    runner.configure(python(STAYS, told))
    runner.hooks.incident_kept(b"{}")
    runner.tend_until(told.exists)
    pids = [int(pid) for pid in told.read_text().split()]
    runner.seconds += LIMIT_SECONDS - 0.1
    runner.hooks.tend(runner.seconds)
    alive = [psutil.pid_exists(pid) for pid in pids]
    runner.seconds += 0.2

    assert alive == [True, True]
    assert runner.results() == [("timed_out", "killed, as it took longer than 30 s")]
    runner.tend_until(lambda: not any(map(is_alive, pids)))


def test_what_it_leaves_behind_in_its_group_ends_with_it(runner: Runner, told: Path) -> None:
    runner.configure(python(STAYS, told, "and ends"))
    runner.hooks.incident_kept(b"{}")

    assert runner.results() == [("done", "")]
    pids = [int(pid) for pid in told.read_text().split()]
    runner.tend_until(lambda: not any(map(is_alive, pids)))


def test_when_the_daemon_stops_it_ends(runner: Runner, told: Path) -> None:
    runner.configure(python(STAYS, told))
    runner.hooks.incident_kept(b"{}")
    runner.hooks.incident_kept(b"{}")
    runner.tend_until(told.exists)
    pids = [int(pid) for pid in told.read_text().split()]
    runner.hooks.close()

    runner.tend_until(lambda: not any(map(is_alive, pids)))
    assert psutil.Process().children() == []


def is_alive(pid: int) -> bool:
    """It may be there as a zombie, if nobody reaps orphans here."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- one after the other ---------------------------------------------------------------------------


def test_one_runs_at_a_time_in_their_order(runner: Runner, told: Path) -> None:
    text = f"""
import os, sys
path = {str(told)!r}
os.mkdir(path + ".lock")  # fails, if another one runs
with open(path, "a") as file:
    file.write(sys.stdin.read())
os.rmdir(path + ".lock")
"""
    runner.configure(python(text))
    for number in range(5):
        runner.hooks.incident_kept(b"%d" % number)

    assert runner.results(5) == [("done", "")] * 5
    assert told.read_text() == "01234"


def test_too_many_at_once_are_dropped_and_counted(runner: Runner) -> None:
    runner.configure(("/bin/true",))
    for _ in range(WAITING_MAX + 2):
        runner.hooks.incident_kept(b"{}")

    assert runner.record.hook_runs == {("on_incident", "dropped"): 2}
    assert len(runner.results(WAITING_MAX + 2)) == WAITING_MAX + 2
    assert runner.record.hook_runs[("on_incident", "done")] == WAITING_MAX


def test_no_call_waits_for_it_and_the_loop_is_told_when_to_look(runner: Runner, told: Path) -> None:
    runner.configure(python(STAYS, told))
    runner.hooks.incident_kept(b"{}")
    assert runner.hooks.due_seconds <= NOW_SECONDS  # at once
    started = time.monotonic()
    runner.hooks.tend(NOW_SECONDS)
    runner.hooks.tend(NOW_SECONDS)

    assert time.monotonic() - started < PATIENCE_SECONDS / 2
    assert runner.hooks.due_seconds == NOW_SECONDS + POLL_SECONDS


def test_what_was_explained_before_a_reload_that_asks_for_it_runs_nothing(runner: Runner) -> None:
    runner.configure(("/bin/true",))
    runner.hooks.incident_kept(b"")
    runner.hooks.tend(NOW_SECONDS)

    assert runner.hooks.due_seconds == float("inf")
