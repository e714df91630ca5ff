"""Live through a longer day, and draw the dashboard from it: `script/draw-dashboard`."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from day import ANNOTATION, DASHBOARD, Day, lived_through, shortage
from live import REPOSITORY, Herd, Service, rule
from test_live_incidents import HOG, grow
from test_prometheus import Prometheus

from board.picture import Ask, Picture, picture

DRAWING: Final = REPOSITORY / "docs/dashboard.svg"
ROWS: Final = ("Now", "Kills", "Memory pressure", "Rules")
NOTE: Final = (
    "Drawn by script/draw-dashboard, not by Grafana, from the dashboard's own queries, after four"
    " minutes of a daemon in a container."
)
RULES: Final = (
    rule("training", {"script": ["live-train.py", "live-epoch.py"]}, -900),
    rule("database", {"script": "live-database.py"}, -500),
    rule("batch", {"script": ["live-batch.py", "live-job.py"]}, 300),
    rule("browser", {"script": "live-tab.py"}, 500),
)
# Holds so many MiB, and up to so many more, which come and go in so many seconds.
BREATHES = """
import math, sys, time
held, more, period = map(float, sys.argv[1:])
print("ready", flush=True)
base, began = b"x" * (int(held) << 20), time.monotonic()
while True:
    share = (1 - math.cos((time.monotonic() - began) * 2 * math.pi / period)) / 2
    breath = b"x" * int(more * share * (1 << 20))
    time.sleep(0.5)
"""
# Name, how many, MiB, MiB that come and go, seconds.
HERDS: Final = (
    ("live-train.py", 2, 180, 60, 200.0),
    ("live-database.py", 3, 90, 4, 40.0),
    ("live-batch.py", 4, 20, 60, 70.0),
    ("live-tab.py", 8, 8, 12, 25.0),
)
KILL_AFTER_SECONDS: Final = (("live-job.py", 100.0), ("live-epoch.py", 170.0))
DAY_SECONDS: Final = 240.0


def long_day(daemon: Service, animals: Herd, cgroup: Path, prometheus: Prometheus) -> None:
    began = time.monotonic()
    for name, count, *sizes in HERDS:
        script = animals.script(name, BREATHES)
        for _ in range(count):
            animals.ready(sys.executable, script, *map(str, sizes))
    for name, seconds in KILL_AFTER_SECONDS:
        victim = animals.ready(sys.executable, animals.script(name, HOG), cgroup)
        wait_until(began + seconds)
        shortage(animals, cgroup)
        wait_until(began + seconds + 8.0)
        grow(victim)
        daemon.logged(f"(pid {victim.pid}) was killed")
    wait_until(began + DAY_SECONDS)
    assert prometheus.query("up{job='oomwatchd'}") == 1


def wait_until(seconds: float) -> None:
    time.sleep(max(0.0, seconds - time.monotonic()))


def chosen_panels() -> list[dict[str, Any]]:
    """Those of the first rows, moved together."""
    found, row, moved, skipped = [], "", 0, 0
    for panel in DASHBOARD["panels"]:
        place = dict(panel["gridPos"])
        if panel["type"] == "row":
            if row and row not in ROWS:
                skipped += place["y"] - moved
            row, moved = panel["title"], place["y"]
        if row in ROWS:
            found.append({**panel, "gridPos": {**place, "y": place["y"] - skipped}})
    return found


def asked_of(day: Day) -> Ask:
    return lambda expression, instant: day.ask(expression, instant=instant)


def kills(day: Day) -> list[float]:
    """When each was first seen."""
    found = day.ask(ANNOTATION["expr"], instant=False)
    ours = [one for one in found if one["metric"]["rule"] != "none"]
    return [float(one["values"][0][0]) for one in ours]


def drawing(day: Day) -> str:
    made_by = Picture(asked_of(day), day.began, day.ended, kills(day))
    return picture(chosen_panels(), made_by, NOTE)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        lived_through(Path(directory), RULES, long_day) as day,
    ):
        DRAWING.write_text(drawing(day), encoding="utf-8")


if __name__ == "__main__":
    main()
