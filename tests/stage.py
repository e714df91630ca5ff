"""A daemon over a fake /proc, with a scripted host in place of the outside world."""

import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fakeproc import BOOT_ID, FakeProc
from world import LONG_UP_SECONDS, RAM_BYTES, TICKS_PER_SECOND, World

from oomwatchd.config import Loaded
from oomwatchd.daemon import Daemon, Machine, serve
from oomwatchd.host import Hears, Wake, Wants
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import Address, Config, Rule, Snapshot
from oomwatchd.population import Moment

PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.005
MACHINE = Machine(RAM_BYTES, TICKS_PER_SECOND)
Story = Iterator[Wake]


def at(seconds: float, **what: Any) -> Wake:
    return Wake(Moment(seconds, LONG_UP_SECONDS + seconds), **what)


def turns_until(done: Callable[[], object], seconds: float) -> Story:
    """Turns at that moment, until what another thread or process does is done."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not done() and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        yield at(seconds)
    assert done()


class ScriptedHost:
    """Tells a story, and keeps what it hears: messages, waits, snapshots, in their order.

    *tells*: whether its kernel tells of processes and of pressure, if it is asked to.  *loads*:
    after each order to reload, a turn of the same moment comes once the load is done, and is not in
    the story.
    """

    def __init__(self, story: Story, *, tells: bool = False, loads: bool = True) -> None:
        self._story = story
        self.tells = tells
        self._loads = loads
        self._last = at(0.0)
        self.wants: list[Wants] = []
        self.told: list[str] = []
        self.waits: list[float] = []
        self.snapshots: list[Snapshot] = []

    def now(self) -> Moment:
        return at(0.0).now

    def listen(self, wants: Wants) -> Hears:
        self.wants.append(wants)
        return Hears(self.tells and wants.events, self.tells and wants.pressure)

    def settle_in(self) -> str:
        return ""

    def wait(self, until_seconds: float) -> Wake:
        if self._loads and self._last.reload:
            load_fd = self.wants[-1].load_fd
            assert load_fd is not None
            assert select.select([load_fd], [], [], PATIENCE_SECONDS)[0], "nothing loaded"
            self._last = Wake(self._last.now)
        else:
            self.waits.append(until_seconds)
            self._last = next(self._story)
        return self._last

    def notify(self, *assignments: str) -> None:
        self.told += [one for one in assignments if not one.startswith("MONOTONIC_USEC=")]

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.told.append("(published)")


class Stage:
    """A daemon over a fake /proc.  *file* is what a reload finds; *served* where metrics go."""

    def __init__(self, fake: FakeProc, path: Path) -> None:
        self.fake = fake
        self.path = path
        self.file: Config | Exception = Config()
        self.served: list[Address | None] = []
        self.refuse_address = False
        self.machine = MACHINE
        self.missing = {"psi": "", "kernel_log": "Permission denied: kills cannot be explained"}
        self._world = World(fake, path)  # closes at the end what a daemon leaves open

    def load(self) -> Loaded:
        if isinstance(self.file, Exception):
            raise self.file
        return Loaded(self.file, (), {})

    def rebind(self, address: Address | None) -> None:
        if self.refuse_address:
            raise OSError(98, "cannot listen on 127.0.0.1:1: Address already in use")
        self.served.append(address)

    def play(
        self,
        story: Story,
        *rules: Rule,
        dry_run: bool = False,
        tells: bool = False,
        loads: bool = True,
        **settings: object,
    ) -> ScriptedHost:
        self.file = Config(rules, **settings)  # type: ignore[arg-type]  # a test's own keywords
        ledger = Ledger(self.path, BOOT_ID, read_only=dry_run)
        ledger.load()
        daemon = Daemon(
            self.load(), self.load, self.rebind, ProcFs(self.fake.root), ledger, self.missing,
            self.machine, dry_run=dry_run,
        )  # fmt: skip
        self.host = host = ScriptedHost(story, tells=tells, loads=loads)
        serve(daemon, host)
        return host

    def close(self) -> None:
        root = str(self.fake.root)
        links = (os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
        held = [link for link in links if link.startswith(root) and Path(link).name.isdecimal()]
        assert not held, "directories of processes left open"
        self._world.end()
