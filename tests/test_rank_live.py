"""The order of death on this machine: the kernel's figures, races, hostile names, the command."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oomwatchd.cli.rank import PAGE_BYTES, read_candidate, read_ranking, total_pages
from oomwatchd.kernel.proc import GONE, Look, ProcFs, parse_stat
from oomwatchd.kernel.status import parse_meminfo
from oomwatchd.policy.badness import Candidate, oom_score
from oomwatchd.text import decoded

MIB = 1 << 20
PATIENCE_SECONDS = 20.0
FIELDS = ["pid", "name", "oom_score_adj", "memory_bytes", "points_pages", "killable", "rule"]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program and waits until it has said that it is ready."""
    children: list[subprocess.Popen[bytes]] = []

    def started(code: str, *arguments: str) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", code + "\nprint(flush=True)\nsys.stdin.read()", *arguments]
        child = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        return child

    yield started
    for child in children:
        child.kill()
        child.communicate()


LARGE = "import sys; held = b'x' * (256 << 20)"
IDLE = "import sys"
NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]))  # PR_SET_NAME
"""
LEADERLESS = """
import ctypes, sys, threading
held = b'x' * (64 << 20)
def live_on():
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=live_on).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "oomwatchd", "rank", *arguments],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parent.parent,
        env=os.environ | environment,
    )


def entries(*arguments: str) -> list[dict[str, object]]:
    done = cli("--json", *arguments)

    assert done.returncode == 0, done.stderr
    listed: list[dict[str, object]] = json.loads(done.stdout)
    return listed


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def set_adj(pid: int, adj: int) -> None:
    """Raise it: to lower one takes CAP_SYS_RESOURCE, and has its tests in tests/vm."""
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(adj))


# -- against the kernel ----------------------------------------------------------------------------


def slack_pages() -> int:
    """By how much oom_score may miss what status shows.

    From Linux 6.2 on, resident memory is counted for each CPU and added up in batches; oom_score
    reads the rough sum, and status, from 6.17 on, the exact one.  There are four such counters
    (file, anonymous, swap, shared).  Source: lib/percpu_counter.c, compute_batch_value().
    """
    cpus = os.cpu_count() or 1
    return 4 * cpus * max(32, 2 * cpus)


def agrees(candidate: Candidate, seen: int, total: int) -> bool:
    if candidate.points is None:
        return seen == 0
    low, high = candidate.points - slack_pages(), candidate.points + slack_pages()
    return oom_score(low, total) <= seen <= oom_score(high, total)


def compared(proc: ProcFs, pid: int, total: int) -> tuple[Candidate, int] | None:
    """A candidate and its oom_score, if possible of a moment in which its memory did not change."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            before = read_candidate(proc, pid, total)
            seen = int((proc.root / str(pid) / "oom_score").read_bytes())
            after = read_candidate(proc, pid, total)
        except GONE:
            return None
        if before is None or after is None:
            return None
        if (before == after and agrees(after[1], seen, total)) or time.monotonic() > deadline:
            return after[1], seen


def test_every_process_has_the_score_that_the_kernel_shows(start: Start) -> None:
    steep = [start(LARGE).pid, start(IDLE).pid, start(IDLE).pid]
    for pid, adj in zip(steep, (350, 1000, 7), strict=True):
        set_adj(pid, adj)
    proc = ProcFs()
    total = total_pages(parse_meminfo(Path("/proc/meminfo").read_bytes()))
    pids = {int(name) for name in proc.listing()} - {1}
    found = {pid: pair for pid in pids if (pair := compared(proc, pid, total)) is not None}
    proc.close()

    assert set(steep) <= set(found)
    assert {pid: pair for pid, pair in found.items() if not agrees(*pair, total)} == {}


def test_a_small_process_with_a_high_adj_dies_before_a_large_one(start: Start) -> None:
    large, small = start(LARGE), start(IDLE)
    set_adj(small.pid, 1000)
    order = [entry["pid"] for entry in entries()]

    assert order.index(small.pid) < order.index(large.pid)


# -- what is listed --------------------------------------------------------------------------------


def test_memory_is_resident_and_swapped_and_page_tables(start: Start) -> None:
    child = start(LARGE)
    [entry] = [entry for entry in entries() if entry["pid"] == child.pid]
    kib = {
        key: int(value.removesuffix("kB"))
        for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
        for key, _, value in [line.partition(":\t")]
        if key in ("VmRSS", "VmSwap", "VmPTE")
    }

    assert len(kib) == 3
    assert entry["memory_bytes"] == sum(kib.values()) * 1024
    assert entry["points_pages"] == sum(kib.values()) * 1024 // PAGE_BYTES


def test_a_process_whose_first_thread_has_exited_is_listed_with_its_memory(start: Start) -> None:
    child = start(LEADERLESS)
    stat = Path(f"/proc/{child.pid}/stat")
    until(lambda: parse_stat(stat.read_bytes()).state == "Z")

    [entry] = [entry for entry in entries() if entry["pid"] == child.pid]

    assert b"VmRSS" not in Path(f"/proc/{child.pid}/status").read_bytes()
    assert isinstance(entry["memory_bytes"], int)
    assert 64 * MIB < entry["memory_bytes"] < 256 * MIB


def test_kernel_threads_pid_1_and_the_dead_are_not_listed() -> None:
    with subprocess.Popen(["true"]) as dead:  # nobody waits for it before the end of the block
        stat = Path(f"/proc/{dead.pid}/stat")
        until(lambda: parse_stat(stat.read_bytes()).state == "Z")
        pids = {entry["pid"] for entry in entries("--all")}
    proc = ProcFs()
    stats = {int(name): proc.stat(int(name)) for name in proc.listing()}
    kernel_threads = {pid for pid, stat in stats.items() if stat is not None and stat.kernel_thread}
    proc.close()

    assert os.getpid() in pids
    assert not pids & ({1, dead.pid} | kernel_threads)


@pytest.mark.parametrize(
    "name",
    [b"x) R 1 (", b"a\nState:\tZ", b"\x1b[31mred", b"\xff\xfe", "訓練".encode(), b" ", b"(sd-pam)"],
)
def test_any_name_is_told_as_it_is_and_stays_on_its_line(start: Start, name: bytes) -> None:
    child = start(NAMED, name.hex())
    [entry] = [entry for entry in entries() if entry["pid"] == child.pid]
    lines = cli("--all").stdout.decode().splitlines()

    assert entry["name"] == decoded(name[:15])
    assert sum(f" {child.pid}  " in line for line in lines) == 1
    assert all(line.isprintable() for line in lines)


class Ending(ProcFs):
    """A real /proc in which *victim* ends at the moment named."""

    def __init__(self, victim: subprocess.Popen[bytes], moment: str) -> None:
        super().__init__()
        self._victim, self._moment = victim, moment

    def _end(self) -> None:
        self._victim.kill()
        self._victim.wait()

    def listing(self) -> dict[str, int]:
        listed = super().listing()
        assert str(self._victim.pid) in listed
        if self._moment == "listed":
            self._end()
        return listed

    def look(self, pid: int) -> Look | None:
        look = super().look(pid)
        if self._moment == "looked at" and pid == self._victim.pid:
            self._end()
        return look


@pytest.mark.parametrize("moment", ["listed", "looked at"])
def test_a_process_that_ends_meanwhile_is_left_out(start: Start, moment: str) -> None:
    victim, other = start(IDLE), start(IDLE)
    with closing(Ending(victim, moment)) as proc:
        ranking = read_ranking(proc)
    pids = {candidate.pid for candidate in ranking.killable + ranking.exempt}

    assert other.pid in pids
    assert victim.pid not in pids


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("mount_namespaces")
def test_an_ordinary_user_is_told_what_hidepid_hides() -> None:
    """With a /proc of its own, mounted as a hardened machine has it."""
    script = """
mount -t proc -o hidepid=invisible proc /proc &&
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" -m oomwatchd rank --json
"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []  # of nobody's, there is only the command itself
    assert b"not seen: processes of other users" in done.stderr


@pytest.mark.usefixtures("mount_namespaces")
def test_without_a_whole_proc_it_says_which_file_is_missing() -> None:
    script = 'mount -t tmpfs none /proc && exec "$0" -m oomwatchd rank'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )

    assert (done.returncode, done.stdout) == (66, b"")
    assert done.stderr == b"oomwatchd rank: /proc/meminfo: No such file or directory\n"


def test_an_unknown_option_is_a_usage_fault() -> None:
    done = cli("--everything")

    assert (done.returncode, done.stdout) == (64, b"")


def test_without_a_configuration_no_process_has_a_rule() -> None:
    listed = entries("--all")

    assert listed
    assert all(list(entry) == FIELDS and entry["rule"] is None for entry in listed)


@pytest.mark.parametrize(("no_color", "bold"), [("", True), ("1", False)])
def test_only_a_terminal_gets_bold_and_not_with_no_color(
    pseudo_terminal: tuple[int, int], no_color: str, *, bold: bool
) -> None:
    leader, follower = pseudo_terminal
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        subprocess.run(
            [sys.executable, "-m", "oomwatchd", "rank"],
            stdout=follower,
            check=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"NO_COLOR": no_color},
        )
        shown = terminal.read(65536)
        os.close(follower)

    assert (b"\x1b[1mRANK" in shown) == bold
    assert b"\x1b" not in cli(NO_COLOR=no_color).stdout


def test_a_name_that_the_encoding_does_not_have_does_not_stop_it(start: Start) -> None:
    child = start(NAMED, "訓練".encode().hex())
    done = cli("--all", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    [line] = [line for line in done.stdout.splitlines() if b" %d  " % child.pid in line]
    assert rb"\u8a13\u7df4" in line
