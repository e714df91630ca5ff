"""What the rules say of the processes there are: what `check`, `explain` and `rank` ask."""

from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from oomwatchd.cli import exits
from oomwatchd.cli.failure import Failure, unreadable
from oomwatchd.config import ConfigError, Loaded, load
from oomwatchd.identify import SlowReader, Unreadable, Untried, cgroup_of, identify
from oomwatchd.kernel.adjust import read_adj
from oomwatchd.kernel.cgroup import in_kubernetes_pod
from oomwatchd.kernel.deadline import Deadline
from oomwatchd.kernel.proc import GONE, Look, ProcFs
from oomwatchd.model import Config, Needs, Process, Rule
from oomwatchd.policy.patterns import TooSlow
from oomwatchd.policy.plan import value
from oomwatchd.policy.rules import MATCH_SECONDS, compiled, needs
from oomwatchd.text import decoded

PATIENCE_SECONDS: Final = 2.0  # a command may wait for a slow read, where the daemon may not


class Verdict(NamedTuple):
    """What the rules say of one process, and why."""

    name: str
    rule: Rule | None
    left_alone: str  # why the rules are not even asked; empty: they are
    failed: tuple[tuple[Rule, str | None], ...]  # each rule asked, with the first key that failed
    process: Process | None
    oom_score_adj: int
    wanted: int | None


class Judge:
    """Asks the same functions as the daemon, without its memory of earlier values."""

    def __init__(
        self,
        config: Config,
        proc: ProcFs,
        asked: Needs | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """*asked*: what to read of a process, if not only what the rules need."""
        self._rules = compiled(config.rules)
        self._leave_pods = config.kubernetes_pods == "leave"
        self._needs = needs(config.rules) if asked is None else asked
        self._proc = proc
        self._reader = SlowReader(read_seconds=patience_seconds, batch_seconds=patience_seconds)
        self._deadline = Deadline(MATCH_SECONDS, TooSlow)

    def verdict(self, pid: int) -> Verdict | None:
        """None if there is no such process.  Raises PermissionError, if it may not be seen."""
        look = self._proc.look(pid)
        if look is None:
            return None
        with closing(look):
            try:
                return self._verdict(look)
            except GONE:
                return None

    def rule_of(self, pid: int) -> Rule | None:
        """The rule that *pid* falls under, as far as it may be seen."""
        try:
            verdict = self.verdict(pid)
        except PermissionError:
            return None
        return verdict.rule if verdict is not None else None

    def _verdict(self, look: Look) -> Verdict:
        reason = "" if look.id.pid != 1 else "pid 1 is never touched"
        if not look.stat.alive:
            reason = "a kernel thread" if look.stat.kernel_thread else "a zombie: it has ended"
        elif look.stat.exiting:
            reason = "it ends, or its first thread has: it keeps what it has"
        [process] = identify([look], self._needs, self._reader)
        if isinstance(process, Unreadable | Untried):
            reason, process = "its command line could not be read in time", None
        failed: tuple[tuple[Rule, str | None], ...] = ()
        if process is not None and not reason:
            failed, reason = self._asked(process)
        rule = next((rule for rule, key in failed if key is None), None)
        if rule and self._leave_pods and in_kubernetes_pod(cgroup_of(look.directory).path):
            rule, reason = None, "a kubelet manages it (kubernetes_pods: leave)"
        return Verdict(
            name=decoded(look.stat.comm),
            rule=rule,
            left_alone=reason,
            failed=failed,
            process=process,
            oom_score_adj=read_adj(look.directory),
            wanted=self._wanted(rule, look),
        )

    def _asked(self, process: Process) -> tuple[tuple[tuple[Rule, str | None], ...], str]:
        """What each rule says; and why none could, if matching took too long."""
        try:
            with self._deadline:
                return tuple(self._answers(process)), ""
        except TooSlow:
            return (), "matching its command line takes too long"

    def _answers(self, process: Process) -> list[tuple[Rule, str | None]]:
        return [(candidate.rule, candidate.first_failed(process)) for candidate in self._rules]

    def _wanted(self, rule: Rule | None, look: Look) -> int | None:
        if rule is None:
            return None
        is_worker = rule.workers is not None and self.rule_of(look.stat.parent_pid) is rule
        return value(rule, is_worker=is_worker)


def loaded(path: Path, *, root_only: bool) -> Loaded:
    """Raises Failure, with every fault of the configuration."""
    try:
        return load(path, root_only=root_only)
    except ConfigError as error:
        raise Failure(str(error), exits.CONFIG) from None
    except OSError as error:
        raise unreadable(path, error) from None
