"""Moving a process with its descendants, on the kernel's own cgroups; systemd's part is played."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import PATIENCE_SECONDS, Herd, herd, id_of, until

from oomwatchd.kernel.lineage import ancestors
from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.model import ProcessId
from oomwatchd.systemd.manager import Failed, Reply, Request, spawned, worker_command
from oomwatchd.systemd.worker import Mover, placeholder

MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
SLICE = "oomwatchd.slice"
ELSEWHERE = "oomwatchd-test-elsewhere.scope"
HOME = "oomwatchd-test.scope"
DOCKER = "docker-oomwatchd-test.scope"

SLEEPS = "while :; do sleep 3600; done"
# A parent, a child and a grandchild; each says so.
FAMILY = f"echo; (echo; (echo; {SLEEPS}) & {SLEEPS}) & {SLEEPS}"
# Never stops forking, and neither do its children, some of which outlive their parents.
FORKS = """
import os, sys, time
print(flush=True)
end = time.monotonic() + 120
while time.monotonic() < end:
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(0.2)
            os._exit(0)
        os.wait() if os.getpid() % 2 else None
        os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Cgroups:
    """Cgroups of the kernel's, directly below the mount, made and removed by the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[Path] = []

    def make(self, *names: str) -> Path:
        path = self.root
        for name in names:
            path = path / name
            if not path.exists():
                path.mkdir()
                self.made.append(path)
        return path

    def start(self, rule: str, process: ProcessId, first_pid: int) -> str:
        """systemd's part."""
        name = f"oomwatchd-{rule}-{process.pid}.scope"
        self.put(first_pid, SLICE, name)
        return name

    def put(self, pid: int, *names: str) -> None:
        (self.make(*names) / "cgroup.procs").write_text(str(pid))

    def pids(self, *names: str) -> set[int]:
        text = self.root.joinpath(*names, "cgroup.procs").read_text()
        return set(map(int, text.split()))

    def remove_all(self) -> None:
        """All that are empty; they are, a moment after the last process has ended."""
        for path in reversed(self.made):
            until(lambda path=path: removed(path), f"{path} is empty")  # type: ignore[misc]  # bound


def removed(path: Path) -> bool:
    with suppress(FileNotFoundError):
        try:
            path.rmdir()
        except OSError:
            return False
    return True


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    if Path("/run/systemd/system").exists():
        pytest.skip("systemd arranges the cgroups here")
    for mount in MOUNTS:
        if (mount / "cgroup.procs").exists() and os.access(mount / "cgroup.procs", os.W_OK):
            cgroups = Cgroups(mount)
            yield cgroups
            cgroups.remove_all()
            return
    pytest.skip("no cgroup2 here that we may change")


@pytest.fixture
def family(cgroups: Cgroups) -> Iterator[Herd]:
    with herd() as animals:
        yield animals
        for path in cgroups.made:  # those that have left the group of the first, as well
            with suppress(OSError):
                for pid in cgroups.pids(*path.relative_to(cgroups.root).parts):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def proc() -> Iterator[ProcFs]:
    proc = ProcFs()
    yield proc
    proc.close()


@pytest.fixture
def move(cgroups: Cgroups, proc: ProcFs) -> Callable[[int], Reply]:
    mover = Mover(proc, CgroupFs(cgroups.root), cgroups.start)
    return lambda pid: mover.move(Request("live", must_be(id_of(pid))))


def must_be(id: ProcessId | None) -> ProcessId:
    assert id is not None
    return id


def in_home(cgroups: Cgroups, family: Herd, *command: str, lines: int = 1) -> int:
    """Start *command* in a cgroup of the tests', and wait for so many lines."""
    path = cgroups.make(HOME) / "cgroup.procs"
    child = family.start("/bin/sh", "-c", f'echo $$ >{path} && exec "$@"', "sh", *command)
    assert child.stdout is not None
    for _ in range(lines):
        assert child.stdout.readline()
    return child.pid


def test_a_process_is_moved_with_its_descendants(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "/bin/sh", "-c", FAMILY, lines=3)
    until(lambda: len(cgroups.pids(HOME)) == 6, "three shells and what they wait for")
    before = cgroups.pids(HOME)
    reply = move(first)
    scope = f"oomwatchd-live-{first}.scope"

    assert reply == Reply(must_be(id_of(first)), "moved", f"/{SLICE}/{scope}", 6)
    assert CgroupFs(cgroups.root).home_of(f"/{SLICE}/{scope}") == f"/{HOME}".encode()
    assert cgroups.pids(HOME) == set()
    assert cgroups.pids(SLICE, scope) == before


def test_neither_siblings_nor_the_parent_come_along(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "/bin/sh", "-c", FAMILY, lines=3)
    until(lambda: len(cgroups.pids(HOME)) == 6, "three shells and what they wait for")
    other = in_home(cgroups, family, "sleep", "3600", lines=0)
    until(lambda: other in cgroups.pids(HOME), "it has arrived")
    child = next(pid for pid in cgroups.pids(HOME) if parent(pid) == first and children_of(pid))
    reply = move(child)

    assert reply.moved == 4
    assert {first, other} <= cgroups.pids(HOME)
    assert len(cgroups.pids(HOME)) == 3


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_one_whose_ancestor_has_a_scope_joins_it(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "/bin/sh", "-c", FAMILY, lines=3)
    until(lambda: len(cgroups.pids(HOME)) == 6, "three shells and what they wait for")
    move(first)
    scope = f"oomwatchd-live-{first}.scope"
    strays = [pid for pid in cgroups.pids(SLICE, scope) if pid != first and children_of(pid)]
    youngest = max(strays, key=lambda pid: must_be(id_of(pid)).start_ticks * 2**32 + pid)
    cgroups.put(youngest, HOME)
    reply = move(youngest)

    assert (reply.result, reply.scope) == ("moved", f"/{SLICE}/{scope}")
    assert len(cgroups.pids(SLICE, scope)) == 6
    assert [path.name for path in (cgroups.root / SLICE).glob("*.scope")] == [scope]


def test_who_has_been_put_elsewhere_stays_there(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "/bin/sh", "-c", FAMILY, lines=3)
    until(lambda: len(cgroups.pids(HOME)) == 6, "three shells and what they wait for")
    child = next(pid for pid in cgroups.pids(HOME) if parent(pid) == first and children_of(pid))
    cgroups.put(child, ELSEWHERE)
    reply = move(first)

    assert reply.result == "moved"
    assert cgroups.pids(ELSEWHERE) == {child}


def test_of_a_delegated_unit_all_cgroups_are_searched(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "/bin/sh", "-c", FAMILY, lines=3)
    until(lambda: len(cgroups.pids(HOME)) == 6, "three shells and what they wait for")
    for pid in cgroups.pids(HOME):
        cgroups.put(pid, HOME, f"inner{pid % 3}")
    reply = move(first)

    assert (reply.result, reply.moved) == ("moved", 6)


def test_a_process_that_forks_all_the_time_is_not_split(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, sys.executable, "-c", FORKS)
    until(lambda: len(cgroups.pids(HOME)) > 20, "it forks")
    reply = move(first)
    scope = cgroups.root / SLICE / f"oomwatchd-live-{first}.scope"

    def descendants_at_home() -> list[int]:
        """But for orphans whose parent was never seen, and which end by themselves."""
        proc = ProcFs()
        try:
            return [pid for pid in cgroups.pids(HOME) if first in ancestors(proc, pid)]
        finally:
            proc.close()

    assert reply.result == "moved"
    assert reply.moved > 1
    assert descendants_at_home() == []
    until(lambda: cgroups.pids(HOME) == set(), "the orphans have ended")
    assert first in set(map(int, (scope / "cgroup.procs").read_text().split()))


def test_what_is_not_there_any_more_is_gone(
    cgroups: Cgroups, family: Herd, proc: ProcFs, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    id = must_be(id_of(first))
    mover = Mover(proc, CgroupFs(cgroups.root), cgroups.start)
    another = mover.move(Request("live", id._replace(start_ticks=id.start_ticks - 1)))
    family.end()
    gone = mover.move(Request("live", id))

    assert (another.result, gone.result) == ("gone", "gone")
    assert not (cgroups.root / SLICE).exists()


def test_a_process_that_ends_while_its_scope_is_started_leaves_an_empty_one(
    cgroups: Cgroups, family: Herd, proc: ProcFs
) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    request = Request("live", must_be(id_of(first)))

    def start(rule: str, process: ProcessId, first_pid: int) -> str:
        family.end()
        return cgroups.start(rule, process, first_pid)

    reply = Mover(proc, CgroupFs(cgroups.root), start).move(request)

    assert (reply.result, reply.moved) == ("gone", 0)
    assert cgroups.pids(SLICE, f"oomwatchd-live-{first}.scope") == set()  # systemd removes it then


def test_containers_are_left_alone(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    until(lambda: first in cgroups.pids(HOME), "it has arrived")
    cgroups.put(first, DOCKER)
    reply = move(first)

    assert reply.result == "left_alone"
    assert cgroups.pids(DOCKER) == {first}


def test_a_container_below_the_unit_stays_when_its_parent_is_moved(
    cgroups: Cgroups, family: Herd, move: Callable[[int], Reply]
) -> None:
    """Quadlet's: conmon is in the unit, and what it runs in a cgroup below."""
    first = in_home(cgroups, family, "sh", "-c", "sleep 3600 & echo; wait")
    [payload] = cgroups.pids(HOME) - {first}
    cgroups.put(payload, HOME, "libpod-payload-0123abc")
    reply = move(first)

    assert (reply.result, reply.moved) == ("moved", 1)
    assert cgroups.pids(HOME, "libpod-payload-0123abc") == {payload}


def test_what_systemd_refuses_is_told(cgroups: Cgroups, family: Herd, proc: ProcFs) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    until(lambda: first in cgroups.pids(HOME), "it has arrived")

    def start(_rule: str, _process: ProcessId, _first_pid: int) -> str:
        raise Failed("no")

    request = Request("live", must_be(id_of(first)))
    reply = Mover(proc, CgroupFs(cgroups.root), start).move(request)

    assert (reply.result, reply.reason) == ("failed", "no")
    assert cgroups.pids(HOME) == {first}


def test_what_the_kernel_refuses_is_told(
    cgroups: Cgroups, family: Herd, proc: ProcFs, tmp_path: Path
) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    until(lambda: first in cgroups.pids(HOME), "it has arrived")
    (tmp_path / HOME).mkdir()
    (tmp_path / HOME / "cgroup.procs").write_text(f"{first}\n")
    (tmp_path / SLICE / f"oomwatchd-live-{first}.scope" / "cgroup.procs").mkdir(parents=True)
    request = Request("live", must_be(id_of(first)))
    reply = Mover(proc, CgroupFs(tmp_path), cgroups.start).move(request)

    assert reply.result == "failed"
    assert reply.reason == "1 processes could not be moved (EISDIR)"
    assert cgroups.pids(HOME) == {first}


def test_a_scope_that_ends_before_it_is_filled_is_told(
    cgroups: Cgroups, family: Herd, proc: ProcFs, tmp_path: Path
) -> None:
    first = in_home(cgroups, family, "sleep", "3600", lines=0)
    until(lambda: first in cgroups.pids(HOME), "it has arrived")
    (tmp_path / HOME).mkdir()
    (tmp_path / HOME / "cgroup.procs").write_text(f"{first}\n")
    request = Request("live", must_be(id_of(first)))
    reply = Mover(proc, CgroupFs(tmp_path), cgroups.start).move(request)

    assert (reply.result, reply.reason) == ("failed", "the scope ended meanwhile")


def test_a_placeholder_ends_with_the_worker() -> None:
    with placeholder() as pid:
        alive = Path(f"/proc/{pid}").exists()

    assert alive
    assert not Path(f"/proc/{pid}").exists()


def test_the_real_worker_starts_and_says_what_it_lacks(cgroups: Cgroups) -> None:
    """Here systemd does not run; it is asked all the same, and the answer is a failure."""
    child = subprocess.Popen(["sleep", "3600"])
    worker = spawned(worker_command(cgroups.root))
    try:
        worker.link.settimeout(PATIENCE_SECONDS)
        worker.link.send(Request("live", must_be(id_of(child.pid))).packed())
        reply = worker.link.recv(65536)
    finally:
        child.kill()
        child.wait()
        worker.link.close()
        os.waitpid(worker.pid, 0)

    assert reply == b"" or Reply.parsed(reply).result == "failed"
