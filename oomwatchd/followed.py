"""One process that is followed: who it is, and its size, read again and again."""

from typing import Final

from oomwatchd.history import Portrait
from oomwatchd.kernel.proc import Look
from oomwatchd.kernel.status import StatusFile
from oomwatchd.model import Process, Tracked

# After which a portrait is made anew; and one whose command line did not come in time.  With each
# time that it does not, twice as long: a read that hangs for good keeps a thread.
PORTRAIT_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 1.0


class Followed:
    """For as long as it lives and is large enough, or until it runs something else."""

    __slots__ = ("comm", "due_seconds", "file", "portrait", "program", "untold")

    def __init__(
        self,
        file: StatusFile,
        portrait: Portrait,
        look: Look,
        process: Process,
        now_seconds: float,
        last: "Followed | None",
    ) -> None:
        """*last*: what we had of it, or of another that had its pid."""
        self.portrait: Portrait = portrait
        self.file = file
        self.comm = process.comm
        self.program = look.stat.program
        before = last if last is not None and last.is_of(look) else None
        self.untold = 0  # so many times its command line did not come
        if process.cmdline is None:
            self.untold = 1 + (before.untold if before is not None else 0)
        if self.untold and before is not None:  # it runs what it ran
            known = before.portrait.victim
            victim = portrait.victim._replace(name=known.name, cmdline=known.cmdline)
            self.portrait = portrait._replace(victim=victim)
        wait_seconds = AGAIN_SECONDS if self.lacks_cmdline else PORTRAIT_SECONDS
        self.due_seconds = now_seconds + wait_seconds * 2.0 ** max(self.untold - 1, 0)

    @property
    def lacks_cmdline(self) -> bool:
        return self.untold > 0 and self.portrait.victim.cmdline is None

    def is_of(self, look: Look) -> bool:
        """Whether it runs what it ran when its portrait was made."""
        return (self.portrait.id, self.program) == (look.id, look.stat.program)

    def is_as(self, tracked: Tracked | None) -> bool:
        """Whether the portrait still holds, as far as the rules tell."""
        if tracked is None:
            return self.portrait.victim.rule is None
        mine = (self.portrait.id, self.portrait.victim.rule, self.comm)
        return mine == (tracked.id, tracked.rule, tracked.comm)
