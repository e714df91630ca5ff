"""What one frame shows, as read at one instant.  Data only."""

from collections.abc import Mapping
from typing import NamedTuple

from oomwatchd.kernel.status import Memory
from oomwatchd.model import Level, Pressure


class Row(NamedTuple):
    """One process."""

    rank: int | None  # 1 dies first; None: never picked
    pid: int
    name: str
    oom_score_adj: int
    memory_bytes: int
    points_bytes: int | None  # None: never picked
    rule: str | None = None
    as_wanted: bool = True  # False: its rule sets another value
    command: str = ""
    user: str = ""


class RuleTotal(NamedTuple):
    """One rule, with what it matches."""

    name: str
    oom_score_adj: int
    protects: bool
    processes: int = 0
    memory_bytes: int = 0
    not_set: int = 0  # of the processes, those with another value than the rule's
    exposed: Mapping[str, int] | None = None  # by killer, whom it can still take; None: not known


class Kill(NamedTuple):
    """One incident."""

    time_unix_seconds: float
    killer: str
    pid: int | None
    name: str
    memory_bytes: int | None
    rule: str | None
    diagnosis: str


class Kills(NamedTuple):
    newest_first: tuple[Kill, ...]
    unknown: str = ""  # why there may be more


class Facts(NamedTuple):
    unix_seconds: float
    host: str
    memory: Memory
    pressure: Pressure | None  # None: the kernel does not measure it
    level: Level
    daemon: str  # in words: whether it runs
    daemon_runs: bool | None  # None: not known
    rows: tuple[Row, ...]  # in order of death, then who is never picked
    rules: tuple[RuleTotal, ...]
    kills: Kills
    notes: tuple[str, ...]  # what overrules the order, and what could not be read
