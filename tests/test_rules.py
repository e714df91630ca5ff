"""Which rule a process falls under, and what has to be read to know."""

import re
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.model import Exe, Match, Needs, Process, ProcessId, Rule, Units, User
from oomwatchd.policy.rules import compiled, first_match, needs

ALICE = User("alice", 1000)
POSTGRES = Exe("/usr/lib/postgresql/15/bin/postgres", proven=True)
PROCESS = Process(
    ProcessId(7, 100),
    1,
    "python3",
    cmdline="python3 -u /srv/job/train_large.py --epochs 3",
    script="job/train_large.py",
    script_path="/srv/job/train_large.py",
    exe=Exe("/usr/bin/python3.11", proven=True),
    uid=1000,
    units=Units("user@1000.service", "jupyter.service"),
    cgroup="/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service",
)
CUT = PROCESS._replace(comm="a-very-long-pro", long_name="a-very-long-program-name")


def matches(match: Match, process: Process = PROCESS, oom_score_adj: int = 100) -> bool:
    return first_match(compiled([Rule("r", match, oom_score_adj)]), process) is not None


@pytest.mark.parametrize(
    "match",
    [
        Match(name=("python3",)),
        Match(name=("python*",)),
        Match(name=("perl", "p?thon[23]")),
        Match(script=("train_*.py",)),
        Match(script=("job/train_*.py",)),
        Match(script=("/srv/job/*.py",)),
        Match(script=("*/job/train_large.py",)),
        Match(cmdline=("--epochs [0-9]+$",)),
        Match(cmdline=("^python3 ", "nothing of the sort")),
        Match(exe=("/usr/bin/python*",)),
        Match(user=(User("bob", 1001), ALICE)),
        Match(unit=("user@*.service",)),
        Match(unit=("jupyter.service",)),
        Match(cgroup=("/user.slice/*",)),
        Match(cgroup=("*/jupyter.service",)),
        Match(name=("python3",), script=("train_*.py",), user=(ALICE,), unit=("jupyter.*",)),
    ],
)
def test_what_matches(match: Match) -> None:
    assert matches(match)


@pytest.mark.parametrize(
    "match",
    [
        Match(name=("python",)),  # no part of a name
        Match(name=("ython3",)),
        Match(name=("Python3",)),
        Match(name=("python3 ",)),
        Match(script=("train_large",)),
        Match(script=("train_*.p",)),
        Match(script=("/srv/train_*.py/x",)),
        Match(script=("python3",)),
        Match(cmdline=("^--epochs",)),
        Match(cmdline=("epochs 3 ",)),
        Match(exe=("python*",)),
        Match(exe=("/usr/bin/python3",)),
        Match(user=(User("bob", 1001),)),
        Match(user=(User("nobody-yet", None),)),
        Match(unit=("jupyter",)),
        Match(unit=("user@1000",)),
        Match(cgroup=("/user.slice",)),
        Match(cgroup=("jupyter.service",)),
        Match(name=("python3",), user=(User("bob", 1001),)),  # all keys given must match
        Match(script=("train_*.py",), unit=("cron.service",)),
    ],
)
def test_what_does_not_match(match: Match) -> None:
    assert not matches(match)


UNREAD = Process(ProcessId(7, 100), 1, "python3")


@pytest.mark.parametrize(
    "match",
    [
        Match(script=("*",)),
        Match(cmdline=("",)),
        Match(exe=("*",)),
        Match(user=(ALICE, User("unknown", None))),
        Match(unit=("*",)),
        Match(cgroup=("*",)),
    ],
)
def test_what_could_not_be_read_matches_nothing(match: Match) -> None:
    assert not matches(match, UNREAD)


def test_a_process_in_no_unit_matches_no_unit() -> None:
    assert not matches(Match(unit=("*",)), UNREAD._replace(units=Units(None, None)))


# -- names longer than the kernel keeps ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-very-long-program-name", True),
        ("a-very-long-pro", True),
        ("a-very-long-*", True),
        ("*-name", True),
        ("a-very-long-program", False),
        ("a-very-long-program-name-2", False),
        ("a-very-long-pr", False),
    ],
)
def test_a_long_pattern_is_compared_with_the_long_name(name: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert matches(Match(name=(name,)), CUT) is expected


def test_a_long_name_that_is_not_known_matches_no_long_pattern() -> None:
    unknown = CUT._replace(long_name=None)

    assert not matches(Match(name=("a-very-long-program-name",)), unknown)
    assert matches(Match(name=("a-very-long-pro",)), unknown)


# -- proof -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exe", "oom_score_adj", "workers", "expected"),
    [
        (Exe("/x", proven=True), -900, None, True),
        (Exe("/x", proven=False), -900, None, False),
        (Exe("/x", proven=False), 0, None, True),
        (Exe("/x", proven=False), 900, None, True),
        (Exe("/x", proven=False), 100, -1, False),  # a worker would be protected
        (Exe("/x", proven=True), 100, -1, True),
        (Exe("/x", proven=False), 100, 200, True),
    ],
)
def test_protection_asks_for_proof_of_the_program(
    exe: Exe,
    oom_score_adj: int,
    workers: int | None,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    rule = Rule("r", Match(exe=("/x",)), oom_score_adj, workers=workers)

    assert (first_match(compiled([rule]), PROCESS._replace(exe=exe)) is rule) is expected


SYSTEM_UNIT = Units("postgresql.service", None)
FORGED_UNIT = Units("user@1000.service", "postgresql.service")
DATABASE = Match(unit=("postgresql.service",))
OF_ALICE = Match(unit=("postgresql.service",), user=(ALICE,))


@pytest.mark.parametrize(
    ("match", "units", "oom_score_adj", "expected"),
    [
        (DATABASE, SYSTEM_UNIT, -900, True),
        (DATABASE, FORGED_UNIT, -900, False),
        (DATABASE, FORGED_UNIT, 0, True),
        (DATABASE, FORGED_UNIT, 500, True),
        (OF_ALICE, FORGED_UNIT, -900, True),
        (OF_ALICE, SYSTEM_UNIT, -900, True),
    ],
)
def test_units_that_a_user_can_name_protect_only_where_the_rule_names_the_user(
    match: Match,
    units: Units,
    oom_score_adj: int,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    assert matches(match, PROCESS._replace(units=units), oom_score_adj) is expected


def test_workers_below_zero_ask_for_the_same_proof() -> None:
    rule = Rule("r", DATABASE, 100, workers=-500)

    assert first_match(compiled([rule]), PROCESS._replace(units=FORGED_UNIT)) is None


# -- many rules ------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        Rule("other", Match(name=("perl",)), -1),
        Rule("first", Match(name=("python*",)), 0),
        Rule("second", Match(name=("python3",)), -900),
    ]

    assert first_match(compiled(rules), PROCESS) is rules[1]
    assert first_match(compiled(rules[::-1]), PROCESS) is rules[2]


def test_without_rules_nothing_matches() -> None:
    assert first_match(compiled([]), PROCESS) is None


names = st.sampled_from(["python3", "perl", "py*", "*", "?erl"])
rules = st.lists(
    st.builds(lambda name, adj: Rule("r", Match(name=(name,)), adj), names, st.just(1))
)


@given(rules, rules, st.sampled_from(["python3", "perl", "sh"]))
def test_rules_put_behind_never_change_who_decides(
    first: list[Rule], behind: list[Rule], comm: str
) -> None:
    process = PROCESS._replace(comm=comm)
    before = first_match(compiled(first), process)

    after = first_match(compiled(first + behind), process)

    assert before is None or after is before


def test_the_first_key_that_fails_is_named_the_cheapest_first() -> None:
    match = Match(name=("python3",), cmdline=("never",), user=(User("bob", 1001),), unit=("x",))
    [rule] = compiled([Rule("r", match, 1)])

    assert rule.first_failed(PROCESS) == "user"
    assert rule.first_failed(PROCESS._replace(uid=1001)) == "unit"
    assert rule.first_failed(PROCESS._replace(uid=1001, units=Units("x", None))) == "cmdline"
    assert rule.first_failed(PROCESS._replace(comm="sh")) == "name"


def test_every_key_of_a_match_is_a_condition() -> None:
    """A key that were forgotten would match everything."""
    for key in fields(Match):
        items: Any = (User("x", 4711),) if key.name == "user" else ("no-such-thing",)
        [rule] = compiled([Rule("r", Match(**{key.name: items}), 1)])

        assert rule.first_failed(PROCESS) == key.name


def test_a_pattern_that_nobody_checked_is_an_error_of_re() -> None:
    with pytest.raises(re.error):
        compiled([Rule("r", Match(cmdline=("(",)), 1)])


# -- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "needed"),
    [
        (Match(name=("python3",)), Needs()),
        (Match(name=("py?hon",)), Needs()),
        (Match(name=("a-very-long-pro",)), Needs()),
        (Match(name=("a-very-long-prog",)), Needs(long_name=True)),
        (Match(name=("python*",)), Needs(long_name=True)),
        (Match(name=("möööööööö",)), Needs(long_name=True)),  # 9 characters, 17 bytes
        (Match(script=("train.py",)), Needs(cmdline=True)),
        (Match(script=("job/train.py",)), Needs(cmdline=True, working_directory=True)),
        (Match(cmdline=("x",)), Needs(cmdline=True)),
        (Match(exe=("/x",)), Needs(exe=("/x",))),
        (Match(user=(ALICE,)), Needs(uid=True)),
        (Match(unit=("x.service",)), Needs(cgroup=True)),
        (Match(cgroup=("/x",)), Needs(cgroup=True)),
    ],
)
def test_no_more_is_read_than_the_rules_ask_for(match: Match, needed: Needs) -> None:
    assert needs([Rule("r", match, 1)]) == needed


def test_the_needs_of_all_rules_are_added_up() -> None:
    rules = [Rule("a", Match(exe=("/x",)), 1), Rule("b", Match(user=(ALICE,)), 1)]

    assert needs(rules) == Needs(exe=("/x",), uid=True)
    assert needs([]) == Needs()


values = st.sampled_from(["a", "b/c", "*", "a-long-name-of-20-char"])
lists = st.lists(values, max_size=2).map(tuple)
any_match = st.builds(
    Match,
    name=lists,
    script=lists,
    exe=lists,
    unit=lists,
    cgroup=lists,
    user=st.sampled_from([(), (ALICE,)]),
)


@given(any_match, any_match, st.sampled_from(["a", "b", "a-long-name-of-"]))
def test_what_is_not_needed_changes_nothing(one: Match, two: Match, comm: str) -> None:
    """A process of which only the needed was read falls under the same rule as one read in full."""
    rules = [Rule("one", one, -1), Rule("two", two, 1)]
    full = Process(
        ProcessId(7, 1), 1, comm, "a-long-name-of-20-char" if len(comm) == 15 else None,
        "a b/c", "b/c", "/b/c", Exe("a", proven=True), 1000, Units("a", "b"), "a",
    )  # fmt: skip
    asked = needs(rules)
    read = full._replace(
        long_name=full.long_name if asked.cmdline or asked.long_name else None,
        cmdline=full.cmdline if asked.cmdline else None,
        script=full.script if asked.cmdline else None,
        script_path=full.script_path if asked.working_directory else None,
        exe=full.exe if asked.exe else None,
        uid=full.uid if asked.uid else None,
        units=full.units if asked.cgroup else None,
        cgroup=full.cgroup if asked.cgroup else None,
    )
    ready = compiled(rules)

    assert first_match(ready, read) is first_match(ready, full)
