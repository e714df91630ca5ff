"""The order of death on a machine of our own making: what is shown, in text and in JSON."""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.cli.rank import PAGE_BYTES, Names, rank, read_ranking
from oomwatchd.cli.verdict import Judge
from oomwatchd.kernel.proc import Look, ProcFs
from oomwatchd.model import Config, Match, Rule

FIELDS = ["pid", "name", "oom_score_adj", "memory_bytes", "points_pages", "killable", "rule"]
STAT = (
    "{pid} ({comm}) S 1 1 1 0 -1 4194560 98 0 0 0 0 0 0 0 20 0 1 0 {start} 3133440 380" + " 0" * 28
)
STATUS = """\
Name:\tcat\nState:\tS (sleeping)\nUid:\t0\t0\t0\t0\n\
VmRSS:\t{kib} kB\nRssAnon:\t{kib} kB\nRssFile:\t0 kB\nRssShmem:\t0 kB\n\
VmPTE:\t0 kB\nVmSwap:\t0 kB\nThreads:\t1\n\
"""
GIB_KIB = 1 << 20


class Machine(ProcFs):
    """The worked example: 32 GiB without swap.  Some of its processes may not be read."""

    def __init__(self, root: Path) -> None:
        (root / "sys/vm").mkdir(parents=True)
        self.set(root, "panic_on_oom", 0)
        self.set(root, "oom_kill_allocating_task", 0)
        (root / "meminfo").write_text(
            f"MemTotal: {32 * GIB_KIB} kB\nMemAvailable: 9 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
        )
        super().__init__(root)
        self.forbidden: set[int] = set()
        self.add(1, "systemd", 0, 10)

    @staticmethod
    def set(root: Path, name: str, value: int) -> None:
        (root / "sys/vm" / name).write_text(f"{value}\n")

    def add(self, pid: int, comm: str, adj: int, kib: int, start: int = 100) -> None:
        directory = self.root / str(pid)
        directory.mkdir()
        (directory / "stat").write_text(STAT.format(pid=pid, comm=comm, start=start))
        (directory / "status").write_text(STATUS.format(kib=kib))
        (directory / "oom_score_adj").write_text(f"{adj}\n")

    def look(self, pid: int) -> Look | None:
        if pid in self.forbidden:
            raise PermissionError(pid)
        return super().look(pid)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "proc")
    yield machine
    machine.close()


def named(machine: Machine, **rules: str) -> Names:
    """Each process of a name is under the rule given for it."""
    made = tuple(Rule(rule, Match(name=(comm,)), 0) for comm, rule in rules.items())
    config = Config(made, kubernetes_pods="manage")  # that machine has no cgroups
    return Names(Judge(config, machine))


NO_RULES = Names(None)
TEXT = Namespace(all=False, json=False, config=None)
TEXT_ALL = Namespace(all=True, json=False, config=None)
JSON = Namespace(all=False, json=True, config=None)
JSON_ALL = Namespace(all=True, json=True, config=None)


def test_the_worked_example_shows_its_arithmetic(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(11, "trainer", -500, 24 * GIB_KIB)
    machine.add(12, "db", -900, 8 * GIB_KIB)
    machine.add(13, "browser", 200, 2 * GIB_KIB)
    machine.add(14, "agent", 300, 13_107 * 4)
    machine.add(15, "guard", -1000, GIB_KIB)
    names = named(machine, trainer="model-training", db="database")

    assert rank(TEXT_ALL, machine, names) == 0
    assert capsys.readouterr().out.splitlines() == [
        "32.0 GiB in all (RAM 32.0 GiB, swap 0.0 MiB): 1 adj = 32.8 MiB here",
        "",
        "RANK  PID  NAME       ADJ    MEMORY  + ADJ x 32.8 MiB   = POINTS  RULE",
        "   1   14  agent      300  51.2 MiB          +9.6 GiB    9.6 GiB",
        "   2   13  browser    200   2.0 GiB          +6.4 GiB    8.4 GiB",
        "   3   11  trainer   -500  24.0 GiB         -16.0 GiB    8.0 GiB  model-training",
        "   4   12  db        -900   8.0 GiB         -28.8 GiB  -20.8 GiB  database",
        "   -   15  guard    -1000   1.0 GiB                        never",
    ]


def test_json_has_the_fields_of_the_contract_in_order_of_death(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(12, "db", -900, 8 * GIB_KIB)
    machine.add(15, "guard", -1000, GIB_KIB)
    machine.add(13, "browser", 200, 2 * GIB_KIB)
    names = named(machine, db="database")

    assert rank(JSON_ALL, machine, names) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [
        {
            "pid": 13,
            "name": "browser",
            "oom_score_adj": 200,
            "memory_bytes": 2 << 30,
            "points_pages": 2_201_888 * 4096 // PAGE_BYTES,
            "killable": True,
            "rule": None,
        },
        {
            "pid": 12,
            "name": "db",
            "oom_score_adj": -900,
            "memory_bytes": 8 << 30,
            "points_pages": -5_452_048 * 4096 // PAGE_BYTES,
            "killable": True,
            "rule": "database",
        },
        {
            "pid": 15,
            "name": "guard",
            "oom_score_adj": -1000,
            "memory_bytes": 1 << 30,
            "points_pages": None,
            "killable": False,
            "rule": None,
        },
    ]
    assert [list(entry) for entry in listed] == [FIELDS] * 3


def test_without_all_json_has_every_process_that_can_be_killed_and_no_other(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    for pid in range(100, 150):
        machine.add(pid, "cat", 0, pid)
    machine.add(15, "guard", -1000, GIB_KIB)
    rank(JSON, machine, NO_RULES)

    pids = [entry["pid"] for entry in json.loads(capsys.readouterr().out)]

    assert pids == list(range(149, 99, -1))


def test_without_all_text_has_twenty_rows_and_says_how_many_more(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    for pid in range(100, 150):
        machine.add(pid, "cat", 0, pid)
    machine.add(15, "guard", -1000, GIB_KIB)
    rank(TEXT, machine, NO_RULES)

    lines = capsys.readouterr().out.splitlines()

    assert sum("cat" in line for line in lines) == 20
    assert lines[-1] == (
        "left out: 30 further down, 1 never picked (oom_score_adj -1000); --all shows them"
    )


def test_of_equals_the_one_created_later_dies_first(machine: Machine) -> None:
    machine.add(40, "old", 0, 100, start=1)
    machine.add(20, "new", 0, 100, start=3)
    machine.add(30, "middle", 0, 100, start=2)
    machine.add(31, "same tick", 0, 100, start=2)

    assert [one.pid for one in read_ranking(machine).killable] == [20, 31, 30, 40]


def test_a_setting_that_overrules_the_order_is_said_above_it(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.set(machine.root, "panic_on_oom", 2)
    machine.set(machine.root, "oom_kill_allocating_task", 1)
    rank(TEXT, machine, NO_RULES)

    _, panic, allocating, *_ = capsys.readouterr().out.splitlines()

    assert panic.startswith("warning: vm.panic_on_oom=2: ")
    assert allocating.startswith("warning: vm.oom_kill_allocating_task=1: ")


def test_remarks_do_not_spoil_the_json(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(13, "browser", 200, 2 * GIB_KIB)
    machine.add(14, "secret", 0, 2 * GIB_KIB)
    machine.forbidden.add(14)
    rank(JSON, machine, NO_RULES)

    captured = capsys.readouterr()

    assert [entry["pid"] for entry in json.loads(captured.out)] == [13]
    assert captured.err == "not seen: processes that may not be read (1); try as root\n"


def test_where_even_pid_1_is_hidden_it_says_that_others_are(machine: Machine) -> None:
    for name in ("stat", "status", "oom_score_adj"):
        (machine.root / "1" / name).unlink()
    (machine.root / "1").rmdir()

    [remark] = read_ranking(machine).remarks

    assert "hidepid" in remark


def test_in_a_container_it_says_that_the_rest_is_not_seen(machine: Machine) -> None:
    (machine.root / "self/ns").mkdir(parents=True)
    (machine.root / "self/ns/pid").touch()  # with an inode number of its own

    assert read_ranking(machine).remarks == ["not seen: processes outside of this container"]


def test_whose_rule_hangs_on_what_may_not_be_read_has_a_question_mark(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """That machine shows no program's file."""
    machine.add(12, "db", -900, 8 * GIB_KIB)
    machine.add(13, "browser", 200, 2 * GIB_KIB)
    by_file = Rule("database", Match(name=("db",), exe=("/usr/bin/db",)), -900)
    rank(TEXT, machine, Names(Judge(Config((by_file,)), machine)))
    rows = capsys.readouterr().out.splitlines()
    rank(JSON, machine, Names(Judge(Config((by_file,)), machine)))
    captured = capsys.readouterr()

    assert [line.split()[-1] for line in rows if " db " in line] == ["?"]
    assert rows[-1].startswith("not known: whether 1 process is under a rule that asks for exe ")
    assert {entry["rule"] for entry in json.loads(captured.out)} == {None}
    assert captured.err.rstrip("\n") == rows[-1]


def test_with_a_configuration_that_cannot_be_read_the_order_is_shown_without_rules(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(13, "browser", 200, 2 * GIB_KIB)
    rank(TEXT, machine, Names(None, "/etc/oomwatchd.yaml: Permission denied"))
    lines = capsys.readouterr().out.splitlines()

    assert "browser" in lines[-2]
    assert lines[-1] == "rules not named: /etc/oomwatchd.yaml: Permission denied"
