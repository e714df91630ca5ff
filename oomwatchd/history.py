"""The last minutes: samples of the machine's memory and of the processes followed, in few bytes.

A sample is one string of bytes, and all of them together have a bound.  Where it is reached, of the
older half every second sample goes: the ten minutes stay covered, and the last of them in full.  So
have the portraits of those who are followed no more; of these, the oldest go.
Sizes are kept in units of 4 KiB, which all that the kernel tells are multiples of.
"""

import math
import struct
import sys
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from oomwatchd.incident import Past, Sample, Trace, Victim
from oomwatchd.model import Pressure, ProcessId

SAMPLES_LIMIT_BYTES: Final = 768 << 10
PORTRAITS_LIMIT_BYTES: Final = 256 << 10  # but for those that are followed now
PORTRAIT_BYTES: Final = 512  # without its strings
KNOWN_MAX: Final = 512  # processes and cgroups with a number
OTHERS_MAX: Final = 10  # beside the victim, in what is told of the past
UNIT_BYTES: Final = 4096
NONE: Final = (1 << 32) - 1
POINTER_BYTES: Final = 8  # what the queue takes for each
# seconds, available, swap free, some, full, how many processes, how many cgroups
HEAD: Final = struct.Struct("=dIIffHH")

Key = TypeVar("Key", ProcessId, str)


class Usage(NamedTuple):
    """A cgroup in one sample."""

    path: str
    usage_bytes: int
    limit_bytes: int | None


class Reading(NamedTuple):
    """What one sample is made of."""

    seconds: float  # monotonic
    available_bytes: int
    swap_free_bytes: int
    pressure: Pressure | None
    processes: Sequence[tuple[ProcessId, int]]  # with their memory, resident and swapped out
    cgroups: Sequence[Usage]


class Portrait(NamedTuple):
    """A process that is followed, and the cgroup whose limit bounds it."""

    id: ProcessId
    victim: Victim  # as it would be reported; its memory is in the samples
    bounding: str | None


class Numbers(Generic[Key]):
    """A number for each process or cgroup, never given again, to stand for it in the samples."""

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}  # those seen last are last
        self._next = 0

    def take(self, key: Key) -> int:
        number = self._numbers.pop(key, None)
        if number is None:
            number, self._next = self._next, self._next + 1
        self._numbers[key] = number
        while len(self._numbers) > KNOWN_MAX:
            del self._numbers[next(iter(self._numbers))]
        return number

    def get(self, key: Key) -> int | None:
        return self._numbers.get(key)


class Decoded(NamedTuple):
    """A sample unpacked; what is not in it is not in its tables."""

    seconds: float
    available_bytes: int
    swap_free_bytes: int
    some: float | None
    full: float | None
    processes: dict[int, int]  # bytes by number
    cgroups: dict[int, tuple[int, int | None]]


class History:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # how far it goes back
        self._samples: deque[bytes] = deque()
        self._samples_bytes = self._portraits_bytes = 0
        self._processes: Numbers[ProcessId] = Numbers()
        self._cgroups: Numbers[str] = Numbers()
        self._portraits: dict[ProcessId, Portrait] = {}
        self._buried: dict[ProcessId, float] = {}  # of these, who has ended, when
        self._followed: frozenset[ProcessId] = frozenset()  # those of the last sample

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def size_bytes(self) -> int:
        return self._samples_bytes + self._portraits_bytes

    def remember(self, portrait: Portrait) -> None:
        """Who is followed; to be told anew when it runs another program."""
        self._forget(portrait.id)
        self._portraits[portrait.id] = portrait
        self._portraits_bytes += size_of(portrait)
        for id in list(self._portraits):
            if self._portraits_bytes <= PORTRAITS_LIMIT_BYTES:
                break
            if id not in self._followed and id != portrait.id:
                self._forget(id)

    def _forget(self, id: ProcessId) -> None:
        portrait = self._portraits.pop(id, None)
        self._buried.pop(id, None)
        if portrait is not None:
            self._portraits_bytes -= size_of(portrait)

    def portrait(self, id: ProcessId) -> Portrait | None:
        return self._portraits.get(id)

    def bury(self, id: ProcessId, seconds: float) -> None:
        """It has ended: its pid may be another's from now on."""
        if id in self._portraits:
            self._buried[id] = seconds

    def seen(
        self, at_seconds: float, *, within_seconds: float, buried_since: float
    ) -> dict[int, Victim]:
        """By pid, who may have been there at that time, with its last known memory.

        That is who was sampled *within_seconds* before or since, or in the last sample before; but
        nobody buried earlier than *buried_since*.
        """
        sizes: dict[int, int] = {}
        reached = False  # that time, from now on back
        for sample in reversed(self._samples):
            seconds = seconds_of(sample)
            if reached and seconds < at_seconds - within_seconds:
                break
            reached = reached or seconds <= at_seconds
            sizes = unpacked(sample).processes | sizes
        there = {}
        for id, portrait in sorted(self._portraits.items()):  # of one pid, who started last
            number = self._processes.get(id)
            if number in sizes and self._buried.get(id, buried_since) >= buried_since:
                there[id.pid] = portrait.victim._replace(memory_bytes=sizes[number])
        return there

    def has_cgroup(self, path: str) -> bool:
        """Whether its usage was sampled, as that of one which bounds somebody followed."""
        return self._cgroups.get(path) is not None

    def ruled_pids(self) -> set[int]:
        return {id.pid for id, one in self._portraits.items() if one.victim.rule is not None}

    def all_portraits(self) -> Iterable[Portrait]:
        return self._portraits.values()

    def add(self, reading: Reading) -> None:
        sample = self._encoded(reading)
        self._followed = frozenset(id for id, _ in reading.processes)
        self._samples.append(sample)
        self._samples_bytes += cost_bytes(sample)
        while seconds_of(self._samples[0]) < reading.seconds - self.seconds:
            self._samples_bytes -= cost_bytes(self._samples.popleft())
        if self._samples_bytes > SAMPLES_LIMIT_BYTES:
            self._thin_out()

    def past(self, victim: ProcessId | None, cgroup: str | None, *, unix_offset: float) -> Past:
        """All there is, from the side of *victim* and of the *cgroup* whose limit bounds it.

        *unix_offset* is what makes Unix time of monotonic seconds now.
        """
        number = self._processes.get(victim) if victim is not None else None
        bound = self._cgroups.get(cgroup) if cgroup is not None else None
        decoded = [unpacked(sample) for sample in self._samples]
        samples = tuple(one_sample(one, number, bound, unix_offset) for one in decoded)
        return Past(samples, self._traces(decoded, victim))

    def _traces(self, decoded: Sequence[Decoded], victim: ProcessId | None) -> tuple[Trace, ...]:
        """The others, as far as they have a portrait; the largest at its largest first."""
        peaks: dict[int, int] = {}
        for one in decoded:
            for number, size in one.processes.items():
                peaks[number] = max(size, peaks.get(number, 0))
        others = []
        for id, portrait in self._portraits.items():
            known = self._processes.get(id)
            if id != victim and known in peaks:
                others.append((peaks[known], known, portrait))
        others.sort(key=lambda other: -other[0])
        return tuple(trace(decoded, number, one) for _, number, one in others[:OTHERS_MAX])

    def _encoded(self, reading: Reading) -> bytes:
        pressure = reading.pressure
        head = HEAD.pack(
            reading.seconds,
            units(reading.available_bytes),
            units(reading.swap_free_bytes),
            math.nan if pressure is None else pressure.some_avg10,
            math.nan if pressure is None else pressure.full_avg10,
            len(reading.processes),
            len(reading.cgroups),
        )
        body = array("I")
        for id, size in reading.processes:
            body.extend((self._processes.take(id), units(size)))
        for one in reading.cgroups:
            number = self._cgroups.take(one.path)
            body.extend((number, units(one.usage_bytes), units(one.limit_bytes)))
        return head + body.tobytes()

    def _thin_out(self) -> None:
        samples = list(self._samples)
        half = len(samples) // 2
        self._samples = deque(samples[:half:2] + samples[half:])
        self._samples_bytes = sum(map(cost_bytes, self._samples))


def units(size_bytes: int | None) -> int:
    return NONE if size_bytes is None else min(size_bytes // UNIT_BYTES, NONE - 1)


def cost_bytes(sample: bytes) -> int:
    return sys.getsizeof(sample) + POINTER_BYTES


def size_of(portrait: Portrait) -> int:
    texts = [text for text in (*portrait.victim, portrait.bounding) if isinstance(text, str)]
    return PORTRAIT_BYTES + sum(map(sys.getsizeof, texts))


def seconds_of(sample: bytes) -> float:
    seconds: float = HEAD.unpack_from(sample)[0]
    return seconds


def unpacked(sample: bytes) -> Decoded:
    seconds, available, swap_free, some, full, processes, cgroups = HEAD.unpack_from(sample)
    body = array("I")
    body.frombytes(sample[HEAD.size :])
    first, second = body[: 2 * processes], body[2 * processes :]
    return Decoded(
        seconds,
        available * UNIT_BYTES,
        swap_free * UNIT_BYTES,
        None if math.isnan(some) else round(some, 2),
        None if math.isnan(full) else round(full, 2),
        {number: size * UNIT_BYTES for number, size in zip(first[::2], first[1::2], strict=True)},
        {
            second[at]: (
                second[at + 1] * UNIT_BYTES,
                None if second[at + 2] == NONE else second[at + 2] * UNIT_BYTES,
            )
            for at in range(0, 3 * cgroups, 3)
        },
    )


def one_sample(one: Decoded, number: int | None, bound: int | None, unix_offset: float) -> Sample:
    usage, limit = one.cgroups.get(bound, (None, None)) if bound is not None else (None, None)
    return Sample(
        time_unix_seconds=round(one.seconds + unix_offset, 3),
        victim_bytes=one.processes.get(number) if number is not None else None,
        available_bytes=one.available_bytes,
        swap_free_bytes=one.swap_free_bytes,
        cgroup_bytes=usage,
        cgroup_limit_bytes=limit,
        pressure_some_avg10=one.some,
        pressure_full_avg10=one.full,
    )


def trace(decoded: Sequence[Decoded], number: int, portrait: Portrait) -> Trace:
    victim = portrait.victim
    return Trace(
        portrait.id.pid,
        victim.name,
        victim.rule,
        victim.cgroup,
        tuple(one.processes.get(number) for one in decoded),
    )
