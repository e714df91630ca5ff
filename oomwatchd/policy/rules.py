"""Which rule a process falls under, and what has to be read of it to know.

Pure: takes records, gives records.  `oomwatchd explain` and the daemon ask the same functions, so
what the one prints is what the other does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from oomwatchd.model import Match, Needs, Process, Rule, User
from oomwatchd.policy.patterns import globbed, searched

COMM_LIMIT_BYTES: Final = 15
MATCH_SECONDS: Final = 0.025  # what all patterns may take on one process; see `patterns`
Condition = Callable[[Process], bool]


class CompiledRule(NamedTuple):
    rule: Rule
    conditions: tuple[tuple[str, Condition], ...]  # by key, the cheapest first

    def first_failed(self, process: Process) -> str | None:
        """The first key that does not match, in the order of asking; None if all match."""
        for key, holds in self.conditions:
            if not holds(process):
                return key
        return None

    def hangs_on(self, process: Process) -> str | None:
        """The first key that fails, if all that fail do so for what could not be read."""
        unread = unread_keys(self.rule.match, process)
        failed = [key for key, holds in self.conditions if unread and not holds(process)]
        return failed[0] if failed and unread.issuperset(failed) else None


def compiled(rules: Iterable[Rule]) -> tuple[CompiledRule, ...]:
    """The rules made ready; raises re.error for a pattern that `config` has not checked."""
    return tuple(CompiledRule(rule, tuple(conditions(rule))) for rule in rules)


def first_match(rules: Sequence[CompiledRule], process: Process) -> Rule | None:
    """The first rule in file order wins; there is no merging of rules."""
    for candidate in rules:
        if candidate.first_failed(process) is None:
            return candidate.rule
    return None


def candidates(rules: Iterable[CompiledRule], process: Process) -> tuple[CompiledRule, ...]:
    """Those that *process* may fall under by its name and script, whoever's and wherever it is."""
    return tuple(
        rule
        for rule in rules
        if all(holds(process) for key, holds in rule.conditions if key in ("name", "script"))
    )


def needs(rules: Iterable[Rule]) -> Needs:
    """What must be read of a process to match it against *rules*."""
    matches = [rule.match for rule in rules]
    return Needs(
        cmdline=any(match.cmdline or match.script for match in matches),
        long_name=any(map(asks_for_long_name, matches)),
        exe=tuple(dict.fromkeys(pattern for match in matches for pattern in match.exe)),
        uid=any(match.user for match in matches),
        cgroup=any(match.unit or match.cgroup for match in matches),
        working_directory=any("/" in pattern for match in matches for pattern in match.script),
    )


def unread_keys(match: Match, process: Process) -> set[str]:
    """The keys of *match* that ask for what only the owner, and root, may read: links to files."""
    found = set()
    if match.exe and process.exe is None:
        found.add("exe")
    by_path = any("/" in pattern for pattern in match.script)
    if by_path and process.script is not None and process.script_path is None:
        found.add("script")
    return found


def asks_for_long_name(match: Match) -> bool:
    """Whether a name could be longer than what the kernel keeps of it."""
    return any(len(name.encode()) > COMM_LIMIT_BYTES or "*" in name for name in match.name)


def conditions(rule: Rule) -> Iterator[tuple[str, Condition]]:
    match = rule.match
    if match.name:
        yield "name", name_is(globbed(match.name))
    if match.user:
        yield "user", user_is(match.user)
    if match.script:
        yield "script", script_is(match.script)
    if match.exe:
        yield "exe", exe_is(globbed(match.exe), proof=rule.protects)
    if match.unit:
        yield "unit", unit_is(globbed(match.unit), system_only=rule.protects and not match.user)
    if match.cgroup:
        yield "cgroup", cgroup_is(globbed(match.cgroup))
    if match.cmdline:
        yield "cmdline", cmdline_has(searched(match.cmdline))


def name_is(test: Callable[[str], bool]) -> Condition:
    def holds(process: Process) -> bool:
        if test(process.comm):
            return True
        return process.long_name is not None and test(process.long_name)

    return holds


def user_is(users: Sequence[User]) -> Condition:
    uids = frozenset(user.uid for user in users if user.uid is not None)
    return lambda process: process.uid in uids


def script_is(patterns: Sequence[str]) -> Condition:
    """A pattern without ``/`` is for the basename, one with it for the path as given or in full."""
    of_basename = globbed([pattern for pattern in patterns if "/" not in pattern])
    of_path = globbed([pattern for pattern in patterns if "/" in pattern])

    def holds(process: Process) -> bool:
        if process.script is None:
            return False
        return (
            of_basename(process.script.rpartition("/")[2])
            or of_path(process.script)
            or (process.script_path is not None and of_path(process.script_path))
        )

    return holds


def exe_is(test: Callable[[str], bool], *, proof: bool) -> Condition:
    """With *proof*, the file has to be the one that this machine has at the path."""

    def holds(process: Process) -> bool:
        exe = process.exe
        return exe is not None and (exe.proven or not proof) and test(exe.path)

    return holds


def unit_is(test: Callable[[str], bool], *, system_only: bool) -> Condition:
    """With *system_only*, units of a user's own manager do not count: anybody can name one so."""

    def holds(process: Process) -> bool:
        if process.units is None:
            return False
        system, user = process.units
        if system is not None and test(system):
            return True
        return not system_only and user is not None and test(user)

    return holds


def cgroup_is(test: Callable[[str], bool]) -> Condition:
    return lambda process: process.cgroup is not None and test(process.cgroup)


def cmdline_has(test: Callable[[str], bool]) -> Condition:
    return lambda process: process.cmdline is not None and test(process.cmdline)
