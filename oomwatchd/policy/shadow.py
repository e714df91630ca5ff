"""Whether a later rule can never be reached, as an earlier one matches all that it could match.

Only what is certain is told.  What is compared here are the patterns of both rules; how they are
matched is in `policy.rules`.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from operator import eq
from typing import Final, TypeVar

from oomwatchd.model import Rule, User

T = TypeVar("T")

WILDCARD: Final = re.compile(r"[*?\[]")


def shadowing(earlier: Sequence[Rule], later: Rule) -> Rule | None:
    """The first of the *earlier* rules that leaves nothing to the *later* one."""
    return next((rule for rule in earlier if takes_all(rule, later)), None)


def takes_all(earlier: Rule, later: Rule) -> bool:
    if asks_for_more_proof(earlier, later):
        return False
    first, second = earlier.match, later.match
    return (
        covers(first.name, second.name, glob_covers)
        and covers(first.script, second.script, script_covers)
        and covers(first.cmdline, second.cmdline, eq)
        and covers(first.exe, second.exe, glob_covers)
        and covers(first.user, second.user, user_covers)
        and covers(first.unit, second.unit, glob_covers)
        and covers(first.cgroup, second.cgroup, glob_covers)
    )


def asks_for_more_proof(earlier: Rule, later: Rule) -> bool:
    """Whether the same words match less in the *earlier* rule.

    A rule that protects accepts only a program proven to be the file at the path, and only units
    of the system, unless it names the user.
    """
    if earlier.match.exe and earlier.protects and not later.protects:
        return True
    return bool(earlier.match.unit) and system_units_only(earlier) and not system_units_only(later)


def system_units_only(rule: Rule) -> bool:
    return rule.protects and not rule.match.user


def covers(earlier: Sequence[T], later: Sequence[T], one_covers: Callable[[T, T], bool]) -> bool:
    """Whether a key of the *earlier* rule lets through all that the *later* rule's key does."""
    if not earlier:  # a key that is not given asks for nothing
        return True
    if not later:
        return False
    return all(
        item in earlier or any(one_covers(candidate, item) for candidate in earlier)
        for item in later
    )


def glob_covers(earlier: str, later: str) -> bool:
    """Whether the pattern *earlier* matches each text that the pattern *later* matches."""
    if not earlier.strip("*"):
        return True
    first = WILDCARD.search(earlier)
    if first is None or not later.startswith(earlier[: first.start()]) or WILDCARD.search(later):
        return False
    return fnmatchcase(later, earlier)


def script_covers(earlier: str, later: str) -> bool:
    """Patterns with ``/`` are for paths, those without for basenames: both or neither."""
    if not earlier.strip("*"):
        return True
    return ("/" in earlier) == ("/" in later) and glob_covers(earlier, later)


def user_covers(earlier: User, later: User) -> bool:
    return earlier.name == later.name or (earlier.uid is not None and earlier.uid == later.uid)
