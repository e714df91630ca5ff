"""What a process's value should be, and what it would be without us.

A child inherits the value of its parent, across fork, exec and setuid, and nothing resets it
(kernel/fork.c, copy_signal()).  So each process that we have changed carries a `Claim`: the value
to put back, and the values of ours that its children may have inherited.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from oomwatchd.model import ALMOST_UNKILLABLE, OOM_SCORE_ADJ_MIN, Rule

Standing = Literal["matched", "heir", "released"]


class Claim(NamedTuple):
    """Our mark on a process.

    "matched" falls under the rule; "heir" matches none and keeps the value it inherited, as the
    rule says; "released" has had its own value put back, and is remembered for what its children
    may have inherited before that.
    """

    rule: str
    standing: Standing
    before: int  # the value it would have had without us
    ours: frozenset[int] = frozenset()  # what we wrote or are about to write

    def means_the_same(self, other: "Claim | None") -> bool:
        """Whether it makes no difference to the children of the process."""
        return other is not None and (self.rule, self.standing) == (other.rule, other.standing)


class Decision(NamedTuple):
    """What to do, and what to remember."""

    wanted: int | None  # None: the value stays as it is
    claim: Claim
    unkillable: bool = False  # the rule wants -1000, whether or not the guard lets it


def value(rule: Rule, *, is_worker: bool) -> int:
    return rule.workers if is_worker and rule.workers is not None else rule.oom_score_adj


def decide(
    rule: Rule | None,
    now: int,
    own: Claim | None,
    parent: Claim | None,
    rules: Mapping[str, Rule],
    *,
    guarded: bool = False,
) -> Decision | None:
    """What is to become of a process that has the value *now* and matches *rule*; None: nothing.

    *own* and *parent* are the claims on it and on its parent, *rules* those in force, by name;
    *guarded* means that processes at -1000 hold too much memory, and go to -999.
    """
    if rule is not None:
        return matched(rule, now, own, parent, guarded=guarded)
    heir = heritage(now, own, parent, rules)
    if heir is not None:
        return Decision(None, heir)
    left = own if own is not None else passed_on(now, parent)
    return released(now, left) if left is not None else None


def matched(
    rule: Rule, now: int, own: Claim | None, parent: Claim | None, *, guarded: bool
) -> Decision:
    is_worker = parent is not None and parent.standing == "matched" and parent.rule == rule.name
    wanted = value(rule, is_worker=is_worker)
    unkillable = wanted == OOM_SCORE_ADJ_MIN
    if guarded and unkillable:
        wanted = ALMOST_UNKILLABLE
    source = own if own is not None else passed_on(now, parent)
    before = source.before if source is not None else now
    ours = source.ours if source is not None else frozenset()
    if wanted == now:
        return Decision(None, Claim(rule.name, "matched", before, ours), unkillable)
    return Decision(wanted, Claim(rule.name, "matched", before, ours | {wanted}), unkillable)


def heritage(
    now: int, own: Claim | None, parent: Claim | None, rules: Mapping[str, Rule]
) -> Claim | None:
    """The claim on a process that matches no rule and may keep our value; None if it may not."""
    kept: Claim | None
    if own is not None and own.standing == "heir":
        kept = own
    elif parent is None or parent.standing == "released":
        return None
    elif own is not None:  # it was a match itself, perhaps only between fork and exec
        kept = own if own.rule == parent.rule else None
    else:
        kept = passed_on(now, parent)
    if kept is None or now not in kept.ours:
        return None
    rule = rules.get(kept.rule)
    return kept._replace(standing="heir") if rule and rule.descendants == "inherit" else None


def released(now: int, claim: Claim) -> Decision:
    """Out of every rule: the value goes back, if it is still ours."""
    wanted = claim.before if now in claim.ours and now != claim.before else None
    return Decision(wanted, claim._replace(standing="released"))


def passed_on(now: int, parent: Claim | None) -> Claim | None:
    """The parent's claim, if the value *now* can only have come from what we did to the parent."""
    return parent if parent and now in parent.ours and now != parent.before else None
