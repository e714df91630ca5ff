"""A real Prometheus scrapes a real server, and promtool has no complaint."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import pytest
from snapshots import BASE, turn

from oomwatchd.metrics import render
from oomwatchd.model import Address, Match, Rule, RuleTotals
from oomwatchd.series import DECLARED
from oomwatchd.server import Reporter

CONFIGURATION = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: oomwatchd
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: second
    static_configs: [{{targets: ["127.0.0.1:{second_port}"]}}]
"""
SERIES = 'scrape_samples_scraped{job="oomwatchd"}'
START_SECONDS = 30.0
REQUIRED = {"CI", "OOMWATCHD_REQUIRE_PROMETHEUS"}  # any of these, set to something

Value = TypeVar("Value")


def program(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"no {name}: it is in Debian's package prometheus, which script/test fetches"
    if any(os.environ.get(variable) for variable in REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


def eventually(
    ask: Callable[[], Value], good: Callable[[Value], bool], seconds: float = START_SECONDS
) -> Value:
    """The first good answer, or the last one when time is up."""
    deadline = time.monotonic() + seconds
    while not good(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


class Prometheus(NamedTuple):
    port: int
    second_port: int  # where it looks for another daemon
    process: subprocess.Popen[bytes]

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; None while it does not listen or is not ready."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        assert self.process.poll() is None
        with contextlib.closing(client):
            try:
                client.request("GET", f"{path}?{urllib.parse.urlencode(parameters)}")
                response = client.getresponse()
            except ConnectionRefusedError:
                return None
            return json.load(response)["data"] if response.status == 200 else None

    def query(self, expression: str) -> float | None:
        """The value, if the expression gives exactly one."""
        data = self.get("/api/v1/query", query=expression)
        results = data["result"] if data else []
        return float(results[0]["value"][1]) if len(results) == 1 else None

    def query_until(self, expression: str, expected: float) -> float | None:
        return eventually(lambda: self.query(expression), lambda value: value == expected)


@pytest.fixture(scope="module")
def reporter() -> Iterator[Reporter]:
    with contextlib.closing(
        Reporter(Address("127.0.0.1", 0), None, stale_seconds=60.0)
    ) as reporter:
        reporter.publish(turn())
        yield reporter


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        unused = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in unused]


@pytest.fixture(scope="module")
def prometheus(
    reporter: Reporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    assert reporter.address is not None
    configuration = directory / "prometheus.yml"
    port, second_port = free_ports(2)
    configuration.write_text(
        CONFIGURATION.format(port=reporter.address.port, second_port=second_port)
    )
    command = [
        program("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield Prometheus(port, second_port, process)
        finally:
            process.kill()


def test_promtool_has_no_complaint() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=render(turn()), capture_output=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_prometheus_finds_the_daemon_up(prometheus: Prometheus) -> None:
    assert prometheus.query_until('up{job="oomwatchd"}', 1) == 1


def test_prometheus_keeps_every_series(prometheus: Prometheus) -> None:
    exported = [line for line in render(turn()).splitlines() if not line.startswith(b"#")]

    assert prometheus.query_until(SERIES, len(exported)) == len(exported)


def test_prometheus_knows_types_and_help_of_every_metric(prometheus: Prometheus) -> None:
    declared = {metric.name: (metric.type, metric.help) for metric in DECLARED}
    metadata = eventually(lambda: prometheus.get("/api/v1/metadata"), bool)

    known = {}
    for name, [meta] in metadata.items():
        suffix = "_total" if meta["type"] == "counter" and not name.endswith("_total") else ""
        known[name + suffix] = (meta["type"], meta["help"])
    assert known == declared


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('oomwatchd_build_info{version="1.2.3"}', 1),
        ('oomwatchd_rule_oom_score_adj{rule="expendable"}', 500),
        ('oomwatchd_memory_pressure_ratio{kind="full",window="60s"}', 0.04),
        ('sum(oomwatchd_adjustments_total{rule="model-training"})', 3),
        ("count(oomwatchd_adjustments_total)", 10),
        ("oomwatchd_scan_duration_seconds_count", 6),
        ("histogram_quantile(0.5, oomwatchd_scan_duration_seconds_bucket)", 0.001),
        ("oomwatchd_unkillable_guard_trips_total", 1),
    ],
)
def test_prometheus_can_be_asked(prometheus: Prometheus, expression: str, expected: float) -> None:
    assert prometheus.query_until(expression, expected) == expected


def test_prometheus_follows_the_daemon(prometheus: Prometheus, reporter: Reporter) -> None:
    expression = 'oomwatchd_rule_resident_bytes{rule="model-training"}'
    before = prometheus.query_until(expression, BASE.totals["model-training"].resident_bytes)
    reporter.publish(turn(totals={"model-training": RuleTotals(1, 12345, 0)}))
    after = prometheus.query_until(expression, 12345)
    reporter.publish(turn())

    assert (before, after) == (BASE.totals["model-training"].resident_bytes, 12345)


def test_a_hundred_rules_are_a_thousand_series_and_no_more(
    prometheus: Prometheus, reporter: Reporter
) -> None:
    rules = tuple(Rule(f"rule-{n}", Match(name=("x",)), n) for n in range(100))
    reporter.publish(turn(rules=rules))
    counted = prometheus.query_until("count(oomwatchd_rule_oom_score_adj)", 100)
    series = prometheus.query(SERIES)
    reporter.publish(turn())

    assert counted == 100
    assert series is not None
    assert 900 < series < 1000


def test_prometheus_sees_a_daemon_start_and_stop(prometheus: Prometheus) -> None:
    up = 'up{job="second"}'
    before = prometheus.query_until(up, 0)
    address = Address("127.0.0.1", prometheus.second_port)
    with contextlib.closing(Reporter(address, None, stale_seconds=60.0)) as second:
        second.publish(turn())
        started = prometheus.query_until(up, 1)
    stopped = prometheus.query_until(up, 0)

    assert (before, started, stopped) == (0, 1, 0)
