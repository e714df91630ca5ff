"""`oomwatchd top` as a command: what it reads, what it cannot, and what it needs."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import NOBODY, PATIENCE_SECONDS, REPOSITORY, needs_root, run
from fakeproc import Fake, FakeProc
from snapshots import turn
from test_incidents import incident

from oomwatchd.barometer import Barometer
from oomwatchd.cli.failure import Failure
from oomwatchd.cli.rank import Program
from oomwatchd.cli.top.reading import KILLS_SHOWN, Daemon, KillsOnDisk, unsaid
from oomwatchd.cli.top.rules import LAST_WAIT_SECONDS, Rules
from oomwatchd.incidents import Incidents
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import PressureSettings, ProcessId
from oomwatchd.server import Reporter

if not os.environ.get("CI"):  # where it has to be there
    pytest.importorskip("rich", reason="no rich (Debian: python3-rich)")

RULES = """\
rules:
  - name: model-training
    match: {cmdline: 'marker-of-top'}
    oom_score_adj: -900
    workers: -800
"""
PROGRAM = Program(ProcessId(7, 100), 1)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For the daemon's files and ours: every user may pass through it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "rules.yaml").write_text(RULES)
        yield path


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def proc(fake: FakeProc) -> Iterator[ProcFs]:
    proc = ProcFs(fake.root)
    yield proc
    proc.close()


@pytest.fixture
def rules(directory: Path, proc: ProcFs) -> Rules:
    rules = Rules(directory / "rules.yaml", proc)
    rules.load()
    return rules


def once(directory: Path, *arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    where = {"STATE_DIRECTORY": str(directory), "RUNTIME_DIRECTORY": str(directory)}
    env = {**os.environ, **where, "COLUMNS": "100", "LINES": "30"}
    return run("top", "-c", directory / "rules.yaml", *arguments, env=env, **more)


# -- one frame -------------------------------------------------------------------------------------


def test_where_there_is_no_terminal_one_frame_is_printed_and_nothing_but_text(
    directory: Path,
) -> None:
    done = once(directory)
    lines = done.stdout.splitlines()

    assert (done.returncode, done.stderr) == (0, "")
    assert len(lines) == 30
    assert max(map(len, lines)) <= 100
    assert done.stdout.replace("\n", "").isprintable()
    assert "daemon not running" in lines[0]
    assert [line for line in lines if line.startswith("model-training  -900      0")]
    assert lines[-1].split()[:3] == ["order", "of", "death,"]


def test_an_encoding_without_the_letters_of_a_name_is_no_hindrance(directory: Path) -> None:
    argument = "marker-of-top \u4e2d\u6587"
    with subprocess.Popen([sys.executable, "-c", "input()", argument], stdin=subprocess.PIPE) as it:
        Path(f"/proc/{it.pid}/oom_score_adj").write_text("1000\n")
        where = {"COLUMNS": "200", "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-m", "oomwatchd", "top", "--once"],
            env={**os.environ, **where}, capture_output=True, timeout=PATIENCE_SECONDS, check=True,
        )  # fmt: skip
        it.communicate(b"\n")

    assert b"marker-of-top \\u4e2d\\u6587" in done.stdout


@pytest.mark.parametrize("text", ["0s", "10ms", "2", "soon"])
def test_an_interval_that_would_never_rest_is_refused(directory: Path, text: str) -> None:
    assert once(directory, "--interval", text).returncode == 64


def test_of_rules_with_faults_that_were_asked_for_nothing_is_shown(directory: Path) -> None:
    (directory / "rules.yaml").write_text("rules: 7\n")
    done = once(directory)

    assert (done.returncode, done.stdout) == (78, "")
    assert "rules.yaml:1:8: " in done.stderr


@needs_root
def test_an_ordinary_user_is_told_what_is_not_known(directory: Path) -> None:
    kept = Incidents(directory / "incidents", keep=1)
    kept.prepare()
    done = once(directory, user=NOBODY, group=NOBODY, extra_groups=[])

    assert (done.returncode, done.stderr) == (0, "")
    assert "! not known without root: whether the daemon runs, STILL EXPOSED TO" in done.stdout
    assert f"{directory}/incidents: Permission denied: try as root, or in group adm" in done.stdout


def test_a_daemon_that_runs_tells_whom_it_still_sees_exposed(directory: Path) -> None:
    reporter = Reporter(None, directory / "status.sock", stale_seconds=15.0)
    try:
        reporter.publish(turn(started_unix_seconds=time.time() - 3725))
        daemon = Daemon(directory / "status.sock")
        daemon.ask(1000.0)
    finally:
        reporter.close()

    assert (daemon.words, daemon.runs) == ("daemon up 1 h 2 min", True)
    assert daemon.exposed("model-training") == {"systemd_oomd": 2}
    assert daemon.exposed("of nobody") is None


def test_a_daemon_that_has_stopped_is_noticed_within_ten_seconds(directory: Path) -> None:
    reporter = Reporter(None, directory / "status.sock", stale_seconds=15.0)
    reporter.publish(turn())
    daemon = Daemon(directory / "status.sock")
    daemon.ask(1000.0)
    reporter.close()
    daemon.ask(1001.0)  # it is not asked again so soon
    soon = daemon.runs
    daemon.ask(1010.0)

    assert (soon, daemon.runs, daemon.words) == (True, False, "daemon not running")
    assert daemon.exposed("model-training") is None


# -- rules -----------------------------------------------------------------------------------------


def test_a_process_is_read_once_and_again_when_it_runs_another_program(
    fake: FakeProc, rules: Rules
) -> None:
    fake.add(Fake(7, b"python3", (b"python3", b"marker-of-top")), oom_score_adj=0)
    rules.ask([PROGRAM], 1000.0, 10.0)
    first = rules.of(PROGRAM)
    fake.exec(7, b"cat")
    rules.ask([PROGRAM], 1001.0, 10.0)
    kept = rules.of(PROGRAM)
    other = PROGRAM._replace(mark=2)
    rules.ask([other], 1001.5, 10.0)

    assert first.rule is not None
    assert (first.rule.name, first.wanted, first.command) == (
        "model-training",
        -900,
        "python3 marker-of-top",
    )
    assert kept == first
    assert (rules.of(other).rule, rules.of(other).command) == (None, "cat")


def test_a_title_that_nothing_shows_is_found_after_a_while(fake: FakeProc, rules: Rules) -> None:
    fake.add(Fake(7, b"python3", (b"python3",)))
    now = 1000.0
    rules.ask([PROGRAM], now, 10.0)
    fake.change(Fake(7, b"python3", (b"marker-of-top",)))
    for _ in range(20):
        now += LAST_WAIT_SECONDS / 10
        rules.ask([PROGRAM], now, 10.0)

    rule = rules.of(PROGRAM).rule
    assert rule is not None
    assert rule.name == "model-training"


def test_what_there_was_no_time_for_is_counted_and_comes_with_the_next_frame(
    fake: FakeProc, rules: Rules
) -> None:
    programs = [Program(ProcessId(pid, 100), 1) for pid in (7, 8)]
    for program in programs:
        fake.add(Fake(program.id.pid, b"cat"))
    rules.ask(programs, 1000.0, 0.0)
    first = rules.unasked
    rules.ask(programs, 1002.0, 10.0)

    assert (first, rules.unasked) == (2, 0)
    assert [rules.of(program).command for program in programs] == ["cat", "cat"]


def test_a_process_that_has_gone_is_forgotten(fake: FakeProc, rules: Rules) -> None:
    fake.add(Fake(7, b"cat"))
    rules.ask([PROGRAM], 1000.0, 10.0)
    rules.ask([], 1001.0, 10.0)

    assert rules.of(PROGRAM).command == ""


def test_another_configuration_comes_into_use_and_a_broken_one_is_only_told(
    directory: Path, rules: Rules
) -> None:
    path = directory / "rules.yaml"
    path.write_text(RULES.replace("model-training", "other"))
    rules.reload()
    renamed = [rule.name for rule in rules.config.rules]
    path.write_text("rules: 7\nintervall: 5s\n")
    rules.reload()
    rules.reload()  # it is told as long as it is so

    assert renamed == ["other"]
    assert [rule.name for rule in rules.config.rules] == ["other"]
    assert rules.fault.startswith(f"rules: {path}:")
    assert rules.fault.endswith("(and 1 more faults)")


def test_without_a_file_there_are_no_rules_and_it_says_so(directory: Path, proc: ProcFs) -> None:
    rules = Rules(directory / "none.yaml", proc)
    rules.reload()

    assert rules.config.rules == ()
    assert rules.fault == f"rules: {directory}/none.yaml: no such file"
    with pytest.raises(Failure):
        Rules(directory / "none.yaml", proc).load()


# -- pressure and kills ----------------------------------------------------------------------------


def test_the_level_is_that_of_the_configuration_and_holds_as_long(fake: FakeProc) -> None:
    fake.pressure(some=50.0)
    gauge = Barometer(fake.root, unsaid)
    settings = PressureSettings(clear_after_seconds=30.0)
    gauge.read(settings, 1000.0)
    high = gauge.level
    fake.pressure(some=1.0)
    gauge.read(settings, 1029.0)
    held = gauge.level
    gauge.read(settings, 1031.0)
    gauge.close()

    assert (high, held, gauge.level) == ("warning", "warning", "ok")


def test_a_kernel_without_pressure_has_none(fake: FakeProc) -> None:
    gauge = Barometer(fake.root, unsaid)
    gauge.read(PressureSettings(), 1000.0)

    assert (gauge.pressure, gauge.level) == (None, "ok")


def test_kills_come_newest_first_and_new_ones_are_found(directory: Path) -> None:
    kept = Incidents(directory / "incidents", keep=100)
    kept.prepare()
    for number in range(KILLS_SHOWN + 2):
        kept.write(incident(1_700_000_000.0 + number))
    kills = KillsOnDisk(directory / "incidents")
    first = [kill.time_unix_seconds for kill in kills.read().newest_first]
    kept.write(incident(1_700_000_100.0))
    then = [kill.time_unix_seconds for kill in kills.read().newest_first]

    assert first == [1_700_000_009.0 - number for number in range(KILLS_SHOWN)]
    assert then == [1_700_000_100.0, *first[:-1]]


def test_a_broken_file_is_counted_and_hides_no_other(directory: Path) -> None:
    kept = Incidents(directory / "incidents", keep=100)
    kept.prepare()
    written = kept.write(incident())
    (directory / "incidents/20991231T000000Z-1.json").write_text("{")
    kills = KillsOnDisk(directory / "incidents").read()

    assert [kill.pid for kill in kills.newest_first] == [written.victim.pid]
    assert kills.unknown == "1 files not readable"


# -- the library -----------------------------------------------------------------------------------


def test_without_the_library_it_says_which_package_to_install(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError(name='rich')\n")
    done = run("top", env={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        "oomwatchd top: the library rich is not installed: `apt install python3-rich`, or"
        " in a venv `pip install rich`\n"
    )


def test_a_fault_of_the_library_is_not_taken_for_its_absence(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("import of_a_module_that_is_not_there\n")
    done = run("top", env={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert done.returncode == 1
    assert "of_a_module_that_is_not_there" in done.stderr


@pytest.mark.parametrize("command", ["run", "check", "explain", "audit", "rank", "status", "why"])
def test_no_other_command_loads_the_library(command: str) -> None:
    script = (
        "import json, sys; from oomwatchd.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'])\n"
        "except SystemExit:\n    print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command], cwd=REPOSITORY, capture_output=True, text=True
    )
    modules = json.loads(done.stdout.splitlines()[-1])

    assert f"oomwatchd.cli.{command}" in modules
    assert [name for name in modules if name.split(".")[0] == "rich"] == []
