"""Each query of the dashboard for kills, on kills that increase() alone does not see."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from day import ANNOTATION, DASHBOARD
from test_prometheus import program

COUNTER = "oomwatchd_oom_kills_total"
ASKED = {
    f"{panel['title']}, {panel['type']}": target["expr"]
    for panel in DASHBOARD["panels"] if panel["type"] != "row"
    for target in panel["targets"] if COUNTER in target["expr"]
} | {"the annotation": ANNOTATION["expr"]}  # fmt: skip
# What Grafana puts in, with everything chosen.
CHOSEN = {"$__rate_interval": "6m", "$__range": "2h", "$job": "oomwatchd", "$instance": ".*",
          "$rule": ".*"}  # fmt: skip
MACHINE = '{job="oomwatchd",instance="m1"}'
RULE = '{job="oomwatchd",instance="m1",rule="training"}'
KILLS = '{job="oomwatchd",instance="m1",rule="training",killer="kernel"}'
ADJ = "oomwatchd_rule_oom_score_adj"
START = "oomwatchd_start_time_seconds"
LONG_AGO = "-864000"


class Story(NamedTuple):
    """What Prometheus has seen, in minutes, until it is asked."""

    series: Mapping[str, str]
    asked_minute: int
    kills: int  # that each of the queries shows


def story(starts: str, kills: str, asked_minute: int, shown: int) -> Story:
    series = {ADJ + RULE: "-900x180", START + MACHINE: starts, COUNTER + KILLS: kills}
    return Story(series, asked_minute, shown)


def of_pod(labels: str, name: str) -> str:
    return labels.replace("{", f'{{pod="{name}",')


STORIES = {
    "a kill in the first sample of a series": story(f"{LONG_AGO}x180", "_x149 1x30", 152, 1),
    "the same, on a machine that is known for less than the time shown": story(
        f"{LONG_AGO}x180", "_x20 1x100", 24, 1
    ),
    "the same, of a daemon that has started in that time": story("0x180", "_x20 1x100", 24, 1),
    "two kills at once": story(f"{LONG_AGO}x180", "_x149 2x30", 152, 2),
    "one that was found when the daemon started, which had counted as many before": story(
        f"{LONG_AGO}x149 9000x30", "1x180", 152, 1
    ),
    "one in the first minute of a pod, on a node that had another": Story(
        {
            ADJ + RULE: "-900x180",
            START + of_pod(MACHINE, "a"): f"{LONG_AGO}x149",
            START + of_pod(MACHINE, "b"): "_x149 9000x30",
            COUNTER + of_pod(KILLS, "a"): "0x149",
            COUNTER + of_pod(KILLS, "b"): "_x149 1x30",
        },
        asked_minute=152,
        kills=1,
    ),
    "none": story(f"{LONG_AGO}x180", "0x180", 152, 0),
    "one of days ago": story(f"{LONG_AGO}x180", "7x180", 152, 0),
    "those of a machine that is new to Prometheus": story(
        f"_x20 {LONG_AGO}x100", "_x20 7x100", 24, 0
    ),
}


def expanded(expression: str) -> str:
    for name, value in CHOSEN.items():
        expression = expression.replace(name, value)
    return expression


def case(name: str, told: Story) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [
            {"series": series, "values": values} for series, values in told.series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"sum({expanded(expression)}) or vector(0)",
                "eval_time": f"{told.asked_minute}m",
                "exp_samples": [{"labels": "{}", "value": told.kills}],
            }
            for expression in ASKED.values()
        ],
    }


@pytest.mark.parametrize("name", STORIES)
def test_every_query_of_kills_shows(name: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"  # JSON is YAML
    cases.write_text(json.dumps({"tests": [case(name, STORIES[name])]}), encoding="utf-8")

    done = subprocess.run(
        [program("promtool"), "test", "rules", cases], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_six_such_queries() -> None:
    assert len(ASKED) == 6
