"""Globs, regular expressions, and the time that a hostile text can make them take."""

import fnmatch
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oomwatchd.kernel.deadline import Deadline
from oomwatchd.model import CMDLINE_LIMIT_BYTES, Match, Process, ProcessId, Rule
from oomwatchd.policy.patterns import TooSlow, globbed, one_attempt, searched
from oomwatchd.policy.rules import MATCH_SECONDS, compiled, first_match

# -- globs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "matching", "others"),
    [
        (["cat"], ["cat"], ["", "ca", "cats", "xcat", "Cat", "cat\n"]),
        (["python*"], ["python", "python3.11"], ["xpython", "Python3"]),
        (["train?.py"], ["train1.py", "train\n.py"], ["train.py", "train12.py"]),
        (["[ab]c", "x"], ["ac", "bc", "x"], ["cc", "[ab]c", "xx"]),
        (["[!a]"], ["b", "\n"], ["a", ""]),
        (["a.c"], ["a.c"], ["abc"]),
        (["*"], ["", "anything\nat all"], []),
        (["/opt/*/bin/*"], ["/opt/a/b/bin/c"], ["/opt/bin/c"]),
        (["a]b"], ["a]b"], ["ab"]),
        (["a+(b|c)"], ["a+(b|c)"], ["ab", "aab"]),
        ([], [], ["", "a"]),
    ],
)
def test_a_glob_matches_the_whole_text(
    patterns: list[str], matching: list[str], others: list[str]
) -> None:
    test = globbed(patterns)

    assert [text for text in [*matching, *others] if test(text)] == matching


glob_parts = st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[!a]", "+", "(", "\\", "\n", "]"])
globs = st.lists(glob_parts, min_size=1, max_size=6).map("".join)
texts = st.text("ab.+(\\\n]", max_size=8)


@given(st.lists(globs, max_size=4), texts)
def test_several_globs_match_what_any_of_them_matches(patterns: list[str], text: str) -> None:
    assert globbed(patterns)(text) == any(fnmatch.fnmatchcase(text, one) for one in patterns)


# -- regular expressions ---------------------------------------------------------------------------

atoms = st.sampled_from(
    [
        "a",
        "b",
        ".",
        r"\b",
        r"\B",
        "^",
        "$",
        r"\A",
        r"\Z",
        "[ab]",
        "[^a]",
        r"\s",
        "A",
        "#",
        " ",
        "\n",
    ]
)
regexes = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, inner).map("|".join),
        inner.map("({})".format),
        inner.map("(?:{})".format),
        inner.map("(?={})".format),
        inner.map("(?!{})".format),
        inner.map("(?i:{})".format),
        inner.map(r"({})\1".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{0,1}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)
flags = st.sampled_from(
    ["", "(?i)", "(?m)", "(?s)", "(?x)", "(?ix)", "(?i)(?m)", "(?x) (?i)", "(?a)", "(?#all)(?s)"]
)
subjects = st.text("abAB \n#c", max_size=8)


def is_regex(source: str) -> bool:
    try:
        re.compile(source)
    except re.error:
        return False
    return True


@given(flags, regexes, subjects)
@example("(?x)", "a # a comment)", "a")
@example("(?x) # why\n(?i)", "A+", "a")
@example("(?m)", "^b", "a\nb")
@example("", "a|b", "xb")
@example("", "^a|b$", "cb")
@example("", r"(?<=a)b", "ab")
@example("", r"(a)|b(?(1)x|y)", "by")
@example("", r"(?P<one>a)(?P=one)", "baa")
def test_one_attempt_finds_exactly_what_a_search_finds(flags: str, body: str, subject: str) -> None:
    source = flags + body
    if not is_regex(source):
        return
    found = re.search(source, subject) is not None

    assert (one_attempt(source).match(subject) is not None) == found
    assert searched([source])(subject) == found


@given(st.lists(regexes.filter(is_regex), max_size=4), subjects)
def test_several_regexes_find_what_any_of_them_finds(sources: list[str], subject: str) -> None:
    assert searched(sources)(subject) == any(re.search(one, subject) for one in sources)


@pytest.mark.parametrize("source", ["a(", "[", "*", "(?P<1>a)", "a{2,1}"])
def test_what_is_no_regex_is_refused_when_it_is_made_ready(source: str) -> None:
    with pytest.raises(re.error):
        searched([source])


# -- time ------------------------------------------------------------------------------------------

AB = "ab" * (CMDLINE_LIMIT_BYTES // 2)
HOSTILE = [
    (r"(a+)+$", "a" * (CMDLINE_LIMIT_BYTES - 1) + "!"),
    (r"(a|a)*$", "a" * (CMDLINE_LIMIT_BYTES - 1) + "!"),
    (r"(a|aa)+$", "a" * (CMDLINE_LIMIT_BYTES - 1) + "!"),
    (r"a.*b.*c.*d", AB),
    (r".*.*.*=.*", AB),
    (r"(x+x+)+y", "x" * CMDLINE_LIMIT_BYTES),
    (r"(.*a){12}c", AB),
    (r"([a-z]+)*\d", AB),
    (r"(?i)(A|B|ab)*c", AB),
    (r"^(([a-z])+.)+[A-Z]([a-z])+$", "a" * CMDLINE_LIMIT_BYTES),
    (r"(?:(?=(a+))\1b?)*c", AB),
    (r"(ab|ba|a|b)*?c", AB),
    (r"\b\w+\s*(\w+\s*)*--train$", "a " * (CMDLINE_LIMIT_BYTES // 2)),
    (r"(?=.*b.*b.*b.*c)a", AB),
    (r"(?<!x)(a?b?)*(a?b?)*c", AB),
]
MARGIN_SECONDS = 0.075  # from one look of the engine for signals to the next, and the timer's tick
ALL_AT_ONCE_SECONDS = MATCH_SECONDS + MARGIN_SECONDS  # 0.1 s, the bound of the contract


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(MATCH_SECONDS, TooSlow)


def process(cmdline: str) -> Process:
    return Process(ProcessId(7, 1), 1, "python3", cmdline=cmdline)


def seconds_to_match(sources: list[str], cmdline: str, deadline: Deadline) -> tuple[float, bool]:
    """Processor time, as others on the machine are not what is measured; and whether it gave up."""
    rules = compiled([Rule("hostile", Match(cmdline=tuple(sources)), -900)])
    started, gave_up = time.process_time(), False
    try:
        with deadline:
            first_match(rules, process(cmdline))
    except TooSlow:
        gave_up = True
    return time.process_time() - started, gave_up


@pytest.mark.parametrize(("source", "cmdline"), HOSTILE, ids=[source for source, _ in HOSTILE])
def test_a_hostile_command_line_holds_us_no_longer_than_the_bound(
    source: str, cmdline: str, deadline: Deadline
) -> None:
    seconds, _ = seconds_to_match([source], cmdline, deadline)

    assert seconds < ALL_AT_ONCE_SECONDS


def test_the_bound_is_for_all_patterns_together(deadline: Deadline) -> None:
    sources = [source for source, _ in HOSTILE]
    taken = [seconds_to_match(sources, cmdline, deadline) for _, cmdline in HOSTILE]

    assert max(seconds for seconds, _ in taken) < ALL_AT_ONCE_SECONDS
    assert any(gave_up for _, gave_up in taken)


def test_most_of_these_are_hostile_indeed(deadline: Deadline) -> None:
    """Else the tests above would prove nothing."""
    given_up = [seconds_to_match([source], text, deadline)[1] for source, text in HOSTILE]

    assert sum(given_up) >= 8


def test_globs_of_many_stars_hold_us_no_longer_either(deadline: Deadline) -> None:
    rules = compiled([Rule("x", Match(script=("*a*" * 40 + "c", "*/*" * 40)), -900)])
    looked_at = process("")._replace(script=AB, script_path=AB)
    started = time.process_time()
    try:
        with deadline:
            first_match(rules, looked_at)
    except TooSlow:
        pass

    assert time.process_time() - started < ALL_AT_ONCE_SECONDS


def test_time_in_which_others_run_does_not_count() -> None:
    """While memory is short, we may wait for our own pages; that must not cost the protection."""
    deadline = Deadline(MATCH_SECONDS, TooSlow)
    with deadline:
        time.sleep(MATCH_SECONDS * 3)


def test_a_deadline_comes_once_and_only_within_its_block(deadline: Deadline) -> None:
    with pytest.raises(TooSlow), deadline:
        spin(1.0)
    with deadline:
        pass

    spin(MATCH_SECONDS * 2)  # raises nothing


def spin(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
