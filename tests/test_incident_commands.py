"""`oomwatchd incidents` and `oomwatchd why`, asked as people and pipelines ask."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commands import needs_root, run, run_as_nobody
from stories import GIB, TRAINER
from test_incidents import CASE, incident

from oomwatchd.cli import exits
from oomwatchd.cli.main import main
from oomwatchd.incident import Case, Incident, Victim
from oomwatchd.incidents import Incidents, identifier

CONTAINER = "docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"
NOW = int(time.time())
ENDED_PID = 2**22 + 1  # above the highest pid there can be


@pytest.fixture
def kept(public_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Incidents:
    monkeypatch.setenv("STATE_DIRECTORY", str(public_directory))
    incidents = Incidents(public_directory / "incidents", keep=100)
    incidents.prepare()
    return incidents


def killed(seconds_ago: int = 60, *, case: Case = CASE, **fields: object) -> Incident:
    changes = {"pid": ENDED_PID, **fields}
    victim = Victim(**(TRAINER._asdict() | changes))
    at = float(NOW - seconds_ago)
    made = incident(at, case=case._replace(victims=(victim,)))
    return made._replace(id=identifier(at, victim.pid), victim=victim)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(list(arguments))
    return status, capsys.readouterr().out


# -- incidents -------------------------------------------------------------------------------------


def test_the_list_has_the_newest_first(kept: Incidents, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = kept.write(killed(600)), kept.write(killed(60))

    status, text = said(capsys, "incidents")

    assert status == exits.FINE
    assert text.index(second.id) < text.index(first.id)
    assert "sudden_copy" in text


def test_programs_get_the_list_with_the_fields_of_the_contract(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed())

    _, text = said(capsys, "incidents", "list", "--json")

    [row] = json.loads(text)
    assert list(row) == ["id", "time_unix_seconds", "killer", "scope", "victim"]
    assert row["victim"]["rule"] == "training"


def test_without_any_the_list_is_empty_and_that_is_fine(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "incidents", "--json") == (exits.FINE, "[]\n")
    assert said(capsys, "incidents")[0] == exits.FINE


@pytest.mark.parametrize("way", ["id", "beginning", "last"])
def test_one_is_shown_by_its_id_by_its_beginning_or_as_the_last(
    kept: Incidents, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    kept.write(killed(600))
    made = kept.write(killed(60))
    named = {"id": made.id, "beginning": made.id[:15], "last": "last"}[way]

    status, text = said(capsys, "incidents", "show", named)

    assert status == exits.FINE
    assert "was killed by the kernel: the machine was out of memory" in text
    assert "doubled in 1.9 s: from 31.0 GiB to 62.0 GiB" in text
    assert "<- killed" not in text  # the victim of this story is not in the table
    assert made.id in text


def test_programs_get_all_of_one(kept: Incidents, capsys: pytest.CaptureFixture[str]) -> None:
    made = kept.write(killed())

    _, text = said(capsys, "incidents", "show", made.id, "--json")

    document = json.loads(text)
    assert document["diagnosis"]["kind"] == "sudden_copy"
    assert len(document["history"]) == len(made.past.samples)
    assert "Killed process 4711" in document["raw"]


def test_a_page_is_written_for_the_one_that_is_named(
    kept: Incidents, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kept.write(killed())

    status, text = said(capsys, "incidents", "show", made.id, "--html", str(tmp_path / "page.html"))

    assert (status, text) == (exits.FINE, "")
    root = ElementTree.fromstring((tmp_path / "page.html").read_text())  # noqa: S314 - our own
    assert root.tag == "html"


def test_a_job_in_a_loop_of_restarts_is_told_to_be_one_on_the_screen_and_on_the_page(
    kept: Incidents, public_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        kept.write(killed(600 - 60 * number, pid=ENDED_PID + number))
    path = public_directory / "page.html"

    _, shown = said(capsys, "incidents", "show", "last")
    said(capsys, "incidents", "show", "last", "--html", str(path))
    _, why = said(capsys, "why", "--pid", str(ENDED_PID + 2))
    _, document = said(capsys, "incidents", "show", "last", "--json")

    for text in (shown, why, path.read_text()):
        assert "had been killed 2 times before" in " ".join(text.split())
    assert "2 times before" not in document


def test_a_page_of_the_list_is_that_of_the_newest(
    kept: Incidents, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(600))
    made = kept.write(killed(60))

    assert said(capsys, "incidents", "--html", str(tmp_path / "page.html")) == (0, "")
    assert made.id in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["show"], exits.USAGE),
        (["list", "20231114"], exits.USAGE),
        (["show", "20231114"], exits.NO),
        (["show", "last"], exits.NO),
        (["show", "x", "--html", "/no/such/directory/x"], exits.NO),
    ],
)
def test_what_cannot_be_shown_has_its_status(
    kept: Incidents, words: list[str], status: int
) -> None:
    assert main(["incidents", *words]) == status


def test_a_beginning_that_several_have_is_not_enough(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(60))
    kept.write(killed(600))

    assert main(["incidents", "show", "20"]) == exits.USAGE
    assert "2 incidents begin with 20" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_a_failure(kept: Incidents) -> None:
    kept.write(killed())

    assert main(["incidents", "--html", "/no/such/directory/x"]) == exits.NO_INPUT


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_shown(
    kept: Incidents, public_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kept.write(killed())
    (public_directory / "incidents/20200101T000000Z-1.json").write_text("{")

    assert main(["incidents"]) == exits.FINE
    captured = capsys.readouterr()
    assert made.id in captured.out
    assert "20200101T000000Z-1.json: not read: JSONDecodeError" in captured.err


def test_before_the_first_daemon_there_is_nothing_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "none"))

    assert main(["incidents"]) == exits.NO_INPUT
    assert main(["why", "--pid", str(ENDED_PID), "--wait", "0s"]) == exits.NO_INPUT


@needs_root
def test_who_may_not_read_them_is_told_so(kept: Incidents, public_directory: Path) -> None:
    kept.write(killed())

    done = run_as_nobody("incidents")

    assert done.returncode == exits.NOT_PERMITTED
    assert "may not be read by you" in done.stderr


def test_a_hostile_name_cannot_rewrite_the_screen(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x\x1b[2J\nforged"
    kept.write(killed(name=name, cmdline=name, unit=name, cgroup=f"/{name}"))

    for words in (["incidents"], ["incidents", "show", "last"], ["why", "--pid", str(ENDED_PID)]):
        _, text = said(capsys, *words)
        assert all(line.isprintable() for line in text.split("\n"))


# -- why -------------------------------------------------------------------------------------------


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> int:
    status, _ = said(capsys, "why", *words, "--wait", "0s")
    return status


def test_a_process_that_is_gone_was_killed_for_want_of_memory(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed())

    status, text = said(capsys, "why", "--pid", str(ENDED_PID))

    assert status == exits.FINE
    assert text.startswith(f"python3 (pid {ENDED_PID}) was killed by the kernel")


def test_a_sigkill_of_an_unknown_sender_is_no(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(case=CASE._replace(killer="unknown", scope="unknown")))

    assert ask(capsys, "--pid", str(ENDED_PID)) == exits.NO


def test_by_hand_is_no_and_the_reason_is_told(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(case=CASE._replace(by_sysrq=True)))

    status, text = said(capsys, "why", "--pid", str(ENDED_PID))

    assert status == exits.NO
    assert text.startswith(
        f"python3 (pid {ENDED_PID}) was killed by the kernel, by hand (SysRq f)\n"
    )
    assert "out of memory" not in text
    assert "whole machine" not in text


def test_of_whom_nothing_is_told_the_answer_is_no(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed())

    status, text = said(capsys, "why", "--pid", str(ENDED_PID + 1), "--json", "--wait", "0s")

    assert (status, text) == (exits.NO, "null\n")


@pytest.mark.parametrize(
    ("unit", "status"),
    [
        ("train.service", exits.FINE),
        ("train", exits.FINE),
        ("rain.service", exits.NO),
        ("train.scope", exits.NO),
    ],
)
def test_a_unit_is_found_by_its_name(
    kept: Incidents, capsys: pytest.CaptureFixture[str], unit: str, status: int
) -> None:
    kept.write(killed())

    assert ask(capsys, "--unit", unit) == status


@pytest.mark.parametrize(
    ("cgroup", "status"),
    [
        (f"/system.slice/{CONTAINER}", exits.FINE),
        (f"/sys/fs/cgroup/system.slice/{CONTAINER}", exits.FINE),
        ("/system.slice", exits.FINE),
        (CONTAINER[7:19], exits.FINE),  # what `docker ps` shows of it
        ("/system.slice/docker-0123", exits.NO),
        ("fedcba", exits.NO),
    ],
)
def test_a_container_is_found_by_its_cgroup_or_its_id(
    kept: Incidents, capsys: pytest.CaptureFixture[str], cgroup: str, status: int
) -> None:
    kept.write(killed(unit=None, cgroup=f"/system.slice/{CONTAINER}/init"))

    assert ask(capsys, "--cgroup", cgroup) == status


def test_what_is_older_than_asked_for_is_no_but_it_is_named(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    made = kept.write(killed(3 * 3600))

    status, text = said(capsys, "why", "--unit", "train", "--since", "1h", "--wait", "0s")

    assert status == exits.NO
    assert f"there is an older incident: {made.id}" in text
    assert ask(capsys, "--unit", "train", "--since", "4h") == exits.FINE


def test_each_victim_of_a_group_kill_counts(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    made = killed(case=CASE._replace(killer="oom_group"))
    second = TRAINER._replace(pid=ENDED_PID + 7)
    victims = (*made.case.victims, second)
    kept.write(made._replace(case=made.case._replace(victims=victims)))

    assert ask(capsys, "--pid", str(ENDED_PID + 7)) == exits.FINE


def test_the_newest_of_several_is_told(kept: Incidents, capsys: pytest.CaptureFixture[str]) -> None:
    kept.write(killed(600))
    made = kept.write(killed(60))

    _, text = said(capsys, "why", "--unit", "train", "--json")

    assert json.loads(text)["id"] == made.id


def test_an_old_kill_of_a_unit_is_no_answer_while_a_new_one_may_be_written(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(20 * 3600))
    made = killed(0)
    later = threading.Timer(0.3, lambda: kept.write(made))
    later.start()
    _, text = said(capsys, "why", "--unit", "train", "--wait", "20s", "--json")
    later.join()

    assert json.loads(text)["id"] == made.id
    assert ask(capsys, "--unit", "train") == exits.FINE


@pytest.mark.parametrize(
    ("seconds_before", "status"), [(10, exits.FINE), (3600, exits.NO)], ids=["just", "long"]
)
def test_who_is_cleared_up_after_a_kill_does_not_hide_it(
    kept: Incidents, capsys: pytest.CaptureFixture[str], seconds_before: int, status: int
) -> None:
    """A supervisor ends the rest of the unit by SIGKILL; or somebody has sent one today."""
    kept.write(killed(50 + seconds_before))
    kept.write(killed(50, case=CASE._replace(killer="unknown", scope="unknown")))

    assert ask(capsys, "--unit", "train") == status


def test_whom_the_incident_is_told_of_counts_also_where_the_list_of_victims_was_cut(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    made = killed(case=CASE._replace(killer="oom_group"))
    chief = TRAINER._replace(pid=ENDED_PID + 7)
    kept.write(made._replace(victim=chief))

    assert ask(capsys, "--pid", str(ENDED_PID + 7)) == exits.FINE


def test_a_pipeline_that_asks_at_once_waits_for_the_incident_to_be_written(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    later = threading.Timer(0.3, lambda: kept.write(killed(0)))
    later.start()
    status, _ = said(capsys, "why", "--pid", str(ENDED_PID), "--wait", "20s")
    later.join()

    assert status == exits.FINE


def test_who_is_alive_is_not_waited_for(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = said(capsys, "why", "--pid", str(os.getpid()), "--wait", "1h")

    assert status == exits.NO
    assert "is there" in text


def test_a_child_that_nobody_has_waited_for_counts_as_ended(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        kept.write(killed(0, pid=child.pid))

        assert ask(capsys, "--pid", str(child.pid)) == exits.FINE


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--pid", "x"],
        ["--pid", "1", "--unit", "x"],
        ["--pid", "1", "--since", "soon"],
        ["--pid", "1", "--wait", "5"],
        ["--pid", "-5"],
        ["--pid", "0"],
        ["--unit", ""],
        ["--cgroup", " "],
    ],
)
def test_a_question_that_is_none_is_a_usage_fault(words: list[str]) -> None:
    done = run("why", *words)

    assert done.returncode == exits.USAGE
    assert len(done.stderr.splitlines()) == 1


def test_a_size_of_the_limit_is_part_of_the_answer(
    kept: Incidents, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.write(killed(case=CASE._replace(killer="cgroup", scope="/x", limit_bytes=64 * GIB)))

    _, text = said(capsys, "why", "--pid", str(ENDED_PID))

    assert "was killed by the kernel at its cgroup's limit of 64.0 GiB" in text
