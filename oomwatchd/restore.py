"""The end, where our values are not to stay: every process gets back what it had before us."""

import time
from dataclasses import replace
from typing import Final

from oomwatchd.enforce import Enforcer
from oomwatchd.model import Config
from oomwatchd.population import Moment
from oomwatchd.record import Record
from oomwatchd.watch import Watch

PASSES_MAX: Final = 5
PASSES_SECONDS: Final = 5.0  # after which no other begins; the unit gives us 15 in all


def put_all_back(
    watch: Watch, enforcer: Enforcer, record: Record, config: Config, now: Moment
) -> None:
    """What matches go on forking has inherited our value, and stands in no ledger.

    So they are put back as if *config* had no rules, parents before children, and the children that
    have come meanwhile after that, until there is nobody left.
    """
    watch.configure(replace(config, rules=()))
    until = time.monotonic() + PASSES_SECONDS
    for _ in range(PASSES_MAX):
        before = record.restored
        watch.forget_listing()
        watch.scan(now)
        if record.restored == before or time.monotonic() >= until:
            break
    enforcer.put_all_back()  # whom a scan has to leave alone, as it cannot read them now
