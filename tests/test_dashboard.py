"""The dashboard: all that it asks is asked of a real Prometheus, after a day of a real daemon."""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from day import DASHBOARD, RULES_FILE, VARIABLES, Day, lived_through
from demand import demanded
from draw_dashboard import DRAWING, NOTE, chosen_panels, drawing
from live import REPOSITORY, needs_root, until
from test_linters import PROGRAMS

from oomwatchd.series import DECLARED

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(panel["type"], target["expr"], bool(target.get("instant")),
                 id=f"{panel['title']} {target['refId']}")
    for panel in PANELS for target in panel["targets"]
]  # fmt: skip
TABLES = [panel for panel in PANELS if panel["type"] == "table"]
ANNOTATIONS = DASHBOARD["annotations"]["list"]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with lived_through(tmp_path_factory.mktemp("prometheus")) as one:
        yield one


def has_numbers(series: dict[str, Any]) -> bool:
    samples = series.get("values") or [series["value"]]
    return any(math.isfinite(float(value)) for _, value in samples)


# -- what is asked ---------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(("kind", "expression", "instant"), QUERIES)
def test_no_query_of_a_panel_is_empty_after_that_day(
    day: Day, kind: str, expression: str, *, instant: bool
) -> None:
    found = day.ask(expression, instant=instant)

    assert found
    assert any(map(has_numbers, found)), kind


@needs_root
@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda one: one["name"])
def test_no_annotation_is_empty_after_that_day(day: Day, annotation: dict[str, Any]) -> None:
    found = day.ask(annotation["expr"], instant=False)
    told = set(re.findall(r"{{(\w+)}}", annotation["titleFormat"] + annotation["textFormat"]))

    assert ("training", "cgroup") in {
        (series["metric"]["rule"], series["metric"]["killer"]) for series in found
    }
    assert all(told <= series["metric"].keys() for series in found)


@needs_root
@pytest.mark.parametrize(
    ("name", "choices"),
    [("job", {"oomwatchd"}), ("instance", None), ("rule", {"training", "expendable", "nobody"})],
)
def test_what_can_be_chosen_is_what_there_is(day: Day, name: str, choices: set[str] | None) -> None:
    variable = next(one for one in VARIABLES if one["name"] == name)

    assert set(day.choices(variable["query"])) == (choices or {f"127.0.0.1:{day.daemon.port}"})


@needs_root
@pytest.mark.parametrize(
    ("title", "least", "most"),
    [
        ("Machines", 1, 1),
        ("Silent", 0, 0),  # that of the other job is none of ours
        ("Protected and killed", 0.9, 1.5),  # increase() extrapolates
        ("Killed", 0.9, 1000),  # those found at the start are counted as well
        ("Refused files", 0, 0),
    ],
)
def test_a_tile_shows_what_has_happened(day: Day, title: str, least: float, most: float) -> None:
    [panel] = [one for one in PANELS if one["title"] == title and one["type"] == "stat"]
    [series] = day.ask(panel["targets"][0]["expr"], instant=True)

    assert least <= float(series["value"][1]) <= most


@needs_root
@pytest.mark.parametrize("panel", TABLES, ids=lambda panel: panel["title"])
def test_the_columns_of_a_table_have_their_labels_in_common(
    day: Day, panel: dict[str, Any]
) -> None:
    """Else Grafana would put them into rows of their own."""
    answers = [day.ask(target["expr"], instant=True) for target in panel["targets"]]
    labels = {frozenset(series["metric"]) for answer in answers for series in answer}

    assert len(labels) == 1


@needs_root
def test_that_day_wakes_somebody(day: Day) -> None:
    """By the alerts as they are shipped."""
    woken = 'ALERTS{alertstate="firing",severity="critical"}'
    found = until(lambda: day.prometheus.get("/api/v1/query", query=woken)["result"], "an alert")

    kinds = {(one["metric"]["alertname"], one["metric"]["rule"]) for one in found}
    assert kinds == {("OomwatchdProtectedProcessKilled", "training")}


@needs_root
def test_no_alert_is_an_error_on_real_data(day: Day) -> None:
    rules = day.prometheus.get("/api/v1/rules")["groups"]
    wanted = yaml.safe_load(RULES_FILE.read_text(encoding="utf-8"))["groups"]

    health = {one["name"]: one["health"] for group in rules for one in group["rules"]}
    assert set(health.values()) == {"ok"}
    assert sum(len(group["rules"]) for group in rules) == sum(len(one["rules"]) for one in wanted)


# -- the file --------------------------------------------------------------------------------------


def test_the_dashboard_is_what_the_script_makes() -> None:
    demanded(PROGRAMS / "mypy")  # Grafana's library is fetched with it
    done = subprocess.run(
        [REPOSITORY / "script/make-dashboard", "--check"], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source, no machine and no number that another Grafana has given out."""
    text = json.dumps(DASHBOARD)

    assert "id" not in DASHBOARD
    assert all("id" not in panel for panel in DASHBOARD["panels"])
    assert {one["uid"] for one in sources(DASHBOARD)} == {"${datasource}"}
    assert [one["name"] for one in VARIABLES] == ["datasource", "job", "instance", "rule"]
    assert "127.0.0.1" not in text
    assert "localhost" not in text


def sources(part: Any) -> Iterator[dict[str, Any]]:
    """Every data source that is named anywhere."""
    if isinstance(part, list):
        for one in part:
            yield from sources(one)
    if isinstance(part, dict):
        for key, one in part.items():
            if key == "datasource" and isinstance(one, dict):
                yield one
            yield from sources(one)


def test_every_metric_is_on_the_dashboard() -> None:
    text = json.dumps(DASHBOARD)

    assert [one.name for one in DECLARED if one.name not in text] == []


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    no_axis = {"table", "state-timeline"}
    units = {panel["title"]: panel["fieldConfig"]["defaults"].get("unit") for panel in PANELS
             if panel["type"] not in no_axis}  # fmt: skip

    assert [panel["title"] for panel in PANELS if not panel.get("description")] == []
    assert [title for title, unit in units.items() if unit is None] == []


def test_panels_do_not_cover_each_other() -> None:
    taken = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]

    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23


@needs_root
def test_the_picture_shows_every_panel_of_its_rows(day: Day) -> None:
    texts = texts_of(drawing(day))

    assert {panel["title"] for panel in chosen_panels()} <= texts
    assert {"training", "expendable", "critical"} <= texts


def test_the_picture_that_is_shown_is_of_this_dashboard() -> None:
    texts = texts_of(DRAWING.read_text(encoding="utf-8"))

    assert {panel["title"] for panel in chosen_panels()} <= texts
    assert NOTE in texts


def texts_of(svg: str) -> set[str | None]:
    drawn = ElementTree.fromstring(svg)  # noqa: S314 - it is ours
    return {one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")}
