"""The daemon's watch, with its shield, over a fake /proc and a fake tree of cgroups."""

from dataclasses import replace
from pathlib import Path

from cgrouptree import CgroupTree
from fakeproc import BOOT_ID, Fake, FakeProc
from world import LONG_UP_SECONDS, World

from oomwatchd.kernel.mark import CgroupFs
from oomwatchd.ledger import Ledger
from oomwatchd.model import Config, Rule
from oomwatchd.population import Moment
from oomwatchd.record import Marking
from oomwatchd.shield import Shield
from oomwatchd.systemd.manager import Spawn

APP = "/user.slice/user-1000.slice/user@1000.service/app.slice"
TERM = f"{APP}/term.scope"
MANAGER_SCOPE = "/user.slice/user-1000.slice/user@1000.service/init.scope"
SERVICE = "/system.slice/db.service"


class ShieldedWorld(World):
    def __init__(
        self,
        fake: FakeProc,
        ledger_path: Path,
        tree: CgroupTree,
        spawn: Spawn | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.tree = tree
        self._spawn = spawn
        super().__init__(fake, ledger_path, dry_run=dry_run)

    def start(self) -> None:
        super().start()
        self.shield = Shield(
            CgroupFs(self.tree.root), self.proc, self.holds, self.ledger, self.record,
            self.enforcer.save_ledger, self._spawn, dry_run=self._dry_run,
        )  # fmt: skip

    def end(self) -> None:
        self.shield.close()
        super().end()

    def end_of_days(self) -> None:
        super().end_of_days()
        self.shield.close()

    def configure(self, *rules: Rule, **settings: object) -> None:
        super().configure(*rules, **settings)
        self.shield.configure(Config(rules, **settings))  # type: ignore[arg-type]  # as given

    def scan(self, after_seconds: float = 1.0) -> None:
        super().scan(after_seconds)
        self.shield.tend(self.moment(), scan=True)

    def event(self) -> None:
        """What the loop does when it has heard of a new process, a moment after the last scan."""
        super().scan(0.01)
        self.shield.tend(self.moment(), scan=False)

    def turn(self, after_seconds: float = 0.0) -> None:
        """What the loop does when it was woken between two scans."""
        self.seconds += after_seconds
        self.shield.tend(self.moment(), scan=False)

    def moment(self) -> Moment:
        return Moment(self.seconds, LONG_UP_SECONDS + self.seconds)

    def run(self, pid: int, comm: str, cgroup: str, **fields: int) -> None:
        """Start a process in *cgroup*, which is there then."""
        self.tree.add(cgroup)
        process = Fake(pid, comm.encode(), cgroup=f"0::{cgroup}\n")
        self.fake.add(replace(process, **fields))  # type: ignore[arg-type]  # whole numbers alone

    def move(self, pid: int, cgroup: str) -> None:
        self.tree.add(cgroup)
        self.change(pid, cgroup=f"0::{cgroup}\n")

    def remembered_marks(self) -> set[str]:
        """What another daemon would find, should this one be killed now."""
        ledger = Ledger(self.ledger_path, BOOT_ID)
        ledger.load()
        return set(ledger.marks())

    def markings(self) -> list[tuple[str, str]]:
        """What became of marks since the last call: cgroup and result."""
        return [(item.cgroup, item.result) for item in self.news() if isinstance(item, Marking)]
