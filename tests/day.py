"""A day in the life of a real daemon, which a real Prometheus scrapes; and what may be asked of it.

The day is short, and it is all there: rules match, values are set, refused and changed by others,
memory becomes short, and the kernel kills what was to be protected.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from live import REPOSITORY, Herd, Rule, Service, herd, rule, service, until
from test_live_incidents import HOG, LIMIT_BYTES, ROOTS, grow, hog
from test_prometheus import Prometheus, free_ports, program

DASHBOARD = json.loads((REPOSITORY / "packaging/grafana/oomwatchd.json").read_text())
VARIABLES = DASHBOARD["templating"]["list"]
[ANNOTATION] = DASHBOARD["annotations"]["list"]
RULES_FILE = REPOSITORY / "packaging/prometheus/oomwatchd.rules.yml"
HOOK_DONE = 'oomwatchd_hook_runs_total{hook="on_incident",outcome="done"}'
KILLED = 'oomwatchd_oom_kills_total{rule="training",killer="cgroup"}'
IDLE = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"
# Looks here and there into a file of which a part alone fits into the cgroup's memory.
THRASH = """
import mmap, random, sys, time
path, cgroup, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open(cgroup + "/cgroup.procs", "w") as file:
    file.write("0")
print("ready", flush=True)
until = time.monotonic() + seconds
with open(path, "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while time.monotonic() < until:
    pages[random.randrange(len(pages))]
"""
THRASH_SECONDS = 6.0
VALUE = 250


class Day(NamedTuple):
    prometheus: Prometheus
    daemon: Service
    began: float
    ended: float

    def expanded(self, text: str) -> str:
        """As Grafana would ask, with everything chosen."""
        # Long enough for a kill to be explained, as it is with any scrape interval that people use.
        values = {"$__rate_interval": "12s", "$__range": f"{self.ended - self.began:.0f}s"}
        values |= {f"${name}": self.chosen(name) for name in ("job", "instance", "rule")}
        for name, value in values.items():
            text = text.replace(name, value)
        assert "$" not in text
        return text

    def chosen(self, name: str) -> str:
        variable = next(one for one in VARIABLES if one["name"] == name)
        return variable.get("allValue") or "|".join(self.choices(variable["query"]))

    def choices(self, query: str) -> list[str]:
        """The answer to Grafana's label_values(), which it gets in the same way."""
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found is not None
        selector = found[1].replace("$job", ".+").replace("$instance", ".*")
        return list(
            self.prometheus.get(f"/api/v1/label/{found[2]}/values", **{"match[]": selector})
        )

    def ask(self, expression: str, *, instant: bool) -> list[dict[str, Any]]:
        expression = self.expanded(expression)
        if instant:
            moment = {"time": f"{self.ended:.3f}"}
            data = self.prometheus.get("/api/v1/query", query=expression, **moment)
        else:
            span = {"start": f"{self.began:.3f}", "end": f"{self.ended:.3f}", "step": "1"}
            data = self.prometheus.get("/api/v1/query_range", query=expression, **span)
        assert data is not None, f"an error: {expression}"
        return list(data["result"])


@contextlib.contextmanager
def limited_cgroup() -> Iterator[Path]:
    """With a limit, and nobody in it; of the version of cgroups that this machine has."""
    root, limit = next((one for one in ROOTS if (one[0] / "cgroup.procs").exists()), ROOTS[0])
    path = root / f"live-day-{os.getpid()}"
    try:
        path.mkdir()
        (path / limit).write_text(str(LIMIT_BYTES))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        pytest.skip(f"no cgroup with a limit can be made here: {error}")
    try:
        yield path
    finally:
        until(lambda: not (path / "cgroup.procs").read_text(), "the cgroup is empty")
        path.rmdir()


@contextlib.contextmanager
def scraping(daemon: Service, directory: Path) -> Iterator[Prometheus]:
    """With our alerts; another job is not ours, and its machine is down."""
    port, nobodys_port = free_ports(2)
    jobs = [("oomwatchd", daemon.port), ("node", nobodys_port)]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES_FILE)],
        "scrape_configs": [
            {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}
            for name, target_port in jobs
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    command = [
        program("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield Prometheus(port, nobodys_port, process)
        finally:
            process.kill()


RULES = (
    rule("training", {"script": "live-hog.py"}, -900),
    rule("expendable", {"script": "live-idle.py"}, VALUE),
    rule("nobody", {"script": "live-nobody.py"}, 500),
)


def configured(daemon: Service, rules: Sequence[Rule]) -> None:
    daemon.configure(
        *rules,
        events="auto",
        on_incident=[shutil.which("true")],
        # What is critical here is less than on a machine that matters.
        pressure={"warning": {"some_avg10": 0.3}, "critical": {"some_avg10": 0.6},
                  "clear_after": "1s"},
    )  # fmt: skip


def lived(daemon: Service, animals: Herd, cgroup: Path, prometheus: Prometheus) -> None:
    """Rules match, somebody else changes a value, memory becomes short, and a process is killed."""
    animals.script("live-hog.py", HOG)
    idle = animals.script("live-idle.py", IDLE)
    victim = hog(animals, cgroup)
    idlers = [animals.ready(sys.executable, idle) for _ in range(3)]
    daemon.logged(f"process {idlers[-1].pid} ")
    assert prometheus.query_until(f"{KILLED} + 1", 1) == 1
    Path(f"/proc/{idlers[0].pid}/oom_score_adj").write_text("700")
    until(lambda: daemon.metric("oomwatchd_adjustments_total", outcome="drifted"), "a drift")
    shortage(animals, cgroup)
    until(lambda: daemon.metric("oomwatchd_memory_pressure_level") == 2, "pressure is critical")
    until(lambda: "oomwatchd_rule_exposed_processes{" in daemon.get("/metrics")[1], "an audit")
    assert prometheus.query_until("oomwatchd_memory_pressure_level", 2) == 2
    assert grow(victim) == -9
    assert prometheus.query_until(KILLED, 1) == 1
    assert prometheus.query_until(f"{HOOK_DONE} > bool 0", 1) == 1
    assert prometheus.query_until(f"sum_over_time({KILLED}[9s]) > bool 2", 1) == 1  # an evening


def shortage(animals: Herd, cgroup: Path) -> None:
    """Pages are wanted again when they have just been dropped, which is what pressure measures."""
    large = animals.directory / "large"
    with large.open("wb") as file:
        for _ in range(2 * LIMIT_BYTES >> 20):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    thrash = animals.script("live-thrash.py", THRASH)
    animals.ready(sys.executable, thrash, large, cgroup, str(THRASH_SECONDS))


Story = Callable[[Service, Herd, Path, Prometheus], None]


@contextlib.contextmanager
def lived_through(
    directory: Path, rules: Sequence[Rule] = RULES, story: Story = lived
) -> Iterator[Day]:
    """A day on which *story* has happened."""
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("the kernel's log cannot be read here")
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        daemon, cgroup, animals = enter(service()), enter(limited_cgroup()), enter(herd())
        configured(daemon, rules)
        began = time.time()
        daemon.start()
        prometheus = enter(scraping(daemon, directory))
        assert prometheus.query_until('up{job="oomwatchd"}', 1) == 1
        story(daemon, animals, cgroup, prometheus)
        yield Day(prometheus, daemon, began, time.time())
