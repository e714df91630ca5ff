"""The end, where our values are not to stay: every process gets back what it had before us."""

import time
from dataclasses import replace
from typing import Final

from oomwatchd.enforce import Enforcer
from oomwatchd.model import Config
from oomwatchd.population import Moment
from oomwatchd.record import Record
from oomwatchd.watch import Watch

PASSES_MAX: Final = 8
PAUSE_SECONDS: Final = 0.03  # between two passes
QUIET_PASSES: Final = 3  # so many in which nobody is found, and it is over
PASSES_SECONDS: Final = 5.0  # after which no other begins; the unit gives us 15 in all


def put_all_back(
    watch: Watch, enforcer: Enforcer, record: Record, config: Config, now: Moment
) -> None:
    """What matches go on forking has inherited our value, and stands in no ledger.

    So they are put back as if *config* had no rules, parents before children, and the children that
    have come meanwhile after that, until there is nobody left.  A child has its value from the
    beginning of the fork, and is to be seen from the end of it: that is what the pauses are for.
    """
    watch.configure(replace(config, rules=()))
    until = time.monotonic() + PASSES_SECONDS
    quiet = 0
    for _ in range(PASSES_MAX):
        before = record.restored
        watch.forget_listing()
        watch.scan(now)
        quiet = quiet + 1 if record.restored == before else 0
        if not record.restored or quiet == QUIET_PASSES or time.monotonic() >= until:
            break
        time.sleep(PAUSE_SECONDS)
    enforcer.put_all_back()  # whom a scan has to leave alone, as it cannot read them now
