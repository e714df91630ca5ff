"""A machine of our own making, as an audit sees it: processes, cgroups, and what systemd tells."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc

from oomwatchd.auditing import (
    KILLERS,
    Standing,
    Subject,
    Surroundings,
    UnitName,
    UnitSettings,
    Unseen,
    Verdicts,
)
from oomwatchd.kernel.mark import HOME
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Match, Rule
from oomwatchd.policy.audit import Auditor
from oomwatchd.surroundings import Sources, Target, survey
from oomwatchd.systemd.units import Answers

TRAINER = 4711
START_TICKS = 100
GIB = 1 << 30
SESSION = "/user.slice/user-1000.slice/user@1000.service"
TERMINAL = f"{SESSION}/app.slice/term.scope"
SERVICE = "/system.slice/train.service"
MEMINFO = """\
MemTotal:       {ram_kib} kB
MemFree:        1000 kB
MemAvailable:   1000 kB
SwapTotal:      {swap_kib} kB
SwapFree:       {swap_kib} kB
Shmem:          {shared_kib} kB
Hugetlb:        {huge_kib} kB
"""
RIGHTS = "CapEff:\t{rights:016x}\n"
FIRST_NAMESPACE = "         0          0 4294967295\n"
OWN_NAMESPACE = "         0       1000          1\n"
ALL_RIGHTS = (1 << 41) - 1
STOP = UnitSettings(oom_policy="stop")
CONTINUE = UnitSettings(oom_policy="continue")
PLAIN = UnitSettings()
WATCHED = UnitSettings(oom_policy="continue", pressure="kill", pressure_limit_ratio=0.5)
NO_OTHER: Mapping[str, Standing] = {
    "earlyoom": "absent",
    "nohang": "absent",
    "ray": "absent",
    "kubelet": "absent",
}
PROTECTED = Rule("training", Match(user=()), -900, shield="preference")


Build = Callable[["Computer"], None]


class Machines:
    """Functions that each build a machine, with the verdicts that are due on it."""

    def __init__(self) -> None:
        self.cases: list[tuple[Build, Mapping[str, Standing]]] = []

    def __call__(self, **expected: Standing) -> Callable[[Build], Build]:
        """Of the killers in user space that are not named, none is there."""

        def added(build: Build) -> Build:
            self.cases.append((build, {**NO_OTHER, **expected}))
            return build

        return added


def name_of(value: object) -> str:
    return getattr(value, "__name__", "")


def as_expected(computer: "Computer", build: Build, expected: Mapping[str, Standing]) -> None:
    build(computer)
    verdicts = computer.verdicts()
    found = {killer: verdicts[killer].verdict for killer in verdicts if killer in expected}
    reasons = {killer: verdicts[killer].reason for killer in verdicts if killer in expected}

    assert tuple(verdicts) == KILLERS
    assert {killer: found[killer] for killer in sorted(found)} == dict(sorted(expected.items())), (
        reasons
    )


class Computer:
    """32 GiB of RAM, cgroup v2, systemd 257; pid 1, a shell of 1 GiB, and no other killer."""

    def __init__(self, root: Path, *, unified: bool = True) -> None:
        self.proc = FakeProc(root / "proc")
        self.files = root / "files"
        self.files.mkdir()
        self.cgroups = root / "cgroup"
        self._tree = self.cgroups if unified else self.cgroups / "memory"
        self._tree.mkdir(parents=True)
        if unified:
            (self.cgroups / "cgroup.controllers").write_text("memory pids\n")
        self.units: dict[UnitName, UnitSettings | Unseen] = {}
        self.version: tuple[int, int] | Unseen = (257, 13)
        self.memory()
        for name in ("panic_on_oom", "oom_kill_allocating_task", "overcommit_memory"):
            self.setting(name, 0)
        self.process(1, b"systemd", mib=10, cgroup="/init.scope")
        self.process(50, b"bash", mib=1024, cgroup="/system.slice/ssh.service")

    def memory(
        self, *, ram: float = 32, swap: float = 0, shared: float = 0, huge: float = 0
    ) -> None:
        """In GiB."""
        text = MEMINFO.format(
            ram_kib=int(ram * (1 << 20)),
            swap_kib=int(swap * (1 << 20)),
            shared_kib=int(shared * (1 << 20)),
            huge_kib=int(huge * (1 << 20)),
        )
        (self.proc.root / "meminfo").write_text(text)

    def setting(self, name: str, value: int) -> None:
        directory = self.proc.root / "sys/vm"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(f"{value}\n")

    def process(
        self,
        pid: int,
        comm: bytes,
        *,
        mib: float,
        cgroup: str,
        adj: int = 0,
        parent: int = 1,
        arguments: tuple[bytes, ...] | None = None,
        shared_mib: float = 0,
        rights: int = 0,
        namespace: bool = False,
        session: int = 0,
        uid: int = 1000,
    ) -> None:
        fake = Fake(
            pid=pid, comm=comm, arguments=arguments, parent=parent, session=session or pid,
            start_ticks=START_TICKS, uid=uid, cgroup=f"0::{cgroup}\n", anon_kib=int(mib * 1024),
            shmem_kib=int(shared_mib * 1024),
        )  # fmt: skip
        self.proc.add(fake, oom_score_adj=adj)
        directory = self.proc.root / str(pid)
        with (directory / "status").open("a") as status:
            status.write(RIGHTS.format(rights=rights))
        (directory / "uid_map").write_text(OWN_NAMESPACE if namespace else FIRST_NAMESPACE)
        self.cgroup(cgroup)

    def trainer(
        self, cgroup: str, *, adj: int = -900, mib: float = 8192, parent: int = 1, session: int = 0,
        uid: int = 1000,
    ) -> None:  # fmt: skip
        self.process(
            TRAINER, b"python3", mib=mib, cgroup=cgroup, adj=adj, parent=parent, session=session,
            uid=uid,
        )  # fmt: skip

    def cgroup(
        self,
        path: str,
        *,
        limit: int | None = None,
        swap_limit: int | None = None,
        group: bool = False,
        mark: str = "",
        owner: int | None = None,
    ) -> None:
        """It, and those above it; what is not said stays as it was."""
        directory = self._tree
        for component in path.strip("/").split("/"):
            directory /= component
            if not directory.exists():
                directory.mkdir()
                (directory / "memory.max").write_text("max\n")
                (directory / "memory.swap.max").write_text("max\n")
                (directory / "memory.high").write_text("max\n")
                (directory / "memory.current").write_text("1048576\n")
                (directory / "memory.oom.group").write_text("0\n")
        if limit is not None:
            (directory / "memory.max").write_text(f"{limit}\n")
        if swap_limit is not None:
            (directory / "memory.swap.max").write_text(f"{swap_limit}\n")
        if group:
            (directory / "memory.oom.group").write_text("1\n")
        if mark:
            set_mark(directory, mark)
        if owner is not None:
            own(directory, owner)

    def home(self, scope: str, cgroup: str) -> None:
        """Where those in a scope of ours are from."""
        set_attribute(self._tree / scope.strip("/"), HOME, cgroup.encode())

    def unit(self, name: str, settings: UnitSettings | Unseen, manager: int | None = None) -> None:
        self.units[UnitName(manager, name)] = settings

    def oomd(self) -> None:
        self.process(
            60, b"systemd-oomd", mib=2, cgroup="/system.slice/systemd-oomd.service", adj=-900
        )

    def hunter(self, comm: str, *options: bytes) -> None:
        """A service that may kill others."""
        cgroup = f"/system.slice/{comm}.service"
        arguments = (comm.encode(), *options)
        self.process(
            90, comm.encode(), mib=2, cgroup=cgroup, arguments=arguments, rights=ALL_RIGHTS
        )

    def session(self, *, watched: UnitSettings = WATCHED, owner: int | None = None) -> None:
        """A user's manager, with its own processes in init.scope."""
        self.process(70, b"systemd", mib=9, cgroup=f"{SESSION}/init.scope", adj=100)
        self.unit("user@1000.service", watched)
        if owner is not None:
            for path in (SESSION, f"{SESSION}/init.scope", f"{SESSION}/app.slice"):
                self.cgroup(path, owner=owner)

    def ask(self, units: Sequence[UnitName]) -> Answers:
        """Systemd knows each unit; of those nobody has told us about, nothing is set."""
        return Answers(self.version, {unit: self.units.get(unit, default(unit)) for unit in units})

    def survey(
        self, rule: Rule = PROTECTED, wanted: int | None = None
    ) -> tuple[Subject, Surroundings]:
        value = rule.oom_score_adj if wanted is None else wanted
        target = Target(TRAINER, START_TICKS, rule, value)
        with self.sources() as sources:
            [subject], around = survey([target], sources)
        return subject, around

    @contextmanager
    def sources(self) -> Iterator[Sources]:
        with closing(ProcFs(self.proc.root)) as proc:
            yield Sources(proc, CgroupTree(self.cgroups), self.files, self.ask)

    def verdicts(self, rule: Rule = PROTECTED, wanted: int | None = None) -> Verdicts:
        subject, around = self.survey(rule, wanted)
        return Auditor(around).verdicts(subject)


def default(unit: UnitName) -> UnitSettings:
    return STOP if unit.name.endswith((".service", ".scope")) else PLAIN


def set_mark(directory: Path, mark: str) -> None:
    set_attribute(directory, f"user.oomd_{mark}", b"1")


def set_attribute(directory: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(directory, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("the file system of the temporary directory takes no attributes")


def own(directory: Path, owner: int) -> None:
    try:
        os.chown(directory, owner, -1)
    except PermissionError:
        pytest.skip("only root may give files away")
