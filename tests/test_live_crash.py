"""The daemon is killed at any moment, again and again: what processes had before is never lost."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from live import (
    REPOSITORY,
    Herd,
    Service,
    adj,
    herd,
    needs_root,
    rule,
    service,
    until,
)

from oomwatchd.kernel.proc import GONE, PROC, parse_stat
from oomwatchd.ledger import parsed

pytestmark = needs_root

RESTARTS: Final = 200
RESTARTS_MAX: Final = 600  # a busy machine takes more of them for as many looks at the ledger
FIRST, SECOND, WORKERS = 311, 322, 333
OURS: Final = {FIRST, SECOND, WORKERS}
LEADERS: Final = 20
LIFE_SECONDS: Final = 0.4  # at most; time for about three looks
BOOT_ID: Final = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

RULES: Final = [
    rule("first", {"script": "live-first.pl"}, FIRST, workers=WORKERS),
    rule("second", {"script": "live-second.pl"}, SECOND, descendants="reset"),
]

# Every now and then it becomes another program, or has a child that goes its own way for a while;
# in its command line stands the value that it had before anybody came near it.
CHURN = """
my ($original, $generation) = @ARGV;
my @programs = qw(live-first.pl live-second.pl live-plain.pl);
$SIG{CHLD} = "IGNORE";
$| = 1;
print "ready\\n";
srand($$ ^ time);
until (-e "live-stop") {
    select(undef, undef, undef, 0.1 + rand 0.8);
    my $what = rand;
    exec $^X, $programs[rand @programs], @ARGV if $what < 0.5;
    exit if $generation && $what < 0.75;
    next if $generation || $what < 0.85 || fork;
    exec $^X, $programs[rand @programs], $original, 1;
}
open(my $quiet, ">", "live-quiet-$$");
sleep 3600;
"""


# Starts the daemon in a child, once for each line of input.  That saves the 0.2 s in which Python
# loads it, which on a busy machine would be most of its short life.
STARTER = """
import os, sys
import oomwatchd.cli.run
from oomwatchd.cli.main import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(main(["run", "-c", sys.argv[1]]))
    os.write(1, b"%d\\n" % child)
    os.write(1, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Starter:
    """The parent of daemons with short lives."""

    def __init__(self, daemon: Service) -> None:
        with daemon.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", STARTER, daemon.config],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=REPOSITORY,
                env=daemon.environment(),
                text=True,
                bufsize=1,
            )

    def start(self) -> int:
        """The pid of a new daemon."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        return self._number()

    def end(self, pid: int, number: int) -> int:
        """Send it a signal; its exit status."""
        os.kill(pid, number)
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class Churner(NamedTuple):
    pid: int
    parent_pid: int
    original: int
    value: int


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        for name in ("live-first.pl", "live-second.pl", "live-plain.pl"):
            processes.script(name, CHURN)
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


class LedgerReader:
    """Reads the ledger as fast as it can, and keeps the texts that cannot be understood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts = 0
        self.broken: list[tuple[bytes, Exception]] = []
        self._last = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        while not self._stop.wait(0.001):
            try:
                raw = self.path.read_bytes()
            except FileNotFoundError:  # the first daemon has not written it yet
                continue
            if raw == self._last:
                continue
            self._last = raw
            self.texts += 1
            try:
                parsed(raw, BOOT_ID)
            except ValueError as error:
                self.broken.append((raw, error))

    def __enter__(self) -> "LedgerReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def churners(animals: Herd) -> dict[int, Churner]:
    """All that are alive, by pid: those that we have started, and what they have forked."""
    leaders = {child.pid for child in animals.all}
    found = {}
    for name in filter(str.isdecimal, os.listdir(PROC)):
        churner = churner_of(int(name), leaders)
        if churner is not None:
            found[churner.pid] = churner
    return found


def churner_of(pid: int, leaders: set[int]) -> Churner | None:
    try:
        if os.getpgid(pid) not in leaders:
            return None
        stat = parse_stat((PROC / f"{pid}/stat").read_bytes())
        arguments = (PROC / f"{pid}/cmdline").read_bytes().split(b"\0")
        value = adj(pid)
    except GONE:
        return None
    if not stat.alive or value is None or len(arguments) < 4:
        return None
    return Churner(pid, stat.parent_pid, int(arguments[2]), value)


def end_churn(animals: Herd) -> None:
    """Wait until nobody execs or forks any more."""
    (animals.directory / "live-stop").touch()

    def quiet() -> bool:
        alive = churners(animals)
        return all((animals.directory / f"live-quiet-{pid}").exists() for pid in alive)

    until(quiet, "an end of the churn")


def remembered(daemon: Service) -> dict[int, int]:
    """What the ledger says that processes had before, by pid."""
    return {pid: entry["oom_score_adj_before"] for pid, entry in daemon.claims().items()}


def lost(alive: dict[int, Churner], before: dict[int, int]) -> list[Churner]:
    """Those that have a value of ours, and nobody knows what they had before.

    A child that was forked a moment ago counts as known if one of its ancestors is.
    """

    def known(one: Churner | None) -> bool:
        if one is None:
            return False
        return before.get(one.pid) == one.original or known(alive.get(one.parent_pid))

    return [one for one in alive.values() if one.value in OURS and not known(one)]


def test_two_hundred_kills_lose_no_value(animals: Herd, daemon: Service) -> None:
    daemon.configure(*RULES, interval="100ms", on_stop="restore", metrics={"listen": "off"})
    for number in range(LEADERS):
        animals.ready("perl", "live-plain.pl", str(10 + number), "0", value=10 + number)
    dice = random.Random(2)  # noqa: S311 - no secret
    losses = []
    with LedgerReader(daemon.ledger) as reader, Starter(daemon) as starter:
        for restart in range(RESTARTS_MAX):
            if restart >= RESTARTS and reader.texts > RESTARTS:
                break
            pid = starter.start()
            time.sleep(dice.uniform(0, LIFE_SECONDS))
            assert starter.end(pid, signal.SIGKILL) == -signal.SIGKILL, daemon.log()
            if daemon.ledger.exists():
                before = remembered(daemon)
                losses += [(restart, one) for one in lost(churners(animals), before)]

    assert reader.broken == []
    assert reader.texts > RESTARTS
    assert losses == []

    end_churn(animals)
    daemon.configure(*RULES, interval="100ms", on_stop="restore")
    daemon.start()
    assert daemon.stop() == 0
    survivors = churners(animals)

    assert len(survivors) >= LEADERS
    assert [one for one in survivors.values() if one.value != one.original] == []
