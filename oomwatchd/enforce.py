"""Bringing the values of processes in line with the rules, a batch at a time:

look -> identify -> rule -> decide -> remember (ledger) -> adjust -> hold
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import getpid
from typing import Final

from oomwatchd.blame import Blame
from oomwatchd.holds import Hold
from oomwatchd.identify import SlowReader, Unreadable, Untried, identify
from oomwatchd.kernel.adjust import Outcome, adjust, read_adj
from oomwatchd.kernel.proc import GONE, Look, ProcFs, parents_first
from oomwatchd.kernel.status import read_status
from oomwatchd.ledger import Ledger
from oomwatchd.matching import Answer, Matcher
from oomwatchd.model import Change, Process, ProcessId, Result, Rule
from oomwatchd.orphans import GENERATIONS_MAX, lost_ancestor, strangers
from oomwatchd.policy.patterns import TooSlow
from oomwatchd.policy.plan import Claim, decide
from oomwatchd.population import Known, Moment, Population
from oomwatchd.record import Adjustment, Drift, Record
from oomwatchd.step import Step
from oomwatchd.text import decoded

NOBODY: Final[Mapping[int, int]] = {}
BATCH: Final = 64  # processes whose directories are open at the same time


class Enforcer:
    """Knows whom it had to wait for."""

    def __init__(
        self, proc: ProcFs, population: Population, ledger: Ledger, record: Record, *, dry_run: bool
    ) -> None:
        self.guard_tripped = False
        self._proc = proc
        self._population = population
        self._ledger = ledger
        self._record = record
        self._dry_run = dry_run
        self._ignored = frozenset({1, getpid()})
        self._reader = SlowReader()
        self.matcher = Matcher()
        self._blame = Blame()
        self._parents: set[int] = set()  # whose claim has changed, with children yet to hear of it

    def new_turn(self) -> None:
        """Those who made us wait have another try, unless a read of theirs still hangs."""
        self.matcher.new_turn()
        self._blame.forgive()
        self._record.reads_hang(self._reader.hanging, exhausted=self._reader.is_exhausted)

    def look_at(
        self, pids: Sequence[int], now: Moment, execed_ns: Mapping[int, int] = NOBODY
    ) -> None:
        """Look at *pids*, and at the children of those whose claim is another than it was.

        *execed_ns* is when some of them have executed their program; see `identify`.

        A child may have been looked at before its parent became a match: between the parent's fork
        and exec, or when both came in one turn and the parent was not due in it.
        """
        self._execed_ns = execed_ns
        while pids:
            self._parents.clear()
            self._look_at(pids, now)
            pids = self._population.children(self._parents) if self._parents else ()

    def set_again(self, pids: Sequence[int], now: Moment) -> None:
        """See that *pids* have what their rules give them, without reading again what they run.

        So nobody can make us wait.  Who has another program by now is looked at in full.
        """
        others: list[int] = []
        for start in range(0, len(pids), BATCH):
            with self._looks(pids[start : start + BATCH]) as looks:
                steps: list[Step] = []
                for look in filter(self._concerns_us, looks):
                    hold = self._population.holds.get(look.id.pid)
                    known = self._population.get(look.id)
                    if hold is None or known is None or not hold.is_for(look, hold.rule):
                        others.append(look.id.pid)
                    else:
                        steps += self._kept(look, known, hold.rule)
                self._take(steps, now)
        self.look_at(others, now)

    def _look_at(
        self, pids: Sequence[int], now: Moment, generations: int = GENERATIONS_MAX
    ) -> None:
        """Look at *pids*, parents before children: what a child is due hangs on its parent."""
        to_come = set(pids)
        later: list[ProcessId] = []
        for start in range(0, len(pids), BATCH):
            some = pids[start : start + BATCH]
            to_come.difference_update(some)
            with self._looks(some) as looks:
                ready = []
                for look in looks:
                    if look.stat.parent_pid in to_come:  # the pids had gone round
                        to_come.add(look.id.pid)
                        later.append(look.id)
                    else:
                        ready.append(look)
                unmet = strangers(ready, some, self._proc, self._population)
                if unmet and generations:
                    self._look_at(unmet, now, generations - 1)
                self._treat(ready, now)
        by_age = [id.pid for id in sorted(later, key=lambda id: id.start_ticks)]
        for start in range(0, len(by_age), BATCH):
            with self._looks(by_age[start : start + BATCH]) as looks:
                self._treat(looks, now)

    @contextmanager
    def _looks(self, pids: Sequence[int]) -> Iterator[list[Look]]:
        """Hold on to those of *pids* that are there, in the order to treat them in."""
        with ExitStack() as stack:
            looks = []
            for pid in pids:
                try:
                    look = self._proc.look(pid)
                except PermissionError:  # hidepid=1, and we may not trace it
                    continue
                if look is None:
                    self._population.forget(pid)
                else:
                    stack.callback(look.close)
                    looks.append(look)
            yield parents_first(sorted(looks, key=lambda look: look.id.start_ticks))

    def _treat(self, looks: Sequence[Look], now: Moment) -> None:
        ready = [look for look in looks if self._concerns_us(look) and not self._waits(look, now)]
        steps: list[Step] = []
        for look, identity in zip(
            ready,
            identify(ready, self.matcher.needs_at_first, self._reader, self._execed_ns),
            strict=True,
        ):
            if isinstance(identity, Unreadable):
                self._made_us_wait(look, identity, now)
            elif isinstance(identity, Untried):
                self._population.ask_again(look, now)
            elif identity is not None and not self._waits(look, now):
                steps += self._steps(look, identity, now)
        self._take(steps, now)

    def _take(self, steps: Sequence[Step], now: Moment) -> None:
        self.save_ledger()
        for step in steps:
            self._carry_out(step, now)

    def save_ledger(self) -> None:
        """Before anything is written to a process.

        If it fails, values are set all the same: to protect is what we are for, and what has to be
        put back is still known, as long as this daemon lives.
        """
        try:
            self._ledger.save()
        except OSError as error:
            self._record.ledger_written(str(error))
        else:
            self._record.ledger_written("")

    def _concerns_us(self, look: Look) -> bool:
        """Not the dead, nor kernel threads, nor pid 1, nor ourselves.

        Nor the dying, which may take seconds to give back their memory: they keep what they have.
        """
        if look.stat.exiting and look.stat.alive:
            self._leave(look)
            return False
        if look.stat.alive and look.id.pid not in self._ignored:
            return True
        self._population.forget(look.id.pid)
        self._population.meet(look, None)  # without a date: there is no more to see
        return False

    def _leave(self, look: Look) -> None:
        """What it runs cannot be read, so it stays as it is, unless its rule is gone."""
        own = self._ledger.get(look.id)
        if self._population.get(look.id) is None:
            self._population.meet(look, own)
        if own is not None and own.rule not in self.matcher.by_name:
            self._put_back(look, own)
            self._population.holds.drop(look.id.pid)

    def _steps(self, look: Look, process: Process, now: Moment) -> Iterator[Step]:
        """The step to take, if *process* is or was under a rule, or its parent is or was."""
        known = self._population.get(look.id)
        met_before = known is not None
        own = known.claim if known is not None else self._ledger.get(look.id)
        answer = self._answer(look, process, known)
        rule = self.matcher.rule(look, answer) if answer is not None else None
        parent = self._population.parent_claim(process.parent_pid, look.id)
        alone = own is None and parent is None
        orphan = alone and known is None and not self._ledger.is_empty  # perhaps
        known = self._population.met(look, own, now)
        known.answer = answer
        if alone and rule is None and not orphan:
            return
        try:
            before = read_adj(look.directory)
            if orphan:
                parent = lost_ancestor(look, before, self._proc, self._ledger)
        except GONE:
            self._population.forget(look.id.pid)
            return
        step = self._decided(look, known, rule, before, parent)
        if step is not None:
            if met_before and not step.claim.means_the_same(own):
                self._parents.add(look.id.pid)
            yield step

    def _kept(self, look: Look, known: Known, rule: Rule) -> Iterator[Step]:
        """The step to take, if it is still what it was when it fell under *rule*."""
        parent = self._population.parent_claim(look.stat.parent_pid, look.id)
        with suppress(*GONE):
            step = self._decided(look, known, rule, read_adj(look.directory), parent)
            if step is not None:
                yield step

    def _decided(
        self, look: Look, known: Known, rule: Rule | None, before: int, parent: Claim | None
    ) -> Step | None:
        own = known.claim
        decision = decide(
            rule, before, own, parent, self.matcher.by_name, guarded=self.guard_tripped
        )
        if decision is None:
            return None
        known.claim = decision.claim
        self._remember(look.id, decision.claim)
        return Step(look, decoded(look.stat.comm), rule, before, own, decision)

    def _answer(self, look: Look, process: Process, known: Known | None) -> Answer | None:
        """What the rules say of *process*; nothing, when matching takes too long."""
        try:
            return self.matcher.answer(look, process, known.answer if known is not None else None)
        except TooSlow:
            self._record.match_gave_up(process.id, process.comm)
            self._blame.put_on(look)
            return None

    # -- those who make us wait --------------------------------------------------------------------

    def _made_us_wait(self, look: Look, unreadable: Unreadable, now: Moment) -> None:
        """Its command line did not come: it keeps what it has, and is asked again later."""
        self._record.read_gave_up(look.id, decoded(look.stat.comm))
        self._blame.put_on(look, unreadable.read)
        self._population.ask_again(look, now)

    def _waits(self, look: Look, now: Moment) -> bool:
        """Whether *look* has to wait for its turn, as its owner has had his time in this one."""
        try:
            waits = self._blame.falls_on(look)
        except GONE:
            return True
        if waits:
            self._population.ask_again(look, now)
        return waits

    # -- carrying out ------------------------------------------------------------------------------

    def _carry_out(self, step: Step, now: Moment) -> None:
        hold = self._hold(step, now)
        wanted = step.decision.wanted
        written = False
        if wanted is not None and not (hold is not None and hold.let_be):
            written = self._written(step, wanted, now)
        if hold is not None:
            hold.wanted = step.before if wanted is None else wanted
            hold.now = hold.wanted if written else step.before
            hold.let_be = hold.let_be or self._dry_run

    def _hold(self, step: Step, now: Moment) -> Hold | None:
        """The hold on it: a new one, if it runs another program or falls under another rule."""
        holds = self._population.holds
        if step.rule is None:
            holds.drop(step.look.id.pid)
            return None
        hold = holds.get(step.look.id.pid)
        if hold is None or not hold.is_for(step.look, step.rule):
            hold = Hold(step.look, step.comm, step.rule)
            holds.put(hold)
            with suppress(*GONE):
                hold.weigh(read_status(step.look.directory))
        elif hold.has_drifted(step.before, now.seconds):
            self.tell_drift(hold)
        hold.unkillable = step.decision.unkillable
        return hold

    def tell_drift(self, hold: Hold) -> None:
        self._record.drifted(
            Drift(hold.id, hold.comm, hold.rule.name, hold.wanted, hold.now, hold.let_be)
        )

    def _written(self, step: Step, wanted: int, now: Moment) -> bool:
        """Write *wanted*, and correct what we remember if that did not go."""
        change = Change(step.look.id, step.comm, step.claim.rule, wanted)
        result = self._adjust(step.look, change, step.before, back=step.rule is None)
        if result in ("applied", "restored") and not self._dry_run:
            return True
        known = self._population.get(step.look.id)
        if known is not None:
            known.claim = step.claim_without_write()
            self._remember(step.look.id, known.claim)
            if result in ("gone", "drifted"):  # it has become something else
                self._population.ask_again(step.look, now)
        return False

    def _adjust(self, look: Look, change: Change, before: int, *, back: bool) -> Result:
        """Make *change*, and record how it went; *back*: it gives back the value of before us."""
        outcome = (
            Outcome("applied") if self._dry_run else adjust(look, before, change.oom_score_adj)
        )
        result = "restored" if back and outcome.result == "applied" else outcome.result
        self._record.adjusted(Adjustment(change, before, result, outcome.reason))
        return result

    def _remember(self, id: ProcessId, claim: Claim) -> None:
        if not self._dry_run:
            self._ledger.remember(id, claim)

    # -- the end -----------------------------------------------------------------------------------

    def put_all_back(self) -> None:
        """Give every process the value it had before us, where ours still stands.

        What could not be put back stays in the ledger, for the next daemon to try.
        """
        for id, claim in self._ledger.claims():
            with self._looks([id.pid]) as looks:
                results = [self._put_back(look, claim) for look in looks if look.id == id]
            if "refused" not in results:
                self._ledger.forget(id)
        self.save_ledger()

    def _put_back(self, look: Look, claim: Claim) -> Result | None:
        try:
            now = read_adj(look.directory)
        except GONE:
            return None
        if now not in claim.ours or now == claim.before:
            return None
        change = Change(look.id, decoded(look.stat.comm), claim.rule, claim.before)
        return self._adjust(look, change, now, back=True)
