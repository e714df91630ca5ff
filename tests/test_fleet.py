"""How many series a machine has, by its rules: docs/fleet.md says what the daemon exports."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from live import REPOSITORY, Herd, Service, families, herd, needs_root, rule, service, until
from test_alerts import FLEET, promtool

from bench.fleet import snapshot
from oomwatchd.metrics import render

MANUAL = (REPOSITORY / "docs/fleet.md").read_text(encoding="utf-8")
SERIES = MANUAL.partition("## Series")[2].partition("\n## ")[0]
ABOUT_PROMETHEUS = MANUAL.partition("\n## Kubernetes\n")[0]
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", ABOUT_PROMETHEUS, re.MULTILINE | re.DOTALL)
WAITS = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"
RULES = (1, 10, 100)


class Counted(NamedTuple):
    rules: int
    fewest: int  # none protects, and none matches a process
    most: int  # all protect, and all match one


def told() -> list[Counted]:
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d,]+) \|", SERIES, re.MULTILINE)
    return [Counted(*(int(cell.replace(",", "")) for cell in row)) for row in rows]


def series(daemon: Service) -> int:
    lines = daemon.get("/metrics")[1].splitlines()
    return sum(not line.startswith("#") for line in lines)


def counted(daemon: Service, animals: Herd, count: int) -> Counted:
    names = [f"live-{number}.py" for number in range(count)]
    rules = [rule(f"rule-{number}", {"script": name}, 500) for number, name in enumerate(names)]
    daemon.configure(*rules)
    daemon.start()
    fewest = series(daemon)
    for name in names:
        animals.ready(sys.executable, animals.script(name, WAITS))
    daemon.configure(*({**one, "oom_score_adj": -500} for one in rules))
    daemon.reload()
    until(lambda: daemon.metric("oomwatchd_rule_processes") == count, "all processes are matched")
    until(lambda: "oomwatchd_rule_exposed_processes{" in daemon.get("/metrics")[1], "an audit")
    return Counted(count, fewest, series(daemon))


@needs_root
@pytest.mark.parametrize("count", RULES)
def test_a_machine_has_as_many_series_as_the_manual_says(count: int) -> None:
    with service() as daemon, herd() as animals:
        found = counted(daemon, animals, count)

    assert found in told()


def test_the_arithmetic_of_the_manual_is_that_of_its_table() -> None:
    terms = r"^    (\d+) \+ (\d+) \* .* \+ (\d+) \* .* \+ (\d+) \* "
    found = re.search(terms, MANUAL, re.MULTILINE)
    assert found is not None
    base, each, protecting, living = map(int, found.groups())

    assert [one.rules for one in told()] == list(RULES)
    assert [one.fewest for one in told()] == [base + each * one.rules for one in told()]
    assert [one.most for one in told()] == [
        base + (each + protecting + living) * one.rules for one in told()
    ]


def test_what_is_left_out_is_as_much_as_the_manual_says() -> None:
    """Of a machine with ten rules, all of which protect and match."""
    [job] = yaml.safe_load(BLOCKS[0])["scrape_configs"]
    dropped = 0
    for config in job["metric_relabel_configs"]:
        assert config["action"] == "drop"
        for sample in samples(rules=10):
            value = ";".join(sample.get(label, "") for label in config["source_labels"])
            dropped += re.fullmatch(config["regex"], value) is not None
    least, whole = map(int, re.findall(r"(\d+) series instead of (\d+)", MANUAL)[0])

    assert whole == next(one.most for one in told() if one.rules == 10)
    assert whole - dropped == least


def samples(rules: int) -> list[dict[str, str]]:
    """The labels of each, with the name among them."""
    text = render(snapshot(rules)).decode()
    return [
        {"__name__": sample.name, **sample.labels}
        for family in families(text)
        for sample in family.samples
    ]


def test_the_questions_of_the_manual_can_be_asked(tmp_path: Path) -> None:
    recorded = set(re.findall(r"record: (\S+)", FLEET.read_text(encoding="utf-8")))
    rows = re.findall(r"^\| [A-Z].*\? \| `(.*)` \| `(.*)` \|$", MANUAL, re.MULTILINE)
    asked = [one for row in rows for one in row]
    rules = [{"record": f"answer_{number}", "expr": one} for number, one in enumerate(asked)]
    path = tmp_path / "questions.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "questions", "rules": rules}]}))

    done = promtool("check", "rules", path)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(rows) == 7
    assert set(re.findall(r"job\w*:\w+:\w+", str(rows))) <= recorded


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_prometheus_takes_the_configurations_shown(block: str, tmp_path: Path) -> None:
    document = yaml.safe_load(block)
    for name in document.get("rule_files", []):
        source = REPOSITORY / "packaging/prometheus" / Path(name).name
        (tmp_path / source.name).write_bytes(source.read_bytes())
        block = block.replace(name, source.name)
    path = tmp_path / "prometheus.yml"
    path.write_text(block, encoding="utf-8")

    done = promtool("check", "config", path)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(BLOCKS) >= 2
