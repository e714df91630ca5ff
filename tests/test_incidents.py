"""Incidents on disk: complete or absent, bounded, and nothing else is lost over them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stories import GIB, KILLED_AT, MACHINE, MIB, TRAINER, by_kernel, copy, facts, flat, past

from oomwatchd.document import BOUNDS, LIMIT_BYTES, Unreadable, as_json, encoded, parsed
from oomwatchd.incident import Case, Incident, Task, Victim
from oomwatchd.incidents import Incidents, entries, entry, identifier
from oomwatchd.policy.contenders import contenders
from oomwatchd.policy.diagnosis import diagnose
from oomwatchd.scribe import Scribe

CASE = by_kernel(
    Task(4711, "python3", 1000, 0, 62 * GIB), Task(900, "chrome", 1000, 300, GIB)
)._replace(raw=("python3 invoked oom-killer", "Out of memory: Killed process 4711 (python3)"))
BEFORE = past(copy(31 * GIB, begins=-2.0, takes=1.9), [("chrome", 900, flat(GIB))])


def incident(at: float = KILLED_AT, *, pid: int = 4711, case: Case = CASE) -> Incident:
    given_facts = facts(case, BEFORE)
    return Incident(
        id=identifier(at, pid),
        time_unix_seconds=at,
        case=case,
        victim=TRAINER,
        candidates=contenders(case, MACHINE, lambda _pid, _name: None),
        past=BEFORE,
        diagnosis=diagnose(given_facts),
        advice="Do this.\nThen that.",
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state/incidents"


@pytest.fixture
def kept(directory: Path) -> Incidents:
    incidents = Incidents(directory, keep=3)
    incidents.prepare()
    return incidents


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- documents -------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_whole() -> None:
    """But for the kernel's table, which the candidates are made of."""
    assert parsed(encoded(incident())) == incident(case=CASE._replace(tasks=()))._replace(
        candidates=incident().candidates
    )


def test_how_many_died_is_known_though_not_all_are_written_down() -> None:
    many = CASE._replace(victims=tuple(TRAINER._replace(pid=at) for at in range(1000)))
    again = parsed(encoded(incident(case=many)))

    assert len(again.case.victims) == BOUNDS.victims
    assert again.case.victims_left_out == 1000 - BOUNDS.victims
    assert as_json(again)["victims_total"] == 1000


@pytest.mark.parametrize(
    ("name", "value", "unknown"),
    [
        ("shmem_bytes", 7, None),
        ("swap_limit_bytes", 7, None),
        ("allocating_task", True, False),
        ("by_sysrq", True, False),
    ],
)
def test_a_document_from_before_a_field_was_told_is_read(
    name: str, value: Any, unknown: object
) -> None:
    told = incident(case=CASE._replace(**{name: value}))
    older = json.loads(encoded(told))
    del older[name]

    assert getattr(parsed(encoded(told)).case, name) == value
    assert getattr(parsed(json.dumps(older).encode()).case, name) == unknown


def test_the_field_names_are_those_of_the_contract() -> None:
    document = json.loads(encoded(incident()))

    assert document.keys() >= {
        "id", "time_unix_seconds", "killer", "scope", "victim",
        "limit_bytes", "candidates", "history", "diagnosis", "advice", "raw",
    }  # fmt: skip
    assert document["victim"].keys() >= {
        "pid", "name", "cmdline", "user", "unit", "cgroup", "rule", "oom_score_adj", "memory_bytes",
    }  # fmt: skip
    assert document["history"][0].keys() >= {
        "time_unix_seconds", "victim_bytes", "available_bytes", "swap_free_bytes", "cgroup_bytes",
        "pressure_some_avg10", "pressure_full_avg10",
    }  # fmt: skip
    assert document["diagnosis"].keys() == {"kind", "text", "growth_bytes_per_second"}
    assert document["candidates"][0].keys() >= {"pid", "name", "oom_score_adj", "points_pages"}


def test_a_document_has_a_bound_whatever_is_to_be_told() -> None:
    long = Victim(1, "x" * 200, cgroup="/" + "\u8a13" * 4000, cmdline="\x1b" * 4096)
    many = CASE._replace(
        victims=(long,) * 5000, raw=("y" * 1000,) * 5000, tasks=(CASE.tasks[0],) * 5000
    )
    hours = past(
        flat(GIB), [("chrome", 9, flat(MIB))] * 10, seconds=[-at / 4 for at in range(9600)]
    )

    raw = encoded(incident(case=many)._replace(past=hours))

    document = json.loads(raw)
    assert len(raw) <= LIMIT_BYTES
    assert document["victims_total"] == 5000
    assert document["raw"].startswith("yyy")


def test_a_long_history_keeps_its_end_in_full_and_its_beginning_sparse() -> None:
    hours = past(flat(GIB), [("chrome", 9, flat(MIB))], seconds=[-2400 + at for at in range(2400)])

    document = as_json(incident()._replace(past=hours))

    history, others = document["history"], document["others"]
    assert isinstance(history, list)
    assert isinstance(others, list)
    assert len(history) == BOUNDS.recent_samples + BOUNDS.older_samples == len(others[0]["bytes"])
    seconds = [one["time_unix_seconds"] - KILLED_AT for one in history]
    assert seconds[0] == -2400
    assert seconds[-300:] == [float(at) for at in range(-300, 0)]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("victim"),
        lambda document: document.update(format=2),
        lambda document: document.update(killer="somebody"),
        lambda document: document.update(history=[{}]),
        lambda document: document["others"][0]["bytes"].append(1),
        lambda document: document["victim"].update(pid="7"),
        lambda document: document["victim"].update(pid=True),
        lambda document: document.update(diagnosis={"kind": "sad", "text": ""}),
    ],
)
def test_what_is_not_an_incident_is_refused(change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads(encoded(incident()))
    change(document)

    with pytest.raises(Unreadable):
        parsed(json.dumps(document).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.one_of(st.binary(), json_values.map(lambda value: json.dumps(value).encode())))
def test_no_file_is_too_odd_to_be_refused(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        parsed(raw)


# -- files -----------------------------------------------------------------------------------------


def test_an_incident_is_one_file_for_root_and_its_group(kept: Incidents, directory: Path) -> None:
    kept.write(incident())

    assert names(directory) == ["20231114T221320Z-4711.json"]
    assert (directory / "20231114T221320Z-4711.json").stat().st_mode & 0o7777 == 0o640
    assert directory.stat().st_mode & 0o7777 == 0o750
    assert [one.incident for one in entries(directory)] == [parsed(encoded(incident()))]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_group_may_read(directory: Path) -> None:
    incidents = Incidents(directory, keep=3, group=4)
    incidents.prepare()
    incidents.write(incident())

    [path] = directory.iterdir()
    assert (directory.stat().st_gid, path.stat().st_gid) == (4, 4)


def test_two_kills_of_one_pid_in_one_second_are_two_files(kept: Incidents, directory: Path) -> None:
    ids = [kept.write(incident()).id for _ in range(3)]

    assert ids == [f"20231114T221320Z-4711{end}" for end in ("", "-2", "-3")]
    assert sorted(one.incident.id for one in entries(directory) if one.incident) == ids


def test_of_more_than_are_kept_the_oldest_go(kept: Incidents, directory: Path) -> None:
    for second in range(5):
        kept.write(incident(KILLED_AT + second))
        kept.prune()

    assert names(directory) == [f"20231114T22132{second}Z-4711.json" for second in (2, 3, 4)]


def test_foreign_files_and_those_that_cannot_be_read_stay(kept: Incidents, directory: Path) -> None:
    (directory / "19700101T000000Z-1.json").write_text("{}")
    (directory / "notes.txt").write_text("mine")
    (directory / "20000101T000000Z-1.json").mkdir()
    for second in range(5):
        kept.write(incident(KILLED_AT + second))
        kept.prune()

    left = names(directory)
    assert {"19700101T000000Z-1.json", "notes.txt", "20000101T000000Z-1.json"} <= set(left)
    faults = [one.fault for one in entries(directory) if one.incident is None]
    assert len(faults) == 2
    assert all(faults)


def test_a_link_is_not_followed(directory: Path, kept: Incidents, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(encoded(incident()))
    (directory / "20231114T221320Z-1.json").symlink_to(target)

    assert entry(directory / "20231114T221320Z-1.json").incident is None


def test_a_fifo_does_not_hold_us_up(directory: Path, kept: Incidents) -> None:
    os.mkfifo(directory / "20231114T221320Z-1.json")

    assert [one.incident for one in entries(directory)] == [None]


def test_what_a_crash_left_half_written_is_cleared_away(kept: Incidents, directory: Path) -> None:
    (directory / ".20231114T221320Z-4711.json.new").write_text("{")
    (directory / ".keep").write_text("")
    kept.prepare()

    assert names(directory) == [".keep"]


def test_a_disk_that_is_full_leaves_nothing_half_and_nothing_lost(
    kept: Incidents, directory: Path
) -> None:
    """A limit on the size of files stands in for the disk, in a process of its own."""
    kept.write(incident())
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            kept.write(incident(KILLED_AT + 1))
        except OSError:
            os._exit(7)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert names(directory) == ["20231114T221320Z-4711.json"]


def test_a_directory_that_cannot_be_made_is_a_fault_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scribe = Scribe(Incidents(tmp_path / "file/incidents", keep=3))
    scribe.keep(incident())

    assert scribe.close(5.0)
    [outcome] = scribe.outcomes()
    assert not outcome.written
    assert outcome.fault == "Not a directory"


def test_the_scribe_writes_and_tells(directory: Path) -> None:
    scribe = Scribe(Incidents(directory, keep=3))
    for second in range(5):
        scribe.keep(incident(KILLED_AT + second))

    assert scribe.close(5.0)
    assert [one.written for one in scribe.outcomes()] == [True] * 5
    assert len(names(directory)) == 3
    assert scribe.outcomes() == []


def test_only_the_incidents_since_a_time_are_read(kept: Incidents, directory: Path) -> None:
    for hours in range(3):
        kept.write(incident(KILLED_AT + 3600 * hours))

    since = KILLED_AT + 3600
    found = [one.path.name for one in entries(directory, since_unix_seconds=since)]

    assert found == ["20231115T001320Z-4711.json", "20231114T231320Z-4711.json"]
    assert list(entries(directory, since_unix_seconds=since, but=found)) == []
