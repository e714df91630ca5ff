"""What a value should be, and what it would be without us: a table of cases, and the laws."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.model import Match, Rule
from oomwatchd.policy.plan import Claim, Decision, Standing, decide

ANY = Match(name=("x",))
RESET = Rule("db", ANY, -900, descendants="reset")
INHERIT = Rule("db", ANY, 500, descendants="inherit")
WORKERS = Rule("db", ANY, -900, workers=-200, descendants="reset")
NO_WORKERS = Rule("db", ANY, -900, workers=0, descendants="reset")
UNKILLABLE = Rule("db", ANY, -1000, unkillable=True, descendants="reset")
ZERO = Rule("db", ANY, 0)
OTHER = Rule("other", ANY, 300)


def claim(*ours: int, before: int = 0, standing: Standing = "matched", rule: str = "db") -> Claim:
    return Claim(rule, standing, before, frozenset(ours))


def by_name(*rules: Rule) -> Mapping[str, Rule]:
    return {rule.name: rule for rule in rules}


# -- a match ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "now", "own", "parent", "expected"),
    [
        # nothing is known yet
        (RESET, 0, None, None, Decision(-900, claim(-900))),
        (RESET, 17, None, None, Decision(-900, claim(-900, before=17))),
        (ZERO, -17, None, None, Decision(0, claim(0, before=-17))),
        # it has the value already: nothing is written, and nothing will be put back
        (RESET, -900, None, None, Decision(None, claim(before=-900))),
        (ZERO, 0, None, None, Decision(None, claim(before=0))),
        # again, after it was done
        (RESET, -900, claim(-900), None, Decision(None, claim(-900))),
        # another value now: by a reload, by somebody else
        (INHERIT, -900, claim(-900), None, Decision(500, claim(-900, 500))),
        (RESET, 33, claim(-900), None, Decision(-900, claim(-900))),
        # a rule takes over from another: what was before either is what counts
        (OTHER, -900, claim(-900, before=4), None,
         Decision(300, claim(-900, 300, before=4, rule="other"))),
        (RESET, -900, claim(500, -900, standing="heir"), None, Decision(None, claim(500, -900))),
        (RESET, 0, claim(-900, standing="released"), None, Decision(-900, claim(-900))),
    ],
)  # fmt: skip
def test_a_match_gets_the_rule_s_value_and_its_own_is_remembered(
    rule: Rule, now: int, own: Claim | None, parent: Claim | None, expected: Decision
) -> None:
    assert decide(rule, now, own, parent, by_name(rule)) == expected


@pytest.mark.parametrize(
    ("rule", "parent", "wanted"),
    [
        (WORKERS, None, -900),
        (WORKERS, claim(-900), -200),
        (WORKERS, claim(before=-900), -200),  # the parent had the value already
        (NO_WORKERS, claim(-900), 0),
        (RESET, claim(-900), -900),
        (WORKERS, claim(300, rule="other"), -900),
        (WORKERS, claim(-900, standing="heir"), -900),
        (WORKERS, claim(-900, standing="released"), -900),
    ],
)
def test_a_worker_is_a_match_whose_parent_matches_the_same_rule(
    rule: Rule, parent: Claim | None, wanted: int
) -> None:
    decision = decide(rule, 7, None, parent, by_name(rule))

    assert decision is not None
    assert decision.wanted == wanted


def test_a_worker_s_own_value_is_that_of_its_parent_before_us() -> None:
    inherited = decide(WORKERS, -900, None, claim(-900, before=5), by_name(WORKERS))
    its_own = decide(WORKERS, 33, None, claim(-900, before=5), by_name(WORKERS))

    assert inherited == Decision(-200, claim(-900, -200, before=5))
    assert its_own == Decision(-200, claim(-200, before=33))


@pytest.mark.parametrize(
    ("now", "guarded", "expected"),
    [
        (0, False, Decision(-1000, claim(-1000), unkillable=True)),
        (0, True, Decision(-999, claim(-999), unkillable=True)),
        (-1000, True, Decision(-999, claim(-999, before=-1000), unkillable=True)),
        (-999, False, Decision(-1000, claim(-1000, before=-999), unkillable=True)),
    ],
)
def test_the_guard_takes_the_last_step_back(now: int, guarded: bool, expected: Decision) -> None:  # noqa: FBT001 - a table
    rules = by_name(UNKILLABLE)

    assert decide(UNKILLABLE, now, None, None, rules, guarded=guarded) == expected


def test_the_guard_concerns_minus_1000_alone() -> None:
    decision = decide(RESET, 0, None, None, by_name(RESET), guarded=True)

    assert decision == Decision(-900, claim(-900))


# -- no match --------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [-1000, -900, 0, 500])
def test_who_has_nothing_to_do_with_us_is_left_alone(now: int) -> None:
    assert decide(None, now, None, None, by_name(RESET)) is None


def test_a_child_that_matches_nothing_does_not_keep_what_it_inherited() -> None:
    decision = decide(None, -900, None, claim(-900, before=3), by_name(RESET))

    assert decision == Decision(3, claim(-900, before=3, standing="released"))


def test_a_child_keeps_it_where_the_rule_says_so() -> None:
    decision = decide(None, 500, None, claim(500, before=3), by_name(INHERIT))

    assert decision == Decision(None, claim(500, before=3, standing="heir"))


@pytest.mark.parametrize("rule", [RESET, INHERIT])
@pytest.mark.parametrize("now", [0, 3, -17])
def test_a_child_with_a_value_that_is_not_ours_is_left_alone(rule: Rule, now: int) -> None:
    parent = claim(rule.oom_score_adj, before=3)

    assert decide(None, now, None, parent, by_name(rule)) is None


def test_the_child_of_one_who_had_the_value_before_us_keeps_it() -> None:
    parent = decide(RESET, -900, None, None, by_name(RESET))

    assert parent is not None
    assert decide(None, -900, None, parent.claim, by_name(RESET)) is None


def test_an_heir_has_heirs() -> None:
    heir = claim(500, standing="heir")

    assert decide(None, 500, None, heir, by_name(INHERIT)) == Decision(None, heir)


def test_an_heir_stays_one_when_its_parent_has_ended() -> None:
    heir = claim(500, standing="heir")

    assert decide(None, 500, heir, None, by_name(INHERIT)) == Decision(None, heir)


@pytest.mark.parametrize("rules", [by_name(), by_name(RESET), by_name(OTHER)])
def test_an_heir_gets_its_own_value_back_when_the_rule_goes(rules: Mapping[str, Rule]) -> None:
    heir = claim(500, before=3, standing="heir")

    assert decide(None, 500, heir, claim(500), rules) == Decision(
        3, heir._replace(standing="released")
    )


def test_a_match_between_fork_and_exec_becomes_an_heir_of_the_same_rule() -> None:
    """The child of a match is one, too, until it execs."""
    was_match = claim(500)

    assert decide(None, 500, was_match, claim(500), by_name(INHERIT)) == Decision(
        None, claim(500, standing="heir")
    )
    assert decide(None, 500, was_match, claim(500, rule="other"), by_name(INHERIT)) == Decision(
        0, claim(500, standing="released")
    )


@pytest.mark.parametrize(
    ("now", "own", "wanted"),
    [
        (-900, claim(-900, before=3), 3),
        (-900, claim(-900, 500, before=3), 3),  # an earlier value of ours
        (500, claim(-900, 500, before=3), 3),
        (-17, claim(-900, before=3), None),  # somebody else's: stays
        (3, claim(-900, before=3), None),  # it is back already
        (-900, claim(before=-900), None),  # we never wrote anything
        (-900, claim(-900, 0, before=0), 0),
        (0, claim(-900, 0, before=0), None),
    ],
)
def test_out_of_every_rule_the_old_value_comes_back_if_ours_still_stands(
    now: int, own: Claim, wanted: int | None
) -> None:
    decision = decide(None, now, own, None, by_name(RESET))

    assert decision == Decision(wanted, own._replace(standing="released"))


def test_a_child_forked_before_its_parent_was_released_gets_the_old_value_too() -> None:
    released = claim(-900, before=3, standing="released")

    assert decide(None, -900, None, released, by_name(RESET)) == Decision(3, released)
    assert decide(None, 500, None, claim(500, standing="released"), by_name(INHERIT)) == Decision(
        0, claim(500, standing="released")
    )


# -- laws ------------------------------------------------------------------------------------------

scores = st.sampled_from([-1000, -999, -900, -200, 0, 3, 500, 1000])  # few, so that they meet
standings: st.SearchStrategy[Standing] = st.sampled_from(["matched", "heir", "released"])
rules = st.builds(
    Rule,
    st.sampled_from(["db", "other"]),
    st.just(ANY),
    scores,
    workers=st.none() | scores,
    descendants=st.sampled_from(["reset", "inherit"]),
)
claims = st.builds(
    Claim, st.sampled_from(["db", "other"]), standings, scores, st.frozensets(scores, max_size=3)
)


class Case(NamedTuple):
    rule: Rule | None
    now: int
    own: Claim | None
    parent: Claim | None
    rules: Mapping[str, Rule]
    guarded: bool

    def decide(self) -> Decision | None:
        return decide(*self[:5], guarded=self.guarded)

    def after(self, decision: Decision) -> "Case":
        now = self.now if decision.wanted is None else decision.wanted
        return self._replace(now=now, own=decision.claim)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    in_force = by_name(*draw(st.lists(rules, max_size=2)))
    rule = draw(st.sampled_from([None, *in_force.values()]))
    own, parent = draw(st.none() | claims), draw(st.none() | claims)
    return Case(rule, draw(scores), own, parent, in_force, draw(st.booleans()))


@given(cases())
def test_a_decision_carried_out_leaves_nothing_to_want(case: Case) -> None:
    decision = case.decide()
    if decision is None:
        return
    again = case.after(decision).decide()

    assert again is not None
    assert again.wanted is None


@given(cases())
def test_what_is_written_is_always_remembered_as_ours(case: Case) -> None:
    decision = case.decide()
    if decision is None or decision.wanted is None or case.rule is None:
        return

    assert decision.wanted in decision.claim.ours
    assert decision.wanted != case.now


@given(cases())
def test_who_leaves_every_rule_has_the_value_from_before(case: Case) -> None:
    """Whatever the rules did to it, if nobody else touched it."""
    first = case._replace(own=None, parent=None).decide()
    if first is None:
        return
    held = case._replace(parent=None).after(first)
    left = held._replace(rule=None, rules={}).decide()

    assert left is not None
    assert (held.now if left.wanted is None else left.wanted) == case.now


@given(cases())
def test_a_value_of_somebody_else_s_is_never_overwritten_without_a_rule(case: Case) -> None:
    decision = case._replace(rule=None).decide()
    ours = {
        value for one in (case.own, case.parent) if one is not None for value in one.ours
    }  # fmt: skip
    if case.now in ours or decision is None:
        return

    assert decision.wanted is None


@given(cases())
def test_only_a_rule_of_minus_1000_makes_unkillable(case: Case) -> None:
    decision = case.decide()
    if decision is None or decision.wanted != -1000:
        return

    befores = [one.before for one in (case.own, case.parent) if one is not None]
    assert decision.unkillable or -1000 in befores
    assert not (decision.unkillable and case.guarded)
