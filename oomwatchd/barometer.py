"""Memory pressure as the loop feels it: the averages, and the level that they amount to."""

from pathlib import Path

from oomwatchd.journal import log
from oomwatchd.kernel.psi import PressureFile
from oomwatchd.model import Level, Pressure, PressureSettings
from oomwatchd.policy.pressure import PressureState, advance, level


class Barometer:
    def __init__(self, root: Path) -> None:
        self.pressure: Pressure | None = None
        self.level: Level = "ok"
        self._file = pressure_file(root)
        self._state = PressureState()

    @property
    def works(self) -> bool:
        return self._file is not None

    def read(self, settings: PressureSettings, now_seconds: float) -> None:
        if self._file is None:
            return
        try:
            self.pressure = self._file.read()
        except OSError as error:  # EOPNOTSUPP: there, but switched off
            log.warning("memory pressure cannot be read: %s", error.strerror)
            self._file.close()
            self._file = self.pressure = None
            return
        self._state = advance(self._state, self.pressure, settings, now_seconds)
        now_level = level(self._state, settings, now_seconds)
        if now_level != self.level:
            log.warning(
                "memory pressure: %s -> %s (of the last 10 s, some stalled %.1f %%, all %.1f %%)",
                self.level, now_level, self.pressure.some_avg10, self.pressure.full_avg10,
            )  # fmt: skip
            self.level = now_level


def pressure_file(root: Path) -> PressureFile | None:
    """None where the kernel has no PSI; `kernel.features` has told why."""
    try:
        return PressureFile(root)
    except OSError:
        return None
