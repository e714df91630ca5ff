"""A configuration read afresh: all of it or nothing, and what no rule holds any more goes back."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Final

import psutil
import pytest
from live import (
    LOAD_SUCCESSFUL,
    LOADED_AT,
    Herd,
    Service,
    adj,
    comm,
    free_port,
    herd,
    needs_root,
    rule,
    service,
    until,
)

pytestmark = needs_root

FIRST, SECOND, BEFORE = 311, 322, 57
SECONDS: Final = 3.0  # for the next looks of an interval of a fifth of a second

WAITING = "echo ready\nread -r line\n"
# On each line of input it has a child that runs another program.
FORKING = """
echo ready
while read -r line; do
    sleep 600 &
    echo $!
done
"""
STORM = """
echo ready
read -r line
for _ in $(seq 400); do
    sleep 600 &
done
read -r line
"""


@pytest.fixture
def animals() -> Iterator[Herd]:
    with herd() as processes:
        processes.script("live-first.sh", WAITING)
        processes.script("live-second.sh", WAITING)
        processes.script("live-forking.sh", FORKING)
        yield processes


@pytest.fixture
def daemon() -> Iterator[Service]:
    with service() as one:
        yield one


FIRST_RULE = rule("first", {"script": "live-first.sh"}, FIRST)
SECOND_RULE = rule("second", {"script": "live-second.sh"}, SECOND)


def shell(animals: Herd, script: str, value: int = BEFORE) -> subprocess.Popen[bytes]:
    return animals.ready("/bin/sh", f"./{script}", value=value)


def forked(parent: subprocess.Popen[bytes]) -> int:
    """The pid of a new child that runs another program."""
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(b"\n")
    parent.stdin.flush()
    child = int(parent.stdout.readline())
    until(lambda: comm(child) == b"sleep", "the child's program")
    return child


# -- what is in force ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rules: [", ":1:"),
        ("rules: [{name: first, match: {script: live-first.sh}}]", "oom_score_adj"),
        ("intervall: 5s\n", "interval"),
    ],
    ids=["no-yaml", "missing-key", "unknown-key"],
)
def test_a_broken_file_leaves_the_rules_in_force(
    animals: Herd, daemon: Service, text: str, fault: str
) -> None:
    daemon.configure(FIRST_RULE, interval="200ms")
    child = shell(animals, "live-first.sh")
    daemon.start()
    loaded_at = daemon.metric(LOADED_AT)

    assert daemon.metric(LOAD_SUCCESSFUL) == 1

    daemon.config.write_text(text, encoding="utf-8")
    daemon.reload()
    later = shell(animals, "live-first.sh")
    until(lambda: adj(later.pid) == FIRST, "a new process to be set", SECONDS)

    assert adj(child.pid) == FIRST
    assert daemon.metric(LOAD_SUCCESSFUL) == 0
    assert daemon.metric(LOADED_AT) == loaded_at
    told = [line for line in daemon.log().splitlines() if line.startswith("<3>")]
    assert told[0].startswith(f"<3>{daemon.config}:")
    assert fault in told[0]
    assert told[-1].startswith("<3>reload failed, the rules in force stay in force")

    daemon.configure(FIRST_RULE, interval="200ms")
    daemon.reload()

    assert daemon.metric(LOAD_SUCCESSFUL) == 1
    assert daemon.metric(LOADED_AT) > loaded_at


def test_a_file_that_others_may_write_or_that_is_gone_leaves_the_rules_in_force(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(FIRST_RULE)
    child = shell(animals, "live-first.sh")
    daemon.start()

    daemon.configure(SECOND_RULE)
    daemon.config.chmod(0o666)
    daemon.reload()

    assert adj(child.pid) == FIRST
    assert daemon.metric(LOAD_SUCCESSFUL) == 0

    daemon.config.unlink()
    daemon.reload()

    assert adj(child.pid) == FIRST
    assert daemon.metric("oomwatchd_rule_processes", rule="first") == 1


def test_a_rule_that_changes_changes_its_processes(animals: Herd, daemon: Service) -> None:
    daemon.configure(FIRST_RULE, SECOND_RULE)
    first, second = shell(animals, "live-first.sh"), shell(animals, "live-second.sh")
    daemon.start()

    daemon.configure({**FIRST_RULE, "oom_score_adj": 333}, SECOND_RULE)
    daemon.reload()

    until(lambda: adj(first.pid) == 333, "the new value", SECONDS)
    assert adj(second.pid) == SECOND
    assert daemon.claims()[first.pid]["oom_score_adj_before"] == BEFORE


# -- what goes back --------------------------------------------------------------------------------


def test_a_rule_that_is_dropped_leaves_every_process_with_what_it_had(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(FIRST_RULE, SECOND_RULE)
    dropped = [shell(animals, "live-first.sh", value=value) for value in (BEFORE, 0, 1000, FIRST)]
    kept = shell(animals, "live-second.sh")
    changed = shell(animals, "live-first.sh")
    daemon.start()

    assert [adj(child.pid) for child in dropped] == [FIRST] * 4

    with open(f"/proc/{changed.pid}/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"777")  # no longer ours: its owner has decided otherwise
    daemon.configure(SECOND_RULE)
    daemon.reload()
    until(lambda: adj(dropped[0].pid) == BEFORE, "the old value", SECONDS)

    assert [adj(child.pid) for child in dropped] == [BEFORE, 0, 1000, FIRST]
    assert adj(kept.pid) == SECOND
    assert adj(changed.pid) == 777


def test_heirs_of_a_dropped_rule_get_back_what_their_ancestor_had(
    animals: Herd, daemon: Service
) -> None:
    inherit = rule("family", {"script": "live-forking.sh"}, FIRST, descendants="inherit")
    daemon.configure(inherit, interval="200ms")
    parent = shell(animals, "live-forking.sh")
    daemon.start()
    heirs = [forked(parent) for _ in range(3)]
    until(lambda: heirs[-1] in daemon.claims(), "the heirs to be known", SECONDS)

    assert [adj(pid) for pid in heirs] == [FIRST] * 3

    last = forked(parent)  # which nobody has looked at yet
    daemon.configure(SECOND_RULE, interval="200ms")
    daemon.reload()

    everybody = [parent.pid, *heirs, last]
    until(lambda: [adj(pid) for pid in everybody] == [BEFORE] * 5, "the old values", SECONDS)


def test_a_stop_gives_everybody_back_what_they_had_also_the_children_of_the_last_moment(
    animals: Herd, daemon: Service
) -> None:
    family = rule("family", {"script": "live-forking.sh"}, SECOND)
    daemon.configure(FIRST_RULE, family, interval="1h", on_stop="restore")
    child, parent = shell(animals, "live-first.sh"), shell(animals, "live-forking.sh")
    daemon.start()
    unseen = forked(parent)

    assert [adj(child.pid), adj(parent.pid), adj(unseen)] == [FIRST, SECOND, SECOND]

    assert daemon.stop() == 0

    assert [adj(child.pid), adj(parent.pid), adj(unseen)] == [BEFORE] * 3


def test_a_stop_gives_the_old_value_to_what_is_forked_meanwhile(
    animals: Herd, daemon: Service
) -> None:
    animals.script("live-storm.sh", STORM)
    daemon.configure(rule("storm", {"script": "live-storm.sh"}, FIRST), on_stop="restore")
    parent = shell(animals, "live-storm.sh")
    daemon.start()
    assert parent.stdin is not None
    parent.stdin.write(b"\n")
    parent.stdin.flush()
    family = psutil.Process(parent.pid)
    until(lambda: len(family.children()) >= 50, "the first children")

    assert daemon.stop() == 0
    until(lambda: len(family.children()) == 400, "the last child")

    late = [child for child in family.children() if adj(child.pid) != BEFORE]
    assert adj(parent.pid) == BEFORE
    assert len(late) <= 1  # the kernel was about to fork it all the while, as it had no processor


def test_a_stop_keeps_values_unless_told_otherwise_and_the_next_daemon_knows_the_old_ones(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(FIRST_RULE)
    child = shell(animals, "live-first.sh")
    daemon.start()
    assert daemon.stop() == 0

    assert adj(child.pid) == FIRST

    daemon.configure(SECOND_RULE)
    daemon.start()

    assert adj(child.pid) == BEFORE


# -- settings --------------------------------------------------------------------------------------


def test_a_shorter_interval_holds_at_once_however_often_it_is_read(
    animals: Herd, daemon: Service
) -> None:
    daemon.configure(FIRST_RULE, interval="1h")
    daemon.start()
    daemon.configure(FIRST_RULE, interval="200ms")
    for _ in range(5):
        daemon.reload()

    child = shell(animals, "live-first.sh")

    until(lambda: adj(child.pid) == FIRST, "the next look", SECONDS)


def test_the_metrics_move_to_another_address(daemon: Service) -> None:
    daemon.configure(FIRST_RULE)
    daemon.start()
    old, daemon.port = daemon.port, free_port()
    daemon.configure(FIRST_RULE)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)

    until(lambda: daemon.answers("/healthz"), "an answer at the new address")
    assert daemon.metric(LOAD_SUCCESSFUL) == 1

    daemon.port = old

    assert not daemon.answers("/healthz")


def test_a_new_address_in_use_fails_the_reload_as_a_whole(animals: Herd, daemon: Service) -> None:
    daemon.configure(FIRST_RULE)
    first, second = shell(animals, "live-first.sh"), shell(animals, "live-second.sh")
    daemon.start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        daemon.configure(SECOND_RULE, metrics={"listen": taken})
        daemon.reload()

    assert adj(first.pid) == FIRST
    assert adj(second.pid) == BEFORE
    assert daemon.metric(LOAD_SUCCESSFUL) == 0
    assert f"cannot listen on {taken}: Address already in use" in daemon.log()


# -- directories that do not answer ----------------------------------------------------------------

# As NSS is when the server that it asks is down: whoever looks a name up waits.
HANGING = """
import os, pwd, socket, time
def hanging(ask):
    def answer(*question, **how):
        while os.path.exists({flag!r}):
            time.sleep(0.01)
        return ask(*question, **how)
    return answer
pwd.getpwnam = hanging(pwd.getpwnam)
socket.getaddrinfo = hanging(socket.getaddrinfo)
"""


def test_a_directory_that_hangs_keeps_a_reload_waiting_and_nobody_else(
    animals: Herd, daemon: Service
) -> None:
    flag = animals.directory / "hangs"
    animals.script("sitecustomize.py", HANGING.format(flag=str(flag)))
    daemon.configure(FIRST_RULE, interval="200ms")
    daemon.start(PYTHONPATH=str(animals.directory), WATCHDOG_USEC="1500000")
    flag.touch()
    theirs = rule("second", {"script": "live-second.sh", "user": "root"}, SECOND)
    daemon.configure(theirs, interval="200ms")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.turns(10)
    first, second = shell(animals, "live-first.sh"), shell(animals, "live-second.sh")
    until(lambda: adj(first.pid) == FIRST, "a new process to be set", SECONDS)

    assert daemon.answers("/healthz")
    assert adj(second.pid) == BEFORE
    assert "reload" not in daemon.log()

    flag.unlink()
    until(lambda: adj(second.pid) == SECOND, "the new rules")
    assert adj(first.pid) == BEFORE
    assert daemon.metric(LOAD_SUCCESSFUL) == 1


def test_a_stop_does_not_wait_for_a_directory_that_hangs(animals: Herd, daemon: Service) -> None:
    flag = animals.directory / "hangs"
    animals.script("sitecustomize.py", HANGING.format(flag=str(flag)))
    theirs = rule("second", {"script": "live-second.sh", "user": "root"}, SECOND)
    daemon.configure(theirs, interval="200ms")
    daemon.start(PYTHONPATH=str(animals.directory))
    flag.touch()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.turns(2)

    assert daemon.stop() == 0
