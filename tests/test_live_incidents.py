"""Real kills by the kernel of this machine, in a cgroup of our own, and what is told of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from live import REPOSITORY, Herd, Service, herd, needs_root, rule, service, until

pytestmark = needs_root

LIMIT_BYTES = 48 << 20
VALUE = 250
ROOTS = (  # cgroup v1, and v2; where processes of a cgroup stand, and its limit
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
# Puts itself into the cgroup named, says that it is ready, and takes more and more on a line.
HOG = """
import sys, time
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write("0")
print("ready", flush=True)
sys.stdin.readline()
held = []
while True:
    held.append(b"x" * (4 << 20))
    time.sleep(0.05)
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """With a limit, and nobody in it."""
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("the kernel's log cannot be read here")
    root, limit = next((one for one in ROOTS if (one[0] / "cgroup.procs").exists()), ROOTS[0])
    path = root / f"live-{os.getpid()}"
    try:
        path.mkdir()
        (path / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        with suppress(OSError):
            path.rmdir()
        pytest.skip(f"no cgroup with a limit can be made here: {error}")
    yield path
    until(lambda: not (path / "cgroup.procs").read_text(), "the cgroup is empty")
    path.rmdir()


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        processes.script("live-hog.py", HOG)
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


def hog(animals: Herd, cgroup: Path) -> subprocess.Popen[bytes]:
    script = animals.directory / "live-hog.py"
    return animals.ready(sys.executable, script, cgroup)


def grow(child: subprocess.Popen[bytes]) -> int:
    """It takes what there is, and is killed."""
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    return child.wait()


def asked(daemon: Service, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "oomwatchd", *arguments, "--json"],
        cwd=REPOSITORY, env=daemon.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def of_pids(daemon: Service, *pids: int) -> list[dict[str, Any]]:
    """The incidents of these; other kills of this boot are found, too."""
    _, rows = asked(daemon, "incidents")
    return [row for row in rows if row["victim"]["pid"] in pids]


def test_a_kill_by_the_kernel_is_explained_and_told_to_the_hook(
    daemon: Service, animals: Herd, cgroup: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    daemon.configure(
        rule("hogs", {"script": "live-hog.py"}, VALUE),
        on_incident=["/bin/sh", "-c", 'cat >> "$1"', "sh", str(told)],
    )
    daemon.start()
    child = hog(animals, cgroup)
    daemon.logged(f"process {child.pid} ")
    daemon.turns(3)  # until it has been sampled
    ended = grow(child)
    status, incident = asked(daemon, "why", "--pid", str(child.pid))

    assert (ended, status) == (-9, 0)
    assert incident["killer"] == "cgroup"
    assert incident["limit_bytes"] == LIMIT_BYTES
    assert incident["scope"].endswith(cgroup.name)
    victim = incident["victim"]
    assert (victim["pid"], victim["rule"], victim["oom_score_adj"]) == (child.pid, "hogs", VALUE)
    assert "live-hog.py" in victim["cmdline"]
    assert incident["sources"] == ["kernel_log", "counters"]
    assert len([one for one in incident["history"] if one["victim_bytes"]]) >= 1
    assert len(of_pids(daemon, child.pid)) == 1
    until(lambda: daemon.metric("oomwatchd_oom_kills_total", rule="hogs", killer="cgroup"), "count")
    until(lambda: told.exists() and incident["id"] in told.read_text(), "the hook")


def test_a_sigkill_by_hand_is_not_for_want_of_memory(
    daemon: Service, animals: Herd, cgroup: Path
) -> None:
    """Without events it is not known how a process has ended."""
    child = killed_by_hand(daemon, animals, cgroup, events="off")

    assert asked(daemon, "why", "--pid", str(child.pid)) == (1, None)


def test_a_sigkill_by_hand_has_an_unknown_sender(
    daemon: Service, animals: Herd, cgroup: Path
) -> None:
    child = killed_by_hand(daemon, animals, cgroup, events="auto")
    until(lambda: "unknown" in [row["killer"] for row in of_pids(daemon, child.pid)], "an incident")
    status, incident = asked(daemon, "why", "--pid", str(child.pid))

    assert (status, incident["killer"], incident["sources"]) == (1, "unknown", [])
    assert incident["victim"]["rule"] == "hogs"


def killed_by_hand(
    daemon: Service, animals: Herd, cgroup: Path, events: str
) -> subprocess.Popen[bytes]:
    daemon.configure(rule("hogs", {"script": "live-hog.py"}, VALUE), events=events)
    daemon.start()
    child = hog(animals, cgroup)
    daemon.logged(f"process {child.pid} ")
    child.kill()
    child.wait()
    return child


def test_a_kill_while_the_daemon_was_down_is_found_once(
    daemon: Service, animals: Herd, cgroup: Path
) -> None:
    daemon.configure(rule("hogs", {"script": "live-hog.py"}, VALUE))
    child = hog(animals, cgroup)
    assert grow(child) == -9
    found = []
    for _ in range(2):
        daemon.start()
        status, incident = asked(daemon, "why", "--pid", str(child.pid))
        found.append((status, incident["id"], incident["while_down"]))
        daemon.stop()

    assert found == [(0, found[0][1], True)] * 2
    assert len(of_pids(daemon, child.pid)) == 1
    assert daemon.log().count(f"(pid {child.pid}) was killed") == 1
