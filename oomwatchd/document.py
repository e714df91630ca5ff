"""An incident as JSON, and back.  The field names are a contract: they are only ever added to.

A document has a bound, whatever there is to tell: of long histories the older part becomes sparse,
of long lists the end is left out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, get_args

from oomwatchd.incident import (
    Case,
    Contender,
    Diagnosis,
    Incident,
    Killer,
    Kind,
    Past,
    Sample,
    Trace,
    Victim,
)

FORMAT: Final = 1
LIMIT_BYTES: Final = 1 << 20
KILLERS: Final[Mapping[str, Killer]] = {name: name for name in get_args(Killer)}
KINDS: Final[Mapping[str, Kind]] = {name: name for name in get_args(Kind)}

T = TypeVar("T")
Fields = Mapping[str, Any]  # as JSON gives them


class Unreadable(ValueError):
    """The text is not an incident that this program has written."""


class Bounds(NamedTuple):
    recent_samples: int  # in full
    older_samples: int
    victims: int
    candidates: int
    raw_characters: int


BOUNDS: Final = Bounds(300, 180, 64, 64, 65536)
STRICT: Final = Bounds(60, 40, 4, 16, 4096)


def encoded(incident: Incident) -> bytes:
    text = json.dumps(as_json(incident, BOUNDS))
    if len(text) > LIMIT_BYTES:  # paths of cgroups may be long
        text = json.dumps(as_json(incident, STRICT))
    return f"{text}\n".encode("ascii")


def as_json(incident: Incident, bounds: Bounds = BOUNDS) -> dict[str, object]:
    """All of it: what `incidents show` and `why` tell, and what is written down."""
    case = incident.case
    past = sparse(incident.past, bounds)
    return {
        **row(incident),
        "limit_bytes": case.limit_bytes,
        "swap_limit_bytes": case.swap_limit_bytes,
        "candidates": [one._asdict() for one in incident.candidates[: bounds.candidates]],
        "history": [one._asdict() for one in past.samples],
        "diagnosis": incident.diagnosis._asdict(),
        "advice": incident.advice,
        "raw": shortened(case.raw, bounds.raw_characters),
        "victims": [one._asdict() for one in case.victims[: bounds.victims]],
        "victims_total": len(case.victims) + case.victims_left_out,
        "others": [one._asdict() for one in past.others],
        "usage_bytes": case.usage_bytes,
        "file_cache_bytes": case.file_cache_bytes,
        "shmem_bytes": case.shmem_bytes,
        "asked_by": case.asked_by,
        "allocating_task": case.allocating_task,
        "by_sysrq": case.by_sysrq,
        "reason": case.reason,
        "sources": list(case.sources),
        "while_down": incident.while_down,
        "boot_seconds": case.boot_seconds,
        "key": case.key,
        "format": FORMAT,
    }


def row(incident: Incident) -> dict[str, object]:
    """What `incidents list` tells of each."""
    return {
        "id": incident.id,
        "time_unix_seconds": incident.time_unix_seconds,
        "killer": incident.case.killer,
        "scope": incident.case.scope,
        "victim": incident.victim._asdict(),
    }


def sparse(past: Past, bounds: Bounds) -> Past:
    """The last samples in full, and as many of the older ones as there is room for, evenly."""
    older = len(past.samples) - bounds.recent_samples
    if older <= bounds.older_samples:
        return past
    kept = [at * older // bounds.older_samples for at in range(bounds.older_samples)]
    kept += range(older, len(past.samples))
    return Past(
        tuple(past.samples[at] for at in kept),
        tuple(one._replace(bytes=tuple(one.bytes[at] for at in kept)) for one in past.others),
    )


def shortened(lines: Sequence[str], characters: int) -> str:
    """*lines* as one text; of a long one its beginning and its end, which tell the most."""
    text = "\n".join(lines)
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n[...]\n{text[-half:]}"


# -- and back --------------------------------------------------------------------------------------


def parsed(raw: bytes) -> Incident:
    """Raises Unreadable."""
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise Unreadable(f"its format is {document['format']!r}, not {FORMAT}")
        return incident_of(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def incident_of(document: Fields) -> Incident:
    victims = tuple(victim_of(one) for one in document["victims"])
    samples = tuple(sample_of(one) for one in document["history"])
    others = tuple(trace_of(one, len(samples)) for one in document["others"])
    case = Case(
        key=text(document["key"]),
        boot_seconds=float(document["boot_seconds"]),
        killer=KILLERS[document["killer"]],
        scope=text(document["scope"]),
        victims=victims,
        limit_bytes=maybe(whole, document["limit_bytes"]),
        swap_limit_bytes=maybe(whole, document.get("swap_limit_bytes")),  # later than the others
        usage_bytes=maybe(whole, document["usage_bytes"]),
        file_cache_bytes=maybe(whole, document["file_cache_bytes"]),
        shmem_bytes=maybe(whole, document.get("shmem_bytes")),  # so was this
        asked_by=maybe(text, document["asked_by"]),
        allocating_task=bool(document.get("allocating_task")),
        by_sysrq=bool(document.get("by_sysrq")),
        reason=maybe(text, document["reason"]),
        sources=tuple(text(one) for one in document["sources"]),
        raw=tuple(text(document["raw"]).split("\n")) if document["raw"] else (),
        victims_left_out=max(whole(document["victims_total"]) - len(victims), 0),
    )
    return Incident(
        id=text(document["id"]),
        time_unix_seconds=float(document["time_unix_seconds"]),
        case=case,
        victim=victim_of(document["victim"]),
        candidates=tuple(contender_of(one) for one in document["candidates"]),
        past=Past(samples, others),
        diagnosis=diagnosis_of(document["diagnosis"]),
        advice=text(document["advice"]),
        while_down=bool(document["while_down"]),
    )


def victim_of(fields: Fields) -> Victim:
    numbers = {
        name: maybe(whole, fields[name])
        for name in ("pid", "start_ticks", "oom_score_adj", "memory_bytes")
    }
    texts = {
        name: maybe(text, fields[name]) for name in ("cmdline", "user", "unit", "cgroup", "rule")
    }
    return Victim(
        pid=numbers["pid"],
        name=text(fields["name"]),
        start_ticks=numbers["start_ticks"],
        oom_score_adj=numbers["oom_score_adj"],
        memory_bytes=numbers["memory_bytes"],
        **texts,
    )


def contender_of(fields: Fields) -> Contender:
    return Contender(
        pid=whole(fields["pid"]),
        name=text(fields["name"]),
        oom_score_adj=whole(fields["oom_score_adj"]),
        memory_bytes=whole(fields["memory_bytes"]),
        points_pages=maybe(whole, fields["points_pages"]),
        rule=maybe(text, fields["rule"]),
    )


def sample_of(fields: Fields) -> Sample:
    return Sample(
        time_unix_seconds=float(fields["time_unix_seconds"]),
        victim_bytes=maybe(whole, fields["victim_bytes"]),
        available_bytes=whole(fields["available_bytes"]),
        swap_free_bytes=whole(fields["swap_free_bytes"]),
        cgroup_bytes=maybe(whole, fields["cgroup_bytes"]),
        cgroup_limit_bytes=maybe(whole, fields["cgroup_limit_bytes"]),
        pressure_some_avg10=maybe(float, fields["pressure_some_avg10"]),
        pressure_full_avg10=maybe(float, fields["pressure_full_avg10"]),
    )


def trace_of(fields: Fields, count: int) -> Trace:
    sizes = tuple(maybe(whole, one) for one in fields["bytes"])
    if len(sizes) != count:
        raise ValueError(f"{len(sizes)} sizes for {count} samples")
    return Trace(
        pid=whole(fields["pid"]),
        name=text(fields["name"]),
        rule=maybe(text, fields["rule"]),
        cgroup=maybe(text, fields["cgroup"]),
        bytes=sizes,
    )


def diagnosis_of(fields: Fields) -> Diagnosis:
    growth = maybe(float, fields["growth_bytes_per_second"])
    return Diagnosis(KINDS[fields["kind"]], text(fields["text"]), growth)


def maybe(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value
