"""What is done when memory pressure rises: hooks are run, and those who asked for it are told."""

from oomwatchd.holds import Hold, Holds
from oomwatchd.hooks import Hooks
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.kernel.signals import Sent, send
from oomwatchd.model import Level, Pressure
from oomwatchd.policy.episode import highest, risen
from oomwatchd.record import Record, Signalled


class Alarm:
    def __init__(
        self, proc: ProcFs, holds: Holds, hooks: Hooks, record: Record, *, dry_run: bool
    ) -> None:
        self._proc = proc
        self._holds = holds
        self._hooks = hooks
        self._record = record
        self._dry_run = dry_run
        self._highest: Level = "ok"  # of this episode

    def hear(self, level: Level, pressure: Pressure | None) -> None:
        """Each level counts once, until pressure is ok again."""
        new = risen(self._highest, level)
        self._highest = highest(self._highest, level)
        if new is None:
            return
        if new == "critical":
            for hold in list(self._holds):
                self._tell(hold)
        self._hooks.pressure_rose(new, pressure)

    def _tell(self, hold: Hold) -> None:
        """Send the signal of its rule; a worker is left to its parent, who is told as well."""
        name = hold.rule.critical_signal
        if name is None:
            return
        look = self._proc.look(hold.id.pid)
        if look is None:
            return
        try:
            parent = self._holds.get(look.stat.parent_pid)
            if look.id != hold.id or (parent is not None and parent.rule == hold.rule):
                return
            sent = Sent("sent") if self._dry_run else send(look, name)
        finally:
            look.close()
        self._record.signalled(Signalled(hold.id, hold.comm, hold.rule.name, name, *sent))
