"""Kills as they happen in life, told in samples: what the diagnosis has to make sense of."""

from collections.abc import Callable, Sequence
from math import sin

from oomwatchd.incident import Case, Machine, Past, Sample, Task, Trace, Victim
from oomwatchd.policy.facts import Facts
from oomwatchd.policy.growth import Point

MIB = 1 << 20
GIB = 1 << 30
KILLED_AT = 1_700_000_000.0
MACHINE = Machine(ram_bytes=64 * GIB, swap_bytes=0, page_bytes=4096)
SMALL = Machine(ram_bytes=GIB, swap_bytes=0, page_bytes=4096)
TRAINER = Victim(
    pid=4711,
    name="python3",
    start_ticks=100,
    cmdline="python3 train.py",
    user="alice",
    unit="train.service",
    cgroup="/system.slice/train.service",
    rule="training",
    oom_score_adj=0,
)
LIMITED = "/system.slice/train.service"

Curve = Callable[[float], float]  # bytes by seconds, which end at 0, the kill


def instants(since: float = 600.0, fast: float = 5.0) -> list[float]:
    """As the sampler takes them: every 5 s, and ten times a second at the end."""
    rest = [-since + 5.0 * at for at in range(int((since - fast) / 5))]
    return [*rest, *(-fast + at / 10 for at in range(int(fast * 10)))]


def points(curve: Curve, seconds: Sequence[float]) -> list[Point]:
    return [Point(at, int(curve(at))) for at in seconds]


def flat(size: float) -> Curve:
    return lambda _at: size


def copy(size: float, *, begins: float, takes: float, killed_at: float = 1.0) -> Curve:
    """Holds *size*, and copies it; *killed_at* is the part of the copy that was made."""
    return lambda at: size * (1 + min(max((at - begins) / takes, 0.0), killed_at))


def leak(start: float, per_second: float, *, since: float = 600.0) -> Curve:
    return lambda at: start + max(at + since, 0.0) * per_second


def noisy(curve: Curve, by: float) -> Curve:
    """The same noise at each run."""
    return lambda at: max(curve(at) + by * (2 * ((sin(at * 12.9898) * 43758.5453) % 1.0) - 1), 0.0)


def steps(start: float, size: float, every: float, since: float = 600.0) -> Curve:
    return lambda at: start + size * ((at + since) // every)


def sawtooth(low: float, high: float, every: float) -> Curve:
    return lambda at: low + (high - low) * ((at % every) / every)


def past(
    victim: Curve | None,
    others: Sequence[tuple[str, int, Curve]] = (),
    *,
    seconds: Sequence[float] | None = None,
    cgroup: Curve | None = None,
    limit: int | None = None,
    swap_free: Curve | None = None,
    others_cgroup: str = LIMITED,
) -> Past:
    seconds = instants() if seconds is None else seconds
    samples = tuple(
        Sample(
            KILLED_AT + at,
            None if victim is None else int(victim(at)),
            GIB,
            0 if swap_free is None else int(swap_free(at)),
            None if cgroup is None else int(cgroup(at)),
            limit,
            1.5,
            0.25,
        )
        for at in seconds
    )
    traces = tuple(
        Trace(pid, name, None, others_cgroup, tuple(int(curve(at)) for at in seconds))
        for name, pid, curve in others
    )
    return Past(samples, traces)


def by_kernel(*tasks: Task, victim: Victim = TRAINER) -> Case:
    return Case("kernel:b:1", 1000.0, "kernel", "machine", (victim,), tasks=tasks)


def by_limit(limit: int, *, cache: int | None = None, victim: Victim = TRAINER) -> Case:
    return Case(
        "kernel:b:2", 1000.0, "cgroup", LIMITED, (victim,),
        limit_bytes=limit, usage_bytes=limit, file_cache_bytes=cache,
    )  # fmt: skip


def facts(case: Case, before: Past, machine: Machine = MACHINE) -> Facts:
    return Facts(case, case.victims[0], before, machine)
