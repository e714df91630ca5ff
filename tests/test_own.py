"""What the daemon takes itself, as its metrics tell it."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from oomwatchd.kernel.own import STEP_SECONDS, Own


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_it_is_told_what_the_kernel_tells_of_this_process() -> None:
    own = Own()
    told = own.cost(0.0)
    own.close()
    memory = psutil.Process().memory_info()

    assert told.resident_bytes == pytest.approx(memory.rss, rel=0.05)
    assert told.cpu_seconds == pytest.approx(sum(os.times()[:4]), abs=0.5)


def test_what_is_taken_shows_and_that_of_children_when_they_have_ended() -> None:
    own = Own()
    before = own.cost(0.0)
    burn(0.1)
    child = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", child], check=True)
    after = own.cost(STEP_SECONDS)
    own.close()

    assert after.cpu_seconds - before.cpu_seconds >= 0.35


def test_turns_that_follow_each_other_cost_nothing_more() -> None:
    own = Own()
    before = own.cost(100.0)
    burn(0.1)

    assert own.cost(100.0 + STEP_SECONDS / 2) == before
    assert own.cost(100.0 + STEP_SECONDS) != before
    own.close()
