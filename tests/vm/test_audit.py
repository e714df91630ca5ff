"""What the audit says beforehand is what happens when the killer is let loose."""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from .machine import Machine
from .service import GUEST, WORK, alive, oom_kills, start, stop, unit_property
from .verdicts import prepare_rules, verdict

pytestmark = pytest.mark.vm

READY: Final = f"{WORK}/cast.json"
GO: Final = f"{WORK}/go"
FILLED: Final = f"{WORK}/filled"
UNIT: Final = "cast"
DIES_SECONDS: Final = 90.0
EARLYOOM: Final = "earlyoom-30"  # not Debian's own service
KILLED: Final = re.compile(r"sending SIG\w+ to process (\d+) ")


class Cast(NamedTuple):
    main: int
    worker: int | None


class Row(NamedTuple):
    """A unit, what is in it, and what the audit has to say of the one in question."""

    killer: str
    verdict: str
    hold_mib: int = 40
    adj: int = -1000
    worker_mib: int | None = 40
    properties: tuple[str, ...] = ()
    group: bool = False  # memory.oom.group=1, set behind systemd's back
    worker_adj: int = 0


LIMIT: Final = "MemoryMax=150M"
CONTINUE: Final = "OOMPolicy=continue"
STOP: Final = "OOMPolicy=stop"
KILL: Final = "OOMPolicy=kill"
AT_A_LIMIT: Final = {
    "alone in its cgroup": Row(
        "cgroup", "exposed", adj=-900, worker_mib=None, properties=(LIMIT, CONTINUE)
    ),
    "beside a worker that grows": Row(
        "cgroup", "last_in_line", adj=-900, properties=(LIMIT, CONTINUE)
    ),
    "at -1000 beside a worker that grows": Row("cgroup", "safe", properties=(LIMIT, CONTINUE)),
    "first in line in its cgroup": Row(
        "cgroup", "exposed", hold_mib=60, adj=1000, worker_mib=20, properties=(LIMIT, CONTINUE)
    ),
    "in a unit that continues": Row("oom_policy", "safe", properties=(LIMIT, CONTINUE)),
    "in a unit that stops": Row("oom_policy", "exposed", properties=(LIMIT, STOP)),
    "in a unit that kills": Row("oom_policy", "exposed", properties=(LIMIT, KILL)),
    "at -1000 in a group of systemd's": Row("oom_group", "exposed", properties=(LIMIT, KILL)),
    "at -999 in a group": Row(
        "oom_group", "exposed", adj=-999, properties=(LIMIT, CONTINUE), group=True
    ),
    "at -1000 in a group of nobody's": Row(
        "oom_group", "safe", properties=(LIMIT, CONTINUE), group=True
    ),
}


@pytest.fixture(scope="module")
def stage(protected: Machine) -> Machine:
    """The daemon has no rules: what the processes have, the scenarios give them."""
    protected.put(f"{WORK}/cast.py", (GUEST / "cast.py").read_bytes(), 0o755)
    prepare_rules(protected)
    return protected


@pytest.fixture(autouse=True)
def _clean(stage: Machine) -> Iterator[None]:
    yield
    stop(stage, UNIT)
    stage.run("rm", "-f", READY, GO)


def command(row: Row, act: str) -> list[str]:
    worker = [] if row.worker_mib is None else ["--worker-mib", str(row.worker_mib)]
    return [
        *("/usr/bin/python3", f"{WORK}/cast.py", act, "--hold-mib", str(row.hold_mib)),
        *(*worker, "--ready", READY, "--go", GO),
    ]  # fmt: skip


def ready(machine: Machine) -> Cast:
    text = machine.wait("the cast is ready", lambda: machine.get(READY))
    return Cast(**json.loads(text))


def set_adj(machine: Machine, pid: int | None, value: int) -> None:
    if pid is not None:
        machine.sh(f"echo {value} >/proc/{pid}/oom_score_adj")


@pytest.mark.parametrize("row", AT_A_LIMIT.values(), ids=AT_A_LIMIT)
def test_at_a_limit_what_was_said_happens(stage: Machine, row: Row) -> None:
    start(stage, UNIT, *command(row, "--grow"), properties=row.properties)
    cast = ready(stage)
    set_adj(stage, cast.main, row.adj)
    set_adj(stage, cast.worker, row.worker_adj)
    if row.group:
        stage.sh(f"echo 1 >/sys/fs/cgroup/system.slice/{UNIT}.service/memory.oom.group")
    said = verdict(stage, cast.main, row.killer)
    kills = oom_kills(stage)
    stage.run("touch", GO)
    stage.wait("the kernel has killed", lambda: oom_kills(stage) > kills, DIES_SECONDS)

    assert said == row.verdict
    if row.verdict == "exposed":
        stage.wait("it dies", lambda: not alive(stage, cast.main), DIES_SECONDS)
    else:
        assert cast.worker is not None
        stage.wait("the worker dies", lambda: not alive(stage, cast.worker or 0), DIES_SECONDS)
        assert lives_on(stage, cast.main)


def lives_on(machine: Machine, pid: int) -> bool:
    """Also after systemd has had its say."""
    machine.run("systemctl", "daemon-reload")
    return alive(machine, pid)


# -- earlyoom, which takes the place of the kernel -------------------------------------------------


@pytest.fixture
def earlyoom(stage: Machine) -> Iterator[Machine]:
    """It acts below 30 % of available memory, which there is now."""
    start(stage, EARLYOOM, "/usr/bin/earlyoom", "-m", "30", "-r", "0")
    yield stage
    stop(stage, "fill", EARLYOOM)
    stage.run("rm", "-f", FILLED)


@pytest.mark.parametrize(
    ("row", "worker_first"),
    [
        (Row("earlyoom", "exposed", hold_mib=150, adj=0, worker_mib=30), False),
        (Row("earlyoom", "last_in_line", hold_mib=100, adj=-500, worker_mib=150), True),
    ],
    ids=["the largest", "behind a worker"],
)
def test_of_earlyoom_what_was_said_happens(
    earlyoom: Machine, row: Row, *, worker_first: bool
) -> None:
    start(earlyoom, UNIT, *command(row, "--press"), properties=(CONTINUE,))
    cast = ready(earlyoom)
    set_adj(earlyoom, cast.main, row.adj)
    set_adj(earlyoom, cast.worker, row.worker_adj)
    said = verdict(earlyoom, cast.main, row.killer)
    fill = ("/usr/bin/python3", f"{WORK}/fill.py", "--leave-mib", "150")
    start(earlyoom, "fill", *fill, "--ready", FILLED, "--go", f"{FILLED}.go")
    killed = earlyoom.wait("it kills one", lambda: killed_by_earlyoom(earlyoom), DIES_SECONDS)

    assert said == row.verdict
    assert killed == (cast.worker if worker_first else cast.main)


def killed_by_earlyoom(machine: Machine) -> int | None:
    """Whom it says that it has killed first; systemd may end others of the unit after that."""
    pid = unit_property(machine, EARLYOOM, "MainPID")
    said = machine.run("journalctl", f"_PID={pid}", "--no-pager", "-o", "cat", check=False)
    found = KILLED.search(said)
    return int(found[1]) if found else None
