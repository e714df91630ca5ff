"""Users who mean harm: what they can name, write or mount costs others at most a turn."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest
from live import (
    Herd,
    Service,
    adj,
    comm,
    herd,
    needs_root,
    own_value,
    rule,
    service,
    until,
)

from oomwatchd.policy.rules import MATCH_SECONDS

pytestmark = needs_root

INTERVAL_SECONDS: Final = 1.0
SLACK_SECONDS: Final = 2.0  # for a machine that has other things to do
HOSTILE_USER, OTHER_USER, MANY_USERS = 60017, 60018, range(60020, 60100)
TRAINING = 311
SILENT_FILE_SYSTEM: Final = Path(__file__).parent / "silentfs.py"

# As another user, but with the interpreter that only root may be able to start.
BE_USER = "import os, sys\nos.setgroups([])\nos.setuid(int(sys.argv[1]))\n"
WAIT = "os.write(1, b'ready\\n')\nsys.stdin.read()\n"


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        processes.script("live-train.py", BE_USER + WAIT)
        processes.script("live-hostile.py", BE_USER + WAIT)
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


@pytest.fixture
def silent_program(animals: Herd) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A program on a file system of a user's own, and the server of that."""
    if not Path("/dev/fuse").exists():
        pytest.skip("there is no FUSE here")
    directory = animals.directory / "mount"
    directory.mkdir()
    with herd() as servers:
        server = servers.start(sys.executable, SILENT_FILE_SYSTEM, directory, "/bin/cat")
        assert server.stdout is not None
        if not server.stdout.readline():
            pytest.skip("FUSE cannot be mounted here")
        yield directory / "live-silent", server
    subprocess.run(["umount", "--lazy", directory], check=True)


def train(animals: Herd, user: int = OTHER_USER) -> subprocess.Popen[bytes]:
    return animals.ready(sys.executable, "-SI", "live-train.py", str(user))


def is_set(child: subprocess.Popen[bytes], value: int = TRAINING) -> bool:
    return adj(child.pid) == value


def set_in_time(child: subprocess.Popen[bytes]) -> None:
    """Within one interval; a second one, if another user's process has cost it its turn."""
    seconds = 2 * INTERVAL_SECONDS + SLACK_SECONDS
    until(lambda: is_set(child), f"process {child.pid} to be set", seconds)


# -- time ------------------------------------------------------------------------------------------


def test_command_lines_that_make_a_pattern_backtrack_for_ever_cost_one_try_a_turn(
    animals: Herd, daemon: Service
) -> None:
    hostile_line = (sys.executable, "-SI", "live-hostile.py", str(HOSTILE_USER), "a" * 4000)
    daemon.configure(
        rule("trap", {"user": HOSTILE_USER, "cmdline": r"(a+)+b|(a|aa)+c|a.*a.*a.*a.*d"}, 999),
        rule("training", {"script": "live-train.py"}, TRAINING),
    )
    first = train(animals)
    for _ in range(20):
        animals.ready(*hostile_line)

    daemon.start()
    set_in_time(first)
    for _ in range(3):
        for _ in range(5):
            animals.ready(*hostile_line)
        set_in_time(train(animals))
    daemon.turns(1)

    scans = daemon.scans()
    tries = daemon.metric("oomwatchd_match_timeouts_total")
    quick = daemon.metric("oomwatchd_scan_duration_seconds_bucket", le="0.25")
    assert 3 <= tries <= scans + 1  # of 35 processes; a scan may have ended since we read *scans*
    assert quick >= scans - 1  # one may have been held up by something else on this machine
    assert "too long; no rule for it" in daemon.log()
    hostile = [child for child in animals.all if child.args == hostile_line]
    assert [adj(child.pid) for child in hostile] == [own_value()] * 35


def test_hostile_command_lines_of_many_users_do_not_add_up(animals: Herd, daemon: Service) -> None:
    """A user may have thousands of users below him; see subuid(5)."""
    users = list(MANY_USERS)
    daemon.configure(
        rule("trap", {"user": users, "cmdline": "(a+)+b"}, 999),
        rule("training", {"script": "live-train.py"}, TRAINING),
    )
    for user in users:
        animals.ready(sys.executable, "-SI", "live-hostile.py", str(user), "a" * 4000)
    child = train(animals)

    daemon.start()
    set_in_time(child)
    daemon.turns(2)

    assert daemon.process is not None
    used = psutil.Process(daemon.process.pid).cpu_times()
    tries = daemon.metric("oomwatchd_match_timeouts_total")
    assert tries >= len(users)
    assert used.user + used.system < tries * MATCH_SECONDS  # its start included


def test_a_file_system_that_never_answers_holds_up_nobody(
    animals: Herd, daemon: Service, silent_program: tuple[Path, subprocess.Popen[bytes]]
) -> None:
    program, server = silent_program
    early = [train(animals) for _ in range(3)]
    for _ in range(3):
        hostile = animals.start(program, user=HOSTILE_USER)
        assert hostile.stdin is not None
        assert hostile.stdout is not None
        hostile.stdin.write(b"are you there?\n")
        hostile.stdin.flush()
        hostile.stdout.readline()
    behind = [train(animals) for _ in range(3)]
    server.send_signal(signal.SIGUSR1)
    match = {"exe": ["*/python*", "*/live-silent"], "cmdline": "live-train.py"}
    daemon.configure(rule("training", match, TRAINING))

    daemon.start()
    for child in early + behind:
        set_in_time(child)
    for _ in range(3):
        set_in_time(train(animals))

    assert daemon.metric("oomwatchd_unreadable_total") == 0
    assert daemon.answers("/healthz")
    daemon.stop()  # nor the daemon's end: a thread that asked it could not even be killed


# -- text ------------------------------------------------------------------------------------------


# One argument may have 128 KiB, and all together a quarter of the stack's limit.
ENLARGE = """
x=$(head -c 131000 /dev/zero | tr '\\0' x)
ulimit -s 32768
exec "$1" -SI live-train.py "$2" $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x $x
"""


def test_a_command_line_of_two_mebibytes_is_matched_by_how_it_begins(
    animals: Herd, daemon: Service
) -> None:
    child = animals.ready("sh", "-c", ENLARGE, "sh", sys.executable, str(OTHER_USER))
    daemon.configure(rule("training", {"script": "live-train.py", "cmdline": "x{3000}"}, TRAINING))

    daemon.start()

    shown = Path(f"/proc/{child.pid}/cmdline").read_bytes()
    assert len(shown) > 2 << 20
    assert is_set(child)


ERASE = """
import ctypes, os, sys
stat = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(stat[45]), int(stat[46])
ctypes.memset(start, 0, end - start)
assert not open("/proc/self/cmdline", "rb").read().strip(b"\\0")
"""


def test_an_empty_command_line_matches_by_name_and_by_nothing_else(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-erased.py", f"#!{sys.executable} -SI\n{ERASE}{WAIT}")
    child = animals.ready("./live-erased.py")
    daemon.configure(
        rule("script", {"script": "*live-*"}, 901),
        rule("cmdline", {"cmdline": "live-"}, 902),
        rule("named", {"name": "live-erased.py"}, TRAINING),
    )

    daemon.start()

    assert is_set(child)


NAMING = """
import os, sys
open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv[1]))
os.write(1, b"ready\\n")
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"live\n<0>kernel:", r"'live\n<0>kernel:'"),
        (b"live\r\x1b[2J\x1b[1m", r"'live\r\x1b[2J\x1b[1m'"),
        (b"live\xe2\x80\xa8\xc2\x85\xe2\x80\xae", r"'live\u2028\x85\u202e'"),
        (b"live\xff\xfe' fake", r"'live\xff\xfe' fake'"),
    ],
    ids=["newline", "terminal", "unicode", "not-utf-8"],
)
def test_a_name_cannot_forge_a_line_of_the_log(
    animals: Herd, daemon: Service, name: bytes, shown: str
) -> None:
    animals.script("live-naming.py", NAMING)
    child = animals.ready(sys.executable, "-SI", "live-naming.py", name.hex())
    daemon.configure(rule("named", {"name": "live*", "cmdline": "live-naming"}, TRAINING))

    daemon.start()

    assert comm(child.pid) == name
    assert is_set(child)
    lines = daemon.log_file.read_bytes().split(b"\n")
    told = [line for line in lines if b"'live" in line or b"kernel:" in line]
    line = f"<6>process {child.pid} {shown}, rule named: set 0 -> {TRAINING}"
    assert told == [line.encode()]
    assert all(line.startswith((b"<6>", b"<4>")) for line in lines if line)


# -- refusals --------------------------------------------------------------------------------------


def test_a_value_that_the_kernel_refuses_is_counted_and_said_once_and_not_tried_for_ever(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(
        rule("lowered", {"script": "live-train.py", "user": OTHER_USER}, -100), interval="100ms"
    )
    children = [train(animals) for _ in range(3)]

    daemon.start(under=["setpriv", "--bounding-set", "-sys_resource", "--"])
    until(lambda: daemon.scans() > 30, "thirty turns")

    refused = daemon.metric("oomwatchd_adjustments_total", rule="lowered", outcome="refused")
    assert 3 <= refused <= 3 * 7  # when their age has doubled; not on each of thirty turns
    assert daemon.log().count("refused (EACCES)") == 1
    assert [adj(child.pid) for child in children] == [own_value()] * 3
    assert daemon.metric("oomwatchd_rule_processes", rule="lowered") == 3
    assert daemon.metric("oomwatchd_feature_available", feature="lower_adj") == 0
