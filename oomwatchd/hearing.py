"""What the kernel tells us of its own accord, which may stop, or begin late; it is asked again."""

from collections.abc import Mapping
from typing import Final

from oomwatchd.host import Hears, Wants
from oomwatchd.kernel.features import PROBES
from oomwatchd.record import FeatureChanged, Record

RETRY_SECONDS: Final = 60.0  # twice as long with each try in vain: one of events takes 0.25 s
RETRY_MAX_SECONDS: Final = 3600.0
NEVER: Final = float("inf")


class Hearing:
    """*missing*: of each feature, why the machine lacks it; empty, if it does not."""

    def __init__(self, missing: Mapping[str, str], record: Record) -> None:
        self.features = {name: not why for name, why in missing.items()}
        self.due_seconds = NEVER  # when to ask again
        self._wait_seconds = RETRY_SECONDS
        self._record = record

    def asked(self, wants: Wants, hears: Hears, now_seconds: float) -> None:
        """Take note of what is told from now on."""
        lacking = False
        for name, wanted, told in (
            ("process_events", wants.events, hears.events),
            ("psi_trigger", wants.pressure, hears.pressure),
        ):
            if wanted:
                self._is_told(name, told=told)
                lacking |= not told
        if lacking:
            self.due_seconds = now_seconds + self._wait_seconds
            self._wait_seconds = min(2 * self._wait_seconds, RETRY_MAX_SECONDS)
        else:
            self.due_seconds, self._wait_seconds = NEVER, RETRY_SECONDS

    def trigger_lost(self, now_seconds: float) -> None:
        self._is_told("psi_trigger", told=False)
        self.due_seconds = min(self.due_seconds, now_seconds + self._wait_seconds)

    def _is_told(self, name: str, *, told: bool) -> None:
        if self.features.get(name, told) != told:
            self._record.feature_changed(FeatureChanged(name, told, PROBES[name][1]))
        self.features[name] = told
