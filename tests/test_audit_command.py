"""`oomwatchd audit`, and what `check` makes of it, on machines of our own making."""

import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from commands import REPOSITORY, needs_root, run, run_as_nobody, written
from computer import GIB, SERVICE, TERMINAL, TRAINER, Computer

from oomwatchd.auditing import KILLERS, UnitSettings, Unseen
from oomwatchd.cli import exits
from oomwatchd.cli.audit import audit, reported
from oomwatchd.cli.check import Broken, promises_broken
from oomwatchd.cli.failure import Failure
from oomwatchd.model import Config, Match, Rule
from oomwatchd.surroundings import Target

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TRAINING = Rule("training", Match(name=("python3",)), -900, shield="preference")
EXPENDABLE = Rule("expendable", Match(name=("chrome",)), 500)
CONFIG = Config(rules=(TRAINING, EXPENDABLE))
TEXT = Namespace(json=False, rule=None, pid=None)
JSON = Namespace(json=True, rule=None, pid=None)
FIELDS = [
    "pid", "name", "rule", "oom_score_adj", "wanted", "memory_bytes", "cgroup", "unit", "shield",
    "killers", "notes",
]  # fmt: skip
OUR_SCOPE = "/oomwatchd.slice/oomwatchd-training-4711.scope"


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def said(computer: Computer, arguments: Namespace, config: Config = CONFIG) -> int:
    with computer.sources() as sources:
        return audit(arguments, config, sources)


def listed(computer: Computer, capsys: pytest.CaptureFixture[str], **chosen: object) -> Any:
    said(computer, Namespace(**{**vars(JSON), **chosen}))
    return json.loads(capsys.readouterr().out)


def test_json_has_the_fields_of_the_contract(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.trainer(SERVICE)
    [entry] = listed(computer, capsys)

    assert list(entry) == FIELDS
    assert (entry["pid"], entry["rule"], entry["unit"]) == (TRAINER, "training", "train.service")
    assert tuple(entry["killers"]) == KILLERS
    for verdict in entry["killers"].values():
        assert list(verdict) == ["verdict", "reason", "advice", "first_bytes"]
    assert entry["killers"]["kernel"]["verdict"] == "last_in_line"
    assert entry["killers"]["kernel"]["first_bytes"] >= GIB


def test_text_is_as_the_manual_shows_it(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    [shown] = re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    conf = computer.files / "usr/lib/systemd/oomd.conf.d"
    conf.mkdir(parents=True)
    (conf / "10-oomd-defaults.conf").write_text("[OOM]\nDefaultMemoryPressureDurationSec=20s\n")
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    bare = Rule("training", Match(name=("python3",)), -900, shield="none")

    assert said(computer, TEXT, Config(rules=(bare,))) == exits.NO
    assert capsys.readouterr().out == shown


def test_a_shield_that_nobody_has_carried_out_is_asked_about(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    [entry] = listed(computer, capsys)

    advice = "shield: preference in rule training (it says so: does the daemon run?)"
    assert entry["killers"]["systemd_oomd"]["advice"] == advice


def test_nothing_exposed_is_fine(computer: Computer, capsys: pytest.CaptureFixture[str]) -> None:
    computer.trainer(SERVICE)

    assert said(computer, TEXT) == exits.FINE
    assert capsys.readouterr().out.endswith("1 process; none that a rule protects is exposed.\n")


def test_who_is_meant_to_die_first_is_no_fault(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.process(80, b"chrome", mib=300, cgroup=SERVICE, adj=500)
    status = said(computer, JSON)
    [entry] = json.loads(capsys.readouterr().out)

    assert status == exits.FINE
    assert entry["killers"]["kernel"]["verdict"] == "exposed"
    assert entry["killers"]["kernel"]["advice"] == ""


def test_no_process_under_a_rule_is_fine(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(computer, TEXT) == exits.FINE
    assert capsys.readouterr().out == "No process that runs now is under a rule.\n"


def test_workers_that_fare_alike_are_told_of_together(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.trainer(SERVICE)
    for pid in range(100, 110):
        computer.process(pid, b"python3", mib=100, cgroup=SERVICE, adj=-900)
    said(computer, TEXT)

    headings = [line for line in capsys.readouterr().out.splitlines() if "rule training:" in line]
    assert headings == ["python3 (4711) and 10 more, rule training: oom_score_adj -900, 8.0 GiB"]


def test_one_process_or_one_rule_may_be_asked_for(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"chrome", mib=300, cgroup=SERVICE)

    assert [entry["pid"] for entry in listed(computer, capsys)] == [80, TRAINER]
    assert [entry["pid"] for entry in listed(computer, capsys, pid=80)] == [80]
    assert [entry["pid"] for entry in listed(computer, capsys, rule="training")] == [TRAINER]
    assert listed(computer, capsys, rule="expendable", pid=TRAINER) == []


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"pid": 50}, "process 50 is under no rule"),
        ({"pid": 51}, "process 51 is under no rule"),
        ({"rule": "x"}, "there is no rule x; there are: training, expendable"),
    ],
)
def test_what_is_not_there_is_a_no(
    computer: Computer, chosen: dict[str, Any], message: str
) -> None:
    with computer.sources() as sources, pytest.raises(Failure) as caught:
        reported(CONFIG, sources, **chosen)

    assert (caught.value.message, caught.value.status) == (message, exits.NO)


def test_what_could_not_be_seen_is_said_beside_the_json(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.trainer(SERVICE)
    computer.proc.exit(1)
    said(computer, JSON)

    captured = capsys.readouterr()
    assert json.loads(captured.out)
    assert captured.err.startswith("not seen: processes of other users, which /proc hides from ")


def test_a_process_in_a_scope_of_our_own_is_told_what_that_costs(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.trainer(OUR_SCOPE)
    [entry] = listed(computer, capsys)
    [note] = entry["notes"]

    assert "logging out" in note
    assert "systemctl stop oomwatchd-training-4711.scope" in note


def test_a_name_that_a_user_chose_stays_on_its_line(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    computer.process(80, b"chrome", mib=300, cgroup="/system.slice/\x1b[31m\u202eevil.service")
    said(computer, TEXT, Config(rules=(Rule("all", Match(name=("*",)), -900),)))

    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


# -- check -----------------------------------------------------------------------------------------


def broken(computer: Computer, rule: Rule) -> list[Broken]:
    target = Target(TRAINER, 100, rule, rule.oom_score_adj)
    with computer.sources() as sources:
        return promises_broken([target], sources)


def test_check_says_where_a_rule_without_a_shield_is_not_enough(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)

    [one] = broken(computer, Rule("training", Match(), -900, shield="none"))

    assert (one.rule, one.killer, one.pids) == ("training", "systemd_oomd", (TRAINER,))
    assert one.advice == "shield: preference in rule training"


def test_check_trusts_the_shield_that_is_to_come_where_it_counts(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)

    assert broken(computer, Rule("training", Match(), -900, shield="preference")) == []


def test_check_says_where_the_preference_does_not_count(computer: Computer) -> None:
    computer.oomd()
    computer.session(owner=1000)
    computer.memory(swap=8)
    computer.unit("-.slice", UnitSettings(swap="kill"))
    computer.trainer(TERMINAL)
    computer.cgroup(TERMINAL, owner=1000)

    [one] = broken(computer, Rule("training", Match(), -900, shield="preference"))

    assert one.killer == "systemd_oomd"
    assert one.advice == "shield: scope in rule training"


@pytest.mark.parametrize("shield", ["none", "preference"])
def test_check_says_where_minus_1000_is_in_a_unit_that_stops(
    computer: Computer, shield: Any
) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)

    [one] = broken(computer, Rule("training", Match(), -1000, shield=shield, unkillable=True))

    assert one.killer == "oom_policy"
    assert "OOMPolicy=stop" in one.reason


def test_check_knows_that_what_is_in_a_container_is_not_shielded(computer: Computer) -> None:
    computer.oomd()
    computer.unit("-.slice", UnitSettings(pressure="kill"))
    computer.trainer("/system.slice/docker-4f2a.scope")

    [one] = broken(computer, Rule("training", Match(), -900, shield="preference"))

    assert one.killer == "systemd_oomd"
    assert one.advice == "run it outside of the container: what is in one is not shielded"


def test_check_has_nothing_to_say_of_who_will_have_a_scope_of_its_own(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    computer.process(80, b"worker", mib=100, cgroup=TERMINAL)

    assert broken(computer, Rule("training", Match(), -900, shield="scope")) == []


def test_check_does_not_warn_of_what_it_does_not_know(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)
    computer.unit("train.service", Unseen("systemd did not answer within 3 s"))

    assert broken(computer, TRAINING) == []


# -- as a user runs it -----------------------------------------------------------------------------

OURS = "rules:\n  - {name: ours, match: {name: 'python*', user: root}, oom_score_adj: -900}\n"


def test_the_command_audits_this_very_machine(tmp_path: Path) -> None:
    config = written(tmp_path / "c.yaml", OURS)
    done = run("audit", "-c", config, "--json")
    listed = json.loads(done.stdout)

    assert done.returncode == (exits.NO if listed else exits.FINE)
    assert all(tuple(entry["killers"]) == KILLERS for entry in listed)


@needs_root
def test_an_ordinary_user_is_answered_as_well(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    config = written(Path("/tmp") / f"audit-{tmp_path.name}.yaml", OURS)  # noqa: S108 - as nobody
    try:
        done = run_as_nobody("audit", "-c", config, "--json")
    finally:
        config.unlink()

    assert isinstance(json.loads(done.stdout), list)
    assert "Traceback" not in done.stderr


def test_a_process_that_is_not_there_is_a_no(tmp_path: Path) -> None:
    config = written(tmp_path / "c.yaml", OURS)
    done = run("audit", "-c", config, "--pid", 4_194_305)

    assert done.returncode == exits.NO
    assert done.stderr == "oomwatchd audit: process 4194305 is under no rule\n"
