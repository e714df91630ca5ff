import pytest

from oomwatchd.model import Exe, Match, Process, ProcessId, Rule, Units, User
from oomwatchd.policy.rules import compiled, first_match
from oomwatchd.policy.shadow import shadowing, takes_all

ALICE = User("alice", 1000)


def rule(match: Match, *, oom_score_adj: int = 100, name: str = "r") -> Rule:
    return Rule(name, match, oom_score_adj)


ALWAYS = [  # the earlier rule's match, the later's
    (Match(name=("a",)), Match(name=("a",))),
    (Match(name=("a", "b")), Match(name=("b",))),
    (Match(name=("a",)), Match(name=("a",), user=(ALICE,))),
    (Match(name=("py*",)), Match(name=("python3", "python3.11"))),
    (Match(name=("[ab]?",)), Match(name=("ax",))),
    (Match(name=("*",)), Match(name=("py*", "ruby"))),
    (Match(name=("*-long",)), Match(name=("longer-than-the-kernel-keeps-long",))),
    (Match(script=("*",)), Match(script=("/srv/*.py",))),
    (Match(script=("/srv/*",)), Match(script=("/srv/a/train.py",))),
    (Match(script=("train*",)), Match(script=("train.py",), name=("python*",))),
    (Match(cmdline=("--a",)), Match(cmdline=("--a",), name=("x",))),
    (Match(exe=("/usr/bin/*",)), Match(exe=("/usr/bin/vim",))),
    (Match(unit=("a@*.service",)), Match(unit=("a@1.service", "a@2.service"))),
    (Match(cgroup=("/user.slice/*",)), Match(cgroup=("/user.slice/user-1000.slice",))),
    (Match(user=(ALICE,)), Match(user=(User("1000", 1000),), name=("a",))),
    (Match(user=(User("gone", None),)), Match(user=(User("gone", None),))),
]
NOT_ALWAYS = [
    (Match(name=("a",)), Match(name=("a", "b"))),
    (Match(name=("a",)), Match(user=(ALICE,))),
    (Match(name=("a",), user=(ALICE,)), Match(name=("a",))),
    (Match(name=("python3",)), Match(name=("py*",))),
    (Match(name=("py*",)), Match(name=("p*",))),
    (Match(name=("a",)), Match(script=("a",))),
    (Match(script=("*.py",)), Match(script=("/srv/train.py",))),
    (Match(script=("/srv/train.py",)), Match(script=("train.py",))),
    (Match(cmdline=(".*",)), Match(cmdline=("a",))),
    (Match(user=(ALICE,)), Match(user=(User("bob", 1001),))),
    (Match(user=(User("gone", None),)), Match(user=(User("lost", None),))),
    (Match(cgroup=("/User.slice/*",)), Match(cgroup=("/user.slice/a",))),
]


@pytest.mark.parametrize(("earlier", "later"), ALWAYS)
def test_a_rule_is_out_of_reach_when_all_it_matches_is_taken(earlier: Match, later: Match) -> None:
    first = rule(earlier)

    assert shadowing([first], rule(later)) is first


@pytest.mark.parametrize(("earlier", "later"), NOT_ALWAYS)
def test_a_rule_that_could_match_something_is_let_be(earlier: Match, later: Match) -> None:
    assert shadowing([rule(earlier)], rule(later)) is None


def test_the_first_rule_in_the_way_is_named() -> None:
    others = [rule(Match(name=(name,)), name=name) for name in ("b", "a", "*")]

    blocking = shadowing(others, rule(Match(name=("a",))))

    assert blocking is others[1]


def test_no_single_rule_is_in_the_way_of_one_that_two_share() -> None:
    """They do take all of it, but to be sure of that in general would take much more code."""
    others = [rule(Match(name=(name,))) for name in ("a", "b")]

    assert shadowing(others, rule(Match(name=("a", "b")))) is None


def test_a_rule_that_asks_for_a_proven_program_leaves_the_others() -> None:
    strict, lax = (rule(Match(exe=("/usr/bin/a",)), oom_score_adj=value) for value in (-500, 500))

    assert shadowing([strict], lax) is None
    assert shadowing([lax], strict) is lax


def test_a_rule_for_units_of_the_system_leaves_those_of_users() -> None:
    unit = ("a.service",)
    strict = rule(Match(unit=unit), oom_score_adj=-500)
    of_alice = rule(Match(unit=unit, user=(ALICE,)), oom_score_adj=-500)

    assert shadowing([strict], of_alice) is None
    assert shadowing([strict], rule(Match(unit=unit), oom_score_adj=-1)) is strict


GLOBS = ["a", "b", "ab", "a*", "*b", "?", "*", "**", "[ab]", "a?", "ab*a", "a" * 16, "a" * 15 + "*"]
PATHS = ["/a", "/a/b", "/*", "*", "*/b", "/a/*", "b", "a*", "?b", "/[ab]"]
PATTERNS = {
    "name": GLOBS,
    "script": PATHS,
    "cmdline": ["a", "b", "a.*"],
    "exe": PATHS,
    "unit": GLOBS,
    "cgroup": PATHS,
}
TEXTS = ["a", "b", "ab", "abba", "a" * 15, "/a", "/a/b", "/b", "/a/a/b"]


def processes() -> list[Process]:
    """Every text in every place, with and without proof."""
    return [
        Process(
            ProcessId(7, 1),
            1,
            comm=text,
            long_name=long_name,
            cmdline=text,
            script=text,
            script_path=path,
            exe=Exe(text, proven=proven),
            uid=1000,
            units=units,
            cgroup=text,
        )
        for text in TEXTS
        for path in ("/a/b", "/b")
        for long_name in (None, "a" * 16)
        for proven in (False, True)
        for units in (Units(text, None), Units("user@1000.service", text))
    ]


def rules_of(key: str) -> list[Rule]:
    lists = [(first, second) for first in PATTERNS[key] for second in PATTERNS[key]]
    return [
        rule(Match(**{key: items}, user=user), oom_score_adj=value)
        for items in lists
        for user in ((), (ALICE,))
        for value in (-500, 500)
    ]


@pytest.mark.parametrize("key", PATTERNS)
def test_what_is_out_of_reach_matches_nothing_that_is_left(key: str) -> None:
    seen = processes()
    rules = rules_of(key)
    matched = [
        frozenset(index for index, process in enumerate(seen) if first_match([one], process))
        for one in compiled(rules)
    ]

    taken = [
        (earlier, later)
        for earlier, earlier_rule in enumerate(rules)
        for later, later_rule in enumerate(rules[::7])
        if takes_all(earlier_rule, later_rule)
    ]

    assert len(taken) > len(rules)
    assert all(matched[later * 7] <= matched[earlier] for earlier, later in taken)
