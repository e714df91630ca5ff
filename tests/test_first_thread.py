"""A process whose first thread has ended looks like a zombie; it lives, and has its memory."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeproc import Fake, FakeProc
from live import adj, herd, needs_root, rule, service, until
from world import World, named

DB = named("postgres", 500)
POSTGRES = Fake(7, comm=b"postgres")
HEADLESS = Fake(7, comm=b"postgres", state=b"Z", exiting=True, threads=2)
# 60 is exit(2) on x86, which ends one thread, where exit_group(2) would end all; 93 elsewhere.
GOES_ON = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
input()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""


@pytest.fixture
def world(fake: FakeProc, tmp_path: Path) -> Iterator[World]:
    world = World(fake, tmp_path / "ledger.json")
    world.configure(DB)
    fake.add(POSTGRES, oom_score_adj=3)
    world.scan()
    yield world
    world.end()


def test_it_keeps_its_value_under_its_rule_and_is_remembered(world: World) -> None:
    world.fake.change(HEADLESS)
    world.scans(60)
    world.configure(DB)
    world.scan()

    assert world.values() == [500]
    assert [claim.before for claim in world.remembered().values()] == [3]


@pytest.mark.parametrize("restarted", [False, True])
def test_it_gets_its_own_value_back_when_its_rule_is_gone(world: World, *, restarted: bool) -> None:
    world.fake.change(HEADLESS)
    world.scan()
    if restarted:
        world.end()
        world.start()
        world.configure(DB)
        world.scan()
    world.configure(named("nginx", 300))
    world.scan()

    assert world.values() == [3]
    assert list(world.holds) == []


def test_a_zombie_is_forgotten(world: World) -> None:
    world.fake.change(Fake(7, comm=b"postgres", state=b"Z", exiting=True))
    world.scan(60.0)

    assert world.remembered() == {}


@needs_root
def test_a_real_one_keeps_its_value_and_gives_it_back() -> None:
    with herd() as animals, service() as daemon:
        script = animals.script("live-headless.py", GOES_ON)
        daemon.configure(rule("mine", {"script": "live-headless.py"}, 500), interval="200ms")
        daemon.start()
        process = animals.ready(sys.executable, script, value=57)
        until(lambda: adj(process.pid) == 500, "its value")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        until(lambda: ") Z " in Path(f"/proc/{process.pid}/stat").read_text(), "its thread's end")
        daemon.turns(3)

        assert adj(process.pid) == 500
        assert process.pid in daemon.claims()

        daemon.configure(rule("other", {"script": "live-other.py"}, 500))
        daemon.reload()

        assert adj(process.pid) == 57
