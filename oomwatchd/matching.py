"""Which rule a process falls under: within a limit of time, and asked once for the same answers."""

from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple, TypeVar

from oomwatchd.identify import cgroup_of, placed
from oomwatchd.kernel.cgroup import in_kubernetes_pod
from oomwatchd.kernel.deadline import Deadline
from oomwatchd.kernel.proc import GONE, Look
from oomwatchd.model import Config, Needs, Process, Rule
from oomwatchd.policy.patterns import TooSlow
from oomwatchd.policy.plan import Claim
from oomwatchd.policy.rules import (
    MATCH_SECONDS,
    CompiledRule,
    candidates,
    compiled,
    first_match,
    needs,
)

# With each process that uses up the time for matching, those behind it have half as much, down to
# this: a user may have 65,536 users below him (subuid(5)), and so is not one, but many.
MATCH_LEAST_SECONDS: Final = 0.002
KEPT_MAX: Final = 256  # answers: a build or a shell script starts the same again and again
KEPT_CHARACTERS_MAX: Final = 1024  # so that all of them are 0.25 MiB at most
T = TypeVar("T")


class Candidates(NamedTuple):
    """The rules that are left for a name and a script, and what else has to be known for them."""

    rules: tuple[CompiledRule, ...]
    needs: Needs


class Answer(NamedTuple):
    """What the rules say of a process, kept with it, as most are found again as they were.

    The fingerprint is Python's hash, whose key is drawn at each start: nobody can aim at one.
    """

    rule: Rule | None
    needs: Needs  # what was read for it
    fingerprint: int  # of what was read, and of the edition of the rules


class Matcher:
    """The rules in force."""

    def __init__(self) -> None:
        self._deadline = Deadline(MATCH_SECONDS, TooSlow)
        self._edition = 0

    def configure(self, config: Config) -> None:
        self._edition += 1
        self._leave_pods = config.kubernetes_pods == "leave"
        self._rules = compiled(config.rules)
        self.by_name = {rule.name: rule for rule in config.rules}
        # Whose a process is and where it lies is read when some rule is left that asks for it.
        self.needs_at_first = needs(config.rules)._replace(uid=False, cgroup=False)
        self._candidates: dict[Hashable, Candidates] = {}
        self._rules_of: dict[Hashable, Rule | None] = {}

    def new_turn(self) -> None:
        self._deadline.seconds = MATCH_SECONDS

    def cares_for_forks(self, claim: Claim | None) -> bool:
        """Whether what one with *claim* forks is to be seen at once; see `Rule.cares_for_forks`."""
        if claim is None or claim.standing != "matched":
            return False
        rule = self.by_name.get(claim.rule)
        return rule is not None and rule.cares_for_forks

    def answer(self, look: Look, process: Process, last: Answer | None) -> Answer | None:
        """What the rules say of *process*, of which `needs_at_first` has been read.

        It is *last* if all that was made of is as it was, and None if the process has gone.

        Raises:  TooSlow, when matching takes too long; then there is less time for the next one.
        """
        if last is not None:
            whole = placed(process, look, last.needs)
            if whole is not None and self._fingerprint(whole) == last.fingerprint:
                return last
        read = (process.comm, process.long_name, process.script, process.script_path)
        left = kept(self._candidates, read, lambda: self._left(process))
        whole = placed(process, look, left.needs)
        if whole is None:
            return None
        rule = None
        if left.rules:
            rule = kept(self._rules_of, what_is_read(whole), lambda: self._asked(left.rules, whole))
        return Answer(rule, left.needs, self._fingerprint(whole))

    def rule(self, look: Look, answer: Answer) -> Rule | None:
        """The rule that the process falls under, unless it is one that we leave alone."""
        if answer.rule is None or (self._leave_pods and lies_in_pod(look)):
            return None
        return answer.rule

    def _fingerprint(self, process: Process) -> int:
        return hash((self._edition, what_is_read(process)))

    def _left(self, process: Process) -> Candidates:
        rules = candidates(self._rules, process)
        return Candidates(rules, needs(rule.rule for rule in rules))

    def _asked(self, rules: Sequence[CompiledRule], process: Process) -> Rule | None:
        try:
            with self._deadline:
                return first_match(rules, process)
        except TooSlow:
            self._deadline.seconds = max(self._deadline.seconds / 2, MATCH_LEAST_SECONDS)
            raise


def what_is_read(process: Process) -> tuple[object, ...]:
    """All but which process it is, as that plays no part in what it falls under."""
    return process[2:]


def lies_in_pod(look: Look) -> bool:
    """Whether it lies in one of Kubernetes' pods, or in nothing any more."""
    try:
        return in_kubernetes_pod(cgroup_of(look.directory).path)
    except GONE:
        return True


def kept(known: dict[Hashable, T], read: tuple[object, ...], ask: Callable[[], T]) -> T:
    """The answer to *read*; asked for once, unless it is too long to be kept."""
    if read in known:
        return known[read]
    answer = ask()
    if sum(len(part) for part in read if isinstance(part, str)) <= KEPT_CHARACTERS_MAX:
        if len(known) >= KEPT_MAX:
            known.clear()
        known[read] = answer
    return answer
