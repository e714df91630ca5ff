"""The daemon's watch over a fake /proc, with a clock that a test turns by hand."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakeproc import BOOT_ID, FakeProc

from oomwatchd.enforce import Enforcer
from oomwatchd.holds import Hold, Holds
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import Config, Heard, Match, ProcessId, Rule
from oomwatchd.policy.plan import Claim
from oomwatchd.population import Moment, Population
from oomwatchd.record import Adjustment, News, Record
from oomwatchd.watch import LISTING_IDLE_SECONDS, Watch

TICKS_PER_SECOND = 100
RAM_BYTES = 1 << 30
LONG_UP_SECONDS = 1000.0  # so that what started at tick 100 is old


def named(name: str, oom_score_adj: int, **keys: Any) -> Rule:
    return Rule(f"rule-{name.strip('*')}", Match(name=(name,)), oom_score_adj, **keys)


class World:
    def __init__(self, fake: FakeProc, ledger_path: Path, *, dry_run: bool = False) -> None:
        self.fake = fake
        self.seconds = 0.0
        self.ledger_path = ledger_path
        self._dry_run = dry_run
        self.start()

    def start(self) -> None:
        """Another daemon, which finds what the last one has left."""
        self.proc = ProcFs(self.fake.root)
        self.holds = Holds()
        self.ledger = Ledger(self.ledger_path, BOOT_ID, read_only=self._dry_run)
        self.ledger.load()
        self.record = Record(dry_run=self._dry_run)
        self.population = Population(self.holds, self.ledger, TICKS_PER_SECOND)
        self.enforcer = Enforcer(
            self.proc, self.population, self.ledger, self.record, dry_run=self._dry_run
        )
        self.watch = Watch(
            self.proc, self.population, self.enforcer, self.ledger, self.record, ram_bytes=RAM_BYTES
        )

    def end(self) -> None:
        """The daemon ends, however it does: what it held is closed by the kernel."""
        self.holds.close()
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                link = os.readlink(f"/proc/self/fd/{fd}")
                if link.startswith((str(self.fake.root), "anon_inode:[pidfd]")):
                    os.close(int(fd))

    def end_of_days(self) -> None:
        """All processes end while the daemon goes on, which leaves nothing open but /proc."""
        self.fake.everybody_exits()
        self.scan(LISTING_IDLE_SECONDS)
        assert list(self.holds) == []
        self.holds.close()
        self.proc.close()

    def configure(self, *rules: Rule, **settings: Any) -> None:
        self.watch.configure(Config(rules, **settings))

    def scan(self, after_seconds: float = 1.0) -> None:
        self.seconds += after_seconds
        self.watch.scan(self.moment())

    def hear(self, *pids: int, forks: Sequence[tuple[int, int]] = (), lost: bool = False) -> None:
        """The kernel tells of *pids*, and of *forks* by parent and child."""
        heard = Heard(dict.fromkeys(pids, 0), tuple(forks), len(pids) + len(forks), lost)
        self.watch.hear(heard, self.moment())

    def revisit(self, after_seconds: float) -> None:
        self.seconds += after_seconds
        self.watch.revisit(self.moment())

    def moment(self) -> Moment:
        return Moment(self.seconds, LONG_UP_SECONDS + self.seconds)

    def scans(self, number: int, every_seconds: float = 1.0) -> None:
        for _ in range(number):
            self.scan(every_seconds)

    def now_ticks(self) -> int:
        """The start of a process that starts now."""
        return int((LONG_UP_SECONDS + self.seconds) * TICKS_PER_SECOND)

    def change(self, pid: int, **fields: Any) -> None:
        self.fake.change(replace(self.fake.get(pid), **fields))

    def values(self, pids: Sequence[int] | None = None) -> list[int]:
        chosen = self.fake.pids() if pids is None else pids
        return [self.fake.oom_score_adj(pid) for pid in chosen]

    def news(self) -> list[News]:
        return self.record.take_news()

    def results(self) -> Counter[str]:
        """How the writes since the last call went."""
        return Counter(item.result for item in self.news() if isinstance(item, Adjustment))

    def hold(self, pid: int) -> Hold:
        hold = self.holds.get(pid)
        assert hold is not None
        return hold

    def remembered(self) -> dict[ProcessId, Claim]:
        """What another daemon would find, should this one be killed now."""
        ledger = Ledger(self.ledger_path, BOOT_ID)
        ledger.load()
        return dict(ledger.claims())
