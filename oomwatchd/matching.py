"""Which rule a process falls under: within a limit of time, and asked once for the same answers."""

from collections.abc import Hashable
from typing import Final

from oomwatchd.identify import cgroup_of
from oomwatchd.kernel.cgroup import in_kubernetes_pod
from oomwatchd.kernel.deadline import Deadline
from oomwatchd.kernel.proc import GONE, Look
from oomwatchd.model import Config, Process, Rule
from oomwatchd.policy.patterns import TooSlow
from oomwatchd.policy.plan import Claim
from oomwatchd.policy.rules import MATCH_SECONDS, compiled, first_match, needs

# With each process that uses up the time for matching, those behind it have half as much, down to
# this: a user may have 65,536 users below him (subuid(5)), and so is not one, but many.
MATCH_LEAST_SECONDS: Final = 0.002
VERDICTS_MAX: Final = 512  # what a build or a shell script starts again and again
VERDICT_CHARACTERS_MAX: Final = 1024  # so that all of them are 0.5 MiB at most


class Matcher:
    """The rules in force."""

    def __init__(self) -> None:
        self._deadline = Deadline(MATCH_SECONDS, TooSlow)

    def configure(self, config: Config) -> None:
        self._leave_pods = config.kubernetes_pods == "leave"
        self._rules = compiled(config.rules)
        self.by_name = {rule.name: rule for rule in config.rules}
        self.needs = needs(config.rules)
        self._verdicts: dict[Hashable, Rule | None] = {}

    def new_turn(self) -> None:
        self._deadline.seconds = MATCH_SECONDS

    def has_workers(self, claim: Claim | None) -> bool:
        """Whether the children of one with *claim* may be due another value than its own."""
        if claim is None or claim.standing != "matched":
            return False
        rule = self.by_name.get(claim.rule)
        return rule is not None and rule.workers is not None

    def rule(self, look: Look, process: Process) -> Rule | None:
        """The rule that *process* falls under.

        Raises:  TooSlow, when matching takes too long; then there is less time for the next one.
        """
        try:
            rule = self._verdict(process)
        except TooSlow:
            self._deadline.seconds = max(self._deadline.seconds / 2, MATCH_LEAST_SECONDS)
            raise
        if rule is None or not self._leave_pods:
            return rule
        try:
            path = process.cgroup or cgroup_of(look.directory).path
        except GONE:
            return None
        return None if in_kubernetes_pod(path) else rule

    def _verdict(self, process: Process) -> Rule | None:
        """By all that was read of it; whose it is plays no part in what it falls under."""
        read = process[2:]  # less its id and its parent's
        if sum(len(part) for part in read if isinstance(part, str)) > VERDICT_CHARACTERS_MAX:
            return self._asked(process)
        if read not in self._verdicts:
            if len(self._verdicts) >= VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[read] = self._asked(process)
        return self._verdicts[read]

    def _asked(self, process: Process) -> Rule | None:
        with self._deadline:
            return first_match(self._rules, process)
