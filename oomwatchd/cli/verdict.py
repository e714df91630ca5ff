"""What the rules say of the processes there are: what `check`, `explain` and `rank` ask."""

from collections.abc import Collection
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

LINKED: Final = ("exe", "script")  # by links in /proc, which not everybody may read
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
    doubt: "Doubt | None"  # a rule before that one, or the only one, may match as well


class Doubt(NamedTuple):
    """Whether a rule matches is not known: what it asks for may not be read by us."""

    rule: Rule
    key: str


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

    def seen(self, pid: int) -> Verdict | None:
        """As `verdict`; None as well, if it may not be seen."""
        try:
            return self.verdict(pid)
        except PermissionError:
            return None

    def rule_of(self, pid: int) -> Rule | None:
        """The rule that *pid* falls under, as far as it may be seen."""
        verdict = self.seen(pid)
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
        doubt = None if process is None or reason else self._doubt(process)
        if rule and self._leave_pods and in_kubernetes_pod(cgroup_of(look.directory).path):
            rule, doubt, reason = None, None, "a kubelet manages it (kubernetes_pods: leave)"
        return Verdict(
            name=decoded(look.stat.comm),
            rule=rule,
            left_alone=reason,
            failed=failed,
            process=process,
            oom_score_adj=read_adj(look.directory),
            wanted=self._wanted(rule, look),
            doubt=doubt,
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

    def _doubt(self, process: Process) -> Doubt | None:
        """Of the rules up to the one that decides, the first that could not be asked in full."""
        for candidate in self._rules:
            key = candidate.first_failed(process)
            if key is None:
                return None
            if key in LINKED and (key := candidate.hangs_on(process)) is not None:
                return Doubt(candidate.rule, key)
        return None

    def _wanted(self, rule: Rule | None, look: Look) -> int | None:
        if rule is None:
            return None
        is_worker = rule.workers is not None and self.rule_of(look.stat.parent_pid) is rule
        return value(rule, is_worker=is_worker)


def doubt_as_json(doubt: Doubt) -> dict[str, object]:
    """The field names are a contract."""
    return {"rule": doubt.rule.name, "key": doubt.key}


def unseen_remarks(count: int) -> list[str]:
    """What a command has to say of processes that it may not look at."""
    return [f"not seen: processes that may not be read ({count}); try as root"] if count else []


def doubted(doubts: Collection[Doubt]) -> list[str]:
    """Likewise, of those that may be under a rule, or not."""
    if not doubts:
        return []
    number = f"{len(doubts)} process{'es' * (len(doubts) != 1)}"
    rules = ", ".join(dict.fromkeys(doubt.rule.name for doubt in doubts))
    keys = " and ".join(sorted({doubt.key for doubt in doubts}))
    return [
        f"not known: whether {number} {'is' if len(doubts) == 1 else 'are'} under a rule that asks"
        f" for {keys} ({rules}), which may not be read by you; try as root"
    ]


def loaded(path: Path, *, root_only: bool) -> Loaded:
    """Raises Failure, with every fault of the configuration."""
    try:
        return load(path, root_only=root_only)
    except ConfigError as error:
        raise Failure(str(error), exits.CONFIG) from None
    except OSError as error:
        raise unreadable(path, error) from None
