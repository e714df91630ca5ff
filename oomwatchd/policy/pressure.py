"""Levels of memory pressure, which do not flap."""

from typing import Final, NamedTuple

from oomwatchd.model import Level, Pressure, PressureSettings, Threshold

NEVER: Final = float("-inf")


class PressureState(NamedTuple):
    """When each level's thresholds were last reached, in monotonic seconds."""

    warning_seconds: float = NEVER
    critical_seconds: float = NEVER


def advance(
    state: PressureState, pressure: Pressure, settings: PressureSettings, now_seconds: float
) -> PressureState:
    """The state after a reading of *pressure*."""
    warning = reached(settings.warning, pressure)
    critical = reached(settings.critical, pressure)
    return PressureState(
        now_seconds if warning else state.warning_seconds,
        now_seconds if critical else state.critical_seconds,
    )


def level(state: PressureState, settings: PressureSettings, now_seconds: float) -> Level:
    """The highest level whose thresholds are reached, or were within the time to clear."""
    since = now_seconds - settings.clear_after_seconds
    if state.critical_seconds > since or state.critical_seconds == now_seconds:
        return "critical"
    if state.warning_seconds > since or state.warning_seconds == now_seconds:
        return "warning"
    return "ok"


def reached(thresholds: tuple[Threshold, ...], pressure: Pressure) -> bool:
    """Whether all hold; without any, none does."""
    return bool(thresholds) and all(
        pressure.percent(threshold) >= threshold.percent for threshold in thresholds
    )
