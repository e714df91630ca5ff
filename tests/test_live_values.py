"""Five rules over two hundred real processes: each has its value, and nothing else is touched."""

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from live import (
    POLL_SECONDS,
    Herd,
    Rule,
    Service,
    adj,
    comm,
    herd,
    id_of,
    needs_root,
    own_value,
    rule,
    service,
    until,
    values,
)

from oomwatchd.model import ProcessId

pytestmark = needs_root

INTERVAL_SECONDS: Final = 1.0
# What a busy machine of two processors may add: the scan itself, the scheduling of the daemon, and
# of this test, which looks from outside.
SLACK_SECONDS: Final = 1.5
EACH_HALF_SECONDS: Final = 30.0  # to start a hundred processes

TRAINING, MODULE, JOB, RENAMED, MARKED = 311, 322, 333, 344, 355
RULES_VALUES: Final = {TRAINING, MODULE, JOB, RENAMED, MARKED}
NONE = None  # no rule matches

RULES: Final[list[Rule]] = [
    rule("training", {"script": "live-train*.py"}, TRAINING),
    rule("module", {"script": ["live-package.serve", "live-package"]}, MODULE),
    rule("job", {"script": ["live-job.sh", "*/live-jobs/*.pl"], "user": 0}, JOB),
    rule("renamed", {"name": ["live-renamed", "live ) *", "live\\xff", "live\n???line"]}, RENAMED),
    rule("marked", {"cmdline": r"--live-mark=\d+\b"}, MARKED),
]

# Each says that it is what it is meant to be, and waits for its input to end.
PYTHON = "import os, sys\nos.write(1, b'%d\\n' % os.getpid())\nsys.stdin.read()\n"
RENAMING = (
    "import os, sys\n"
    "open('/proc/self/comm', 'wb').write(bytes.fromhex(sys.argv[1]))\n"
    "os.write(1, b'%d\\n' % os.getpid())\n"
    "sys.stdin.read()\n"
)
SHELL = "echo $$\nread -r line\n"
PERL = '$| = 1; print "$$\\n"; <STDIN>;\n'
NODE = "console.log(process.pid); process.stdin.resume();\n"


class Kind(NamedTuple):
    """Some processes of one kind, and the value that rules give them."""

    value: int | None
    number: int
    command: Sequence[str]


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


def renamed(name: bytes) -> list[str]:
    return [sys.executable, "-SI", "live-rename.py", name.hex()]


def write_programs(animals: Herd) -> None:
    scripts = {
        "live-train.py": PYTHON,
        "live-train-direct.py": f"#!{sys.executable} -SI\n{PYTHON}",
        "live-train-env.py": f"#!/usr/bin/env python3\n{PYTHON}",
        "live-train-split.py": f"#!/usr/bin/env -S python3 -S -W ignore\n{PYTHON}",
        "live-package/serve.py": PYTHON,
        "live-package/__init__.py": "",
        "live-package/__main__.py": PYTHON,
        "live-job.sh": SHELL,
        "live-jobs/nightly.pl": PERL,
        "live-rename.py": RENAMING,
        "live-app.js": NODE,
        "live-app.pl": PERL,
        "live-other.py": PYTHON,
        "live-train.pyx": PYTHON,
    }
    for name, text in scripts.items():
        animals.script(name, text)


def kinds() -> list[Kind]:
    """A hundred processes."""
    python, big = sys.executable, "x" * ((1 << 17) - 32)  # of one argument, the kernel's limit
    app = ["node", "live-app.js"] if shutil.which("node") else ["perl", "live-app.pl"]
    matching = [
        Kind(TRAINING, 8, [python, "-SI", "live-train.py", "--epochs", "9"]),
        Kind(TRAINING, 6, [python, "-u", "-X", "dev", "-W", "ignore", "-S", "./live-train.py"]),
        Kind(TRAINING, 6, ["./live-train-direct.py", "--script=live-job.sh"]),
        Kind(TRAINING, 5, ["./live-train-env.py"]),
        Kind(TRAINING, 5, ["./live-train-split.py"]),
        Kind(TRAINING, 4, ["env", "-u", "HOME", "LIVE=1", "python3", "-S", "live-train.py"]),
        Kind(TRAINING, 2, ["nice", "-n", "5", "env", "-S", f"{python} -SI live-train.py"]),
        Kind(MODULE, 7, [python, "-S", "-m", "live-package.serve", "--port", "0"]),
        Kind(MODULE, 3, [python, "-S", "-mlive-package"]),
        Kind(JOB, 8, ["sh", "live-job.sh"]),
        Kind(JOB, 6, ["bash", "-e", "live-job.sh", "live-train.py"]),
        Kind(JOB, 6, ["perl", "-w", "live-jobs/nightly.pl"]),
        Kind(RENAMED, 2, renamed(b"live-renamed")),
        Kind(RENAMED, 2, renamed(b"live ) R 1 1 (")),
        Kind(RENAMED, 2, renamed(b"live\xff")),
        Kind(RENAMED, 2, renamed(b"live\nnewline")),
        Kind(MARKED, 2, [*app, "--live-mark=1"]),
        Kind(MARKED, 4, ["bash", "-c", SHELL, "bash", "--live-mark=2"]),
        Kind(MARKED, 1, [python, "-SI", "live-other.py", "--live-mark=3", *[big] * 8]),
    ]
    others = [
        Kind(NONE, 3, [python, "-SI", "live-other.py", "live-train.py"]),
        Kind(NONE, 2, [python, "-SI", "live-train.pyx"]),
        Kind(NONE, 2, [python, "-SI", "-c", PYTHON, "live-train.py"]),
        Kind(NONE, 5, ["bash", "-c", SHELL, "live-job.sh"]),
        Kind(NONE, 2, ["perl", "-e", PERL, "live-train.py", "live-jobs/nightly.pl"]),
        Kind(NONE, 1, [python, "-SI", "live-other.py", "--live-mark=", *[big] * 8]),
        Kind(NONE, 2, renamed(b"live-renamed2")),
        Kind(NONE, 2, renamed(b"(live-renamed)")),
    ]
    return matching + others


class Arrival(NamedTuple):
    pid: int
    value: int | None  # what a rule gives it
    seconds: float  # when it said that it was ready


def arrivals(animals: Herd, look: Callable[[], None] = lambda: None) -> list[Arrival]:
    """Start a hundred processes; *look* is called all the while."""
    poll, waiting = select.poll(), {}
    for kind in kinds():
        for _ in range(kind.number):
            child = animals.start(*kind.command)
            assert child.stdout is not None
            poll.register(child.stdout, select.POLLIN)
            waiting[child.stdout.fileno()] = (child, kind)
            look()
    arrived = []
    deadline = time.monotonic() + EACH_HALF_SECONDS
    while waiting:
        assert time.monotonic() < deadline, [kind.command[:4] for _, kind in waiting.values()]
        for fd, _ in poll.poll(10):
            child, kind = waiting.pop(fd)
            poll.unregister(fd)
            assert os.read(fd, 64) == b"%d\n" % child.pid, kind.command[:4]
            arrived.append(Arrival(child.pid, kind.value, time.monotonic()))
        look()
    return arrived


def wrong(processes: Sequence[Arrival]) -> list[tuple[Arrival, bytes, int | None]]:
    return [
        (one, comm(one.pid), adj(one.pid))
        for one in processes
        if adj(one.pid) != (own_value() if one.value is None else one.value)
    ]


def outsiders_touched(before: dict[ProcessId, int], herd: list[Arrival]) -> dict[ProcessId, int]:
    """Processes that are not ours and have a value of the rules now, which they had not before.

    Other changes are not held against the daemon: this machine has others who make some.
    """
    ours = {id_of(one.pid) for one in herd}
    return {
        id: value
        for id, value in values().items()
        if id not in ours and value in RULES_VALUES and before.get(id) != value
    }


class Lookout:
    """Notes when each process was given its value, as seen from outside."""

    def __init__(self, animals: Herd, seen: int) -> None:
        self.animals = animals
        self.seen = seen
        self.seconds: dict[int, float] = {}

    def look(self) -> None:
        for child in self.animals.all[self.seen :]:
            if child.pid not in self.seconds and adj(child.pid) != own_value():
                self.seconds[child.pid] = time.monotonic()


def test_two_hundred_processes_have_their_values_and_nothing_else_is_touched(
    animals: Herd, daemon: Service
) -> None:
    write_programs(animals)
    early = arrivals(animals)
    before = values()
    daemon.configure(*RULES, interval=f"{INTERVAL_SECONDS:g}s")

    daemon.start()  # returns after the first turn

    assert wrong(early) == []

    lookout = Lookout(animals, len(early))
    late = arrivals(animals, lookout.look)
    matching = [one for one in late if one.value is not None]
    deadline = max(one.seconds for one in late) + INTERVAL_SECONDS + SLACK_SECONDS
    while len(lookout.seconds) < len(matching) and time.monotonic() < deadline:
        lookout.look()
        time.sleep(POLL_SECONDS)

    assert wrong(late) == []
    delays = [lookout.seconds[one.pid] - one.seconds for one in matching]
    assert max(delays) < INTERVAL_SECONDS + SLACK_SECONDS
    assert len(early + late) == 200

    daemon.turns(1)

    assert wrong(early + late) == []
    assert outsiders_touched(before, early + late) == {}
    applied = daemon.metric("oomwatchd_adjustments_total", outcome="applied")
    assert applied == 2 * len(matching)


# -- families --------------------------------------------------------------------------------------

WORKERS, BEFORE = 222, 57
FAMILY_TURNS = 2

# On a line of input it has a child that runs another program, and a worker that has one as well.
PARENT = """
import os, sys
def child(label, then):
    pid = os.fork()
    if not pid:
        os.write(1, b"%s %d\\n" % (label, os.getpid()))
        then()
def other():
    os.execvp("cat", ["cat"])
def work():
    child(b"grandchild", other)
    os.read(0, 1)
    os._exit(0)
os.write(1, b"ready\\n")
os.read(0, 4096)
child(b"worker", work)
child(b"child", other)
os.read(0, 1)
"""


def family(animals: Herd, daemon: Service) -> dict[str, int]:
    """A process under a rule, and what it forks after its value has been set, by label."""
    animals.script("live-train.py", PARENT)
    parent = animals.ready(sys.executable, "-SI", "live-train.py", value=BEFORE)
    daemon.start()
    assert adj(parent.pid) == TRAINING
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(b"go\n")
    parent.stdin.flush()
    lines = [parent.stdout.readline().split() for _ in range(3)]
    pids = {label.decode(): int(pid) for label, pid in lines}
    until(lambda: comm(pids["child"]) == comm(pids["grandchild"]) == b"cat", "both to exec")
    return {"parent": parent.pid, **pids}


def test_children_that_match_no_rule_keep_the_value_and_workers_have_their_own(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(rule("training", {"script": "live-train.py"}, TRAINING, workers=WORKERS))

    pids = family(animals, daemon)
    until(lambda: adj(pids["worker"]) == WORKERS, "the worker's value", 3.0)
    daemon.turns(FAMILY_TURNS)

    assert {label: adj(pid) for label, pid in pids.items()} == {
        "parent": TRAINING,
        "worker": WORKERS,
        "child": TRAINING,
        "grandchild": TRAINING,
    }


def test_children_that_match_no_rule_get_back_what_their_ancestor_had(
    animals: Herd, daemon: Service
) -> None:
    training = {"script": "live-train.py"}
    daemon.configure(rule("training", training, TRAINING, workers=WORKERS, descendants="reset"))

    pids = family(animals, daemon)
    until(lambda: adj(pids["worker"]) == WORKERS, "the worker's value", 3.0)
    until(lambda: adj(pids["child"]) == adj(pids["grandchild"]) == BEFORE, "the reset", 3.0)
    daemon.turns(FAMILY_TURNS)

    assert {label: adj(pid) for label, pid in pids.items()} == {
        "parent": TRAINING,
        "worker": WORKERS,
        "child": BEFORE,
        "grandchild": BEFORE,
    }


ORPHAN = """
import os
os.write(1, b"ready\\n")
os.read(0, 4096)
reading, writing = os.pipe()
if not os.fork():
    os.close(writing)
    if not os.fork():
        os.dup2(reading, 0)
        os.write(1, b"%d\\n" % os.getpid())
        os.execvp("cat", ["cat"])
    os._exit(0)
os.wait()
os.read(0, 1)
"""


@pytest.mark.parametrize(("descendants", "expected"), [("reset", BEFORE), ("inherit", TRAINING)])
def test_a_child_whose_parent_has_ended_at_once_is_still_its_ancestor_s(
    animals: Herd, daemon: Service, descendants: str, expected: int
) -> None:
    """As of ``command &`` in a script: the shell in between is gone before anybody looks."""
    animals.script("live-train.py", ORPHAN)
    training = {"script": "live-train.py"}
    daemon.configure(rule("training", training, TRAINING, descendants=descendants))
    parent = animals.ready(sys.executable, "-SI", "live-train.py", value=BEFORE)
    daemon.start()
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(b"go\n")
    parent.stdin.flush()

    orphan = int(parent.stdout.readline())
    until(lambda: comm(orphan) == b"cat", "the orphan to exec")
    until(lambda: adj(orphan) == expected, "its value", 3.0)
    daemon.turns(FAMILY_TURNS)

    assert adj(orphan) == expected


# -- drift -----------------------------------------------------------------------------------------


def changed(pid: int, value: int) -> None:
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(value), encoding="ascii")


def test_a_value_that_somebody_changes_is_set_again_three_times_and_then_left(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-train.py", PYTHON)
    child = animals.ready(sys.executable, "-SI", "live-train.py")
    daemon.configure(rule("training", {"script": "live-train.py"}, TRAINING), interval="200ms")
    daemon.start()

    for value in (401, 402, 403):
        changed(child.pid, value)
        until(lambda: adj(child.pid) == TRAINING, "our value again", 3.0)
    changed(child.pid, 404)
    daemon.logged("left at that")
    daemon.turns(3)

    assert adj(child.pid) == 404
    assert daemon.metric("oomwatchd_adjustments_total", outcome="drifted") == 4
    assert daemon.log().count("set again") == 3


def test_a_rule_that_yields_leaves_a_changed_value_alone_even_after_a_reload(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-train.py", PYTHON)
    child = animals.ready(sys.executable, "-SI", "live-train.py")
    yielding = rule("training", {"script": "live-train.py"}, TRAINING, drift="yield")
    daemon.configure(yielding, interval="200ms")
    daemon.start()

    assert adj(child.pid) == TRAINING

    changed(child.pid, 404)
    daemon.logged("left at that")
    daemon.turns(3)

    assert adj(child.pid) == 404

    daemon.reload()
    daemon.turns(3)

    assert adj(child.pid) == 404
