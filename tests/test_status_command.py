"""`oomwatchd status`, asking a real socket."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshots import turn

from oomwatchd.cli import exits
from oomwatchd.cli.main import main
from oomwatchd.cli.status import duration
from oomwatchd.model import ProcessId, Tracked
from oomwatchd.server import Reporter

NOBODY = 65534
FIELDS = ["version", "pid", "uptime_seconds", "rules", "processes", "pressure", "features"]


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Like the one systemd makes: every user may pass through it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("RUNTIME_DIRECTORY", name)
        yield Path(name)


@pytest.fixture
def reporter(runtime_directory: Path) -> Iterator[Reporter]:
    reporter = Reporter(None, runtime_directory / "status.sock", stale_seconds=15.0)
    reporter.publish(turn(started_unix_seconds=time.time() - 3725))
    yield reporter
    reporter.close()


def process(pid: int, name: str = "python3", *, resident_bytes: int = 0) -> Tracked:
    return Tracked(ProcessId(pid, 1), name, "model-training", -900, -900, resident_bytes, 0)


@pytest.mark.usefixtures("reporter")
def test_people_see_rules_processes_pressure_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["status"])
    shown = capsys.readouterr().out
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() - 3725))

    assert status == exits.FINE
    assert f"oomwatchd 1.2.3, pid {os.getpid()}, running since {since}" in shown
    assert "(1 h 2 min)" in shown
    assert "memory pressure: warning; % of the last 10 / 60 / 300 s:" in shown
    assert "some 12.50 / 6.25 / 1.00, full 8.00 / 4.00 / 0.50" in shown
    assert "not available here: kernel_log\n" in shown
    assert "model-training  -900          2   6.0 GiB  1.0 MiB        2        0        1" in shown
    assert "811  python3  model-training  -900    -900   4.0 GiB  0.0 MiB" in shown


@pytest.mark.usefixtures("reporter")
def test_programs_get_the_whole_document(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["status", "--json"])
    document = json.loads(capsys.readouterr().out)

    assert status == exits.FINE
    assert list(document) == [*FIELDS, "last_incident"]
    assert [one["pid"] for one in document["processes"]] == [811, 812]


def test_the_largest_processes_come_first_and_all_of_them_if_asked(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(turn(processes=[process(1000 + n, resident_bytes=n << 20) for n in range(30)]))

    def pids() -> list[str]:
        lines = capsys.readouterr().out.splitlines()
        return [line.split()[0] for line in lines if "python3" in line]

    main(["status"])
    largest = pids()
    main(["status", "--all"])

    assert largest == [str(1029 - n) for n in range(20)]
    assert pids() == [str(1029 - n) for n in range(30)]


def test_what_is_left_out_is_said(reporter: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    reporter.publish(turn(processes=[process(n) for n in range(30)]))
    main(["status"])

    assert capsys.readouterr().out.endswith("\n10 smaller ones are not shown; --all shows them\n")


def test_a_hostile_name_cannot_rewrite_the_screen(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(turn(processes=[process(7, "x\n8 forged\x1b[2J\u202e")]))
    main(["status"])
    shown = capsys.readouterr().out

    assert "7  x\\n8 forged\\x1b[2J\\u202e  model-training" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_without_psi_the_pressure_is_not_known(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(turn(pressure=None, level="ok"))
    status = main(["status"])

    assert status == exits.FINE
    assert "memory pressure: not known" in capsys.readouterr().out


def test_without_processes_there_is_no_list_of_them(
    reporter: Reporter, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter.publish(turn(processes=[]))
    main(["status"])

    assert "PID" not in capsys.readouterr().out


def test_without_a_daemon_the_answer_is_no_in_one_line(
    runtime_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["status"])

    assert status == exits.NO
    assert capsys.readouterr() == (
        "",
        "oomwatchd status: oomwatchd is not running:"
        f" nothing answers at {runtime_directory}/status.sock\n",
    )


def test_a_daemon_that_has_crashed_is_not_running(
    runtime_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(runtime_directory / "status.sock"))
    status = main(["status"])

    assert status == exits.NO
    assert "is not running" in capsys.readouterr().err


def test_before_its_first_turn_the_daemon_has_no_status(
    runtime_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runtime_directory / "status.sock"
    with contextlib.closing(Reporter(None, path, stale_seconds=15.0)):
        status = main(["status"])

    assert status == exits.NO
    assert capsys.readouterr().err.endswith(": the first turn is not finished yet\n")


def test_a_daemon_that_hangs_up_gave_no_answer(
    runtime_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(1024)
        connection.close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime_directory / "status.sock"))
        listener.listen()
        thread = threading.Thread(target=hang_up)
        thread.start()
        status = main(["status"])
        thread.join()

    assert status == exits.NO
    assert capsys.readouterr().err.endswith(": the connection was closed\n")


@pytest.mark.usefixtures("reporter")
def test_who_is_not_root_is_told_to_be(
    runtime_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            status = main(["status"])
        finally:
            os.seteuid(0)
    else:  # only the owner may connect, and this takes it from the owner too
        (runtime_directory / "status.sock").chmod(0)
        status = main(["status"])

    assert status == exits.NOT_PERMITTED
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("run it as root")


def test_the_command_does_not_load_what_the_daemon_needs(runtime_directory: Path) -> None:
    program = (
        "import sys; from oomwatchd.cli.main import main; main(['status']);"
        "print({'oomwatchd.metrics', 'http.server', 'yaml', 'psutil'} & sys.modules.keys())"
    )
    checkout = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True, check=True
    )

    assert str(runtime_directory) in done.stderr
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3725, "1 h 2 min"),
        (86_400, "1 d 0 h"),
        (40 * 86_400 + 7200, "40 d 2 h"),
    ],
)
def test_an_uptime_is_shown_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
