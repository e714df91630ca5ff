"""Memory pressure as the loop feels it: the averages, and the level that they amount to."""

from collections.abc import Callable
from pathlib import Path

from oomwatchd.kernel.psi import PressureFile
from oomwatchd.model import Level, Pressure, PressureSettings
from oomwatchd.policy.pressure import PressureState, advance, level


class Barometer:
    """*warn*, with a format and its values as logging has them, is told of each other level."""

    def __init__(self, root: Path, warn: Callable[..., object]) -> None:
        self.pressure: Pressure | None = None
        self.level: Level = "ok"
        self._file = pressure_file(root)
        self._warn = warn
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
            self._warn("memory pressure cannot be read: %s", error.strerror)
            self.close()
            self.pressure = None
            return
        self._state = advance(self._state, self.pressure, settings, now_seconds)
        now_level = level(self._state, settings, now_seconds)
        if now_level != self.level:
            self._warn(
                "memory pressure: %s -> %s (of the last 10 s, some stalled %.1f %%, all %.1f %%)",
                self.level, now_level, self.pressure.some_avg10, self.pressure.full_avg10,
            )  # fmt: skip
            self.level = now_level

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def pressure_file(root: Path) -> PressureFile | None:
    """None where the kernel has no PSI; `kernel.features` has told why."""
    try:
        return PressureFile(root)
    except OSError:
        return None
