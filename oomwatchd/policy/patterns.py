"""Globs and regular expressions, compiled once, and what bounds them."""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Final

Test = Callable[[str], bool]

WILDCARDS: Final = re.compile(r"[*?\[]")
REPEATS: Final = re.compile(r"[*+?{|]")  # without one of these a search takes linear time
# Global flags may stand at the very start alone, before which there may be comments, and in a
# verbose pattern white space.
FLAGS: Final = re.compile(r"(?:\(\?[aiLmsux]+\)|\(\?#[^)]*\))*")
FLAGS_VERBOSE: Final = re.compile(
    r"(?:\(\?[aiLmsux]+\)|\(\?#[^)]*\)|[ \t\n\r\v\f]|#[^\n]*(?:\n|$))*"
)


class TooSlow(Exception):
    """Matching one process took longer than it may."""


def globbed(patterns: Sequence[str]) -> Test:
    """A test that is true for text which any of the shell *patterns* matches as a whole."""
    plain = frozenset(pattern for pattern in patterns if not WILDCARDS.search(pattern))
    others = [fnmatch.translate(pattern) for pattern in patterns if pattern not in plain]
    if not others:
        return plain.__contains__
    matching = re.compile("|".join(f"(?:{other})" for other in others)).match
    return lambda text: text in plain or matching(text) is not None


def searched(sources: Sequence[str]) -> Test:
    """A test that is true for text in which any of the regular expressions *sources* is found.

    Whoever calls it sets a time limit, by a signal whose handler raises (see `kernel.deadline`).
    Python's engine looks for signals every 4,096 steps *within* one attempt at matching, but not
    between the attempts of a search, of which there is one at each position of the text: measured,
    ``a.*b.*c.*d`` searched in 4 KiB of "abab..." runs on for 1.8 s after the signal.  So what may
    take long is searched by one attempt, which begins with "anything"; it stops within 1 ms.

    Raises:  re.error.
    """
    tests = [re.compile(source).search for source in sources if not REPEATS.search(source)]
    tests += [one_attempt(source).match for source in sources if REPEATS.search(source)]
    return lambda text: any(test(text) for test in tests)


def one_attempt(source: str) -> re.Pattern[str]:
    """*source* so changed that ``match`` finds what ``search`` would find."""
    flags = re.compile(source).flags
    verbose = flags & re.VERBOSE
    bare = (FLAGS_VERBOSE if verbose else FLAGS).sub("", source, count=1)
    end = "\n" if verbose else ""  # so that a trailing comment does not hide the ")"
    return re.compile(f"(?s:.*?)(?:{bare}{end})", flags)
