"""What holds for every test: it leaves no descriptor open and no child behind."""

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import BAD, GOOD, WAITS, written
from demand import terminal
from fakeproc import FakeProc
from hypothesis import settings
from world import World

from oomwatchd.journal import log
from oomwatchd.kernel.proc import ProcFs

# On a busy machine one example may take any time; what has a bound states it itself.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")

SETTLE_SECONDS = 2.0  # a server's thread closes its connection a moment after the client
POLL_SECONDS = 0.01


def descriptors() -> dict[str, str]:
    """Every open descriptor, with what it is open on."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def children() -> set[int]:
    """Our child processes, those that nobody has waited for among them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all, which is quicker to ask than to list them
        return set()
    return {child.pid for child in psutil.Process().children()}


def settled(left_behind: Callable[[], object]) -> object:
    """What is left behind for good, not only for a moment."""
    until = time.monotonic() + SETTLE_SECONDS
    while (left := left_behind()) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return left


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    descriptors_before, children_before = descriptors().items(), children()
    yield
    open_still = settled(lambda: dict(descriptors().items() - descriptors_before))
    living_still = settled(lambda: children() - children_before)
    assert not open_still, f"descriptors left open: {open_still}"
    assert not living_still, f"children left behind: {living_still}"


@pytest.fixture
def pseudo_terminal() -> tuple[int, int]:
    """A terminal's two ends, for the test to close."""
    return terminal()


@pytest.fixture
def mount_namespaces() -> None:
    """Whether we may mount things that nobody else sees."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespaces here: {tried.stderr.decode().strip()}")


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path / "proc")


@pytest.fixture
def proc(fake: FakeProc) -> Iterator[ProcFs]:
    """The reader of the fake tree; it holds its directory for as long as the daemon lives."""
    reader = ProcFs(fake.root)
    yield reader
    reader.close()


@pytest.fixture
def world(fake: FakeProc, tmp_path: Path) -> Iterator[World]:
    world = World(fake, tmp_path / "ledger.json")
    yield world
    world.end_of_days()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What goes to the log, from info on."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, propagate = Lines(), log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield lines
    log.removeHandler(handler)
    log.propagate = propagate


# -- for the tests of commands ---------------------------------------------------------------------


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """For all to read, which a directory of pytest's is not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def config(public_directory: Path) -> Path:
    return written(public_directory / "good.yaml", GOOD)


@pytest.fixture
def broken(public_directory: Path) -> Path:
    return written(public_directory / "bad.yaml", BAD)


@pytest.fixture
def match() -> Iterator[subprocess.Popen[bytes]]:
    """A process that the first rule matches, with no value of its own."""
    command = [sys.executable, "-c", WAITS, "marker-of-this-test"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.communicate()
