"""A program in place of journalctl: it says what it is told to, and notes what it was asked."""

import json
import os
import shlex
import time
from pathlib import Path

import psutil

from oomwatchd.systemd.kills import KILLED_BY_KERNEL, KILLED_BY_OOMD

PATIENCE_SECONDS = 20.0
POLL_SECONDS = 0.005
PRESSURE = "due to memory pressure for {} being 57.97% > 50.00% for > 20s with reclaim activity"


def entry(unix_seconds: float, **fields: object) -> dict[str, object]:
    return {"__REALTIME_TIMESTAMP": f"{unix_seconds * 1e6:.0f}", "_BOOT_ID": "b", **fields}


def oomd_entry(unix_seconds: float, cgroup: str) -> dict[str, object]:
    """systemd-oomd says that it has killed it."""
    message = f"Killed {cgroup} {PRESSURE.format(cgroup.rpartition('/')[0])}"
    return entry(unix_seconds, _SYSTEMD_UNIT="systemd-oomd.service", _PID="700", MESSAGE=message)


def unit_entry(unix_seconds: float, unit: str, *, by_oomd: bool = False) -> dict[str, object]:
    """PID 1 says that a process of the unit was killed."""
    id = KILLED_BY_OOMD if by_oomd else KILLED_BY_KERNEL
    message = f"{unit}: a process of this unit has been killed"
    return entry(unix_seconds, _PID="1", _UID="0", MESSAGE_ID=id, UNIT=unit, MESSAGE=message)


def ended_children() -> bool:
    """Whether all children in groups of their own have ended, waited for or not."""
    ours = [one for one in psutil.Process().children() if os.getpgid(one.pid) == one.pid]
    return all(one.status() == psutil.STATUS_ZOMBIE for one in ours)


def wait_for_children() -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not ended_children():
        assert time.monotonic() < until
        time.sleep(POLL_SECONDS)


class FakeJournal:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "journalctl"
        self._asked = directory / "asked"
        self._lines = directory / "lines"
        self.says()

    def says(self, *entries: dict[str, object]) -> None:
        """From now on, and that it ends well."""
        self.says_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in entries))

    def says_bytes(self, said: bytes) -> None:
        self._lines.write_bytes(said)
        self.does(f"exec cat {shlex.quote(str(self._lines))}")

    def does(self, commands: str) -> None:
        """In the shell's words."""
        note = f'echo "$*" >> {shlex.quote(str(self._asked))}'
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f"#!/bin/sh\n{note}\n{commands}\n")
        os.chmod(fresh, 0o700)
        fresh.replace(self.path)

    @property
    def asked(self) -> list[str]:
        """The arguments of each time it was run."""
        return self._asked.read_text().splitlines() if self._asked.exists() else []
