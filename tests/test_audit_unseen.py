"""An audit of processes whose cgroups cannot be looked at, or have names that are not UTF-8."""

import json
import os
from argparse import Namespace
from pathlib import Path

import pytest
from computer import GIB, SERVICE, TERMINAL, TRAINER, Computer, set_mark

from oomwatchd.auditing import Verdicts
from oomwatchd.auditor import answer
from oomwatchd.cli import exits
from oomwatchd.cli.audit import audit, reported
from oomwatchd.cli.check import promises_broken
from oomwatchd.kernel.cgroup import LEVELS_MAX
from oomwatchd.kernel.tree import CgroupTree
from oomwatchd.model import Config, Match, Rule
from oomwatchd.policy.audit import Auditor
from oomwatchd.surroundings import Target

TRAINING = Rule("training", Match(name=("python3",)), -900, shield="preference")
CONFIG = Config(rules=(TRAINING,))
OTHER = 4712
TOO_LONG = TERMINAL + f"/{'x' * 240}" * 17
TOO_LONG_REASON = "its cgroup could not be looked at: File name too long"


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def put_into(computer: Computer, pid: int, cgroup: bytes) -> None:
    """It says so; the cgroup need not be there."""
    (computer.proc.root / str(pid) / "cgroup").write_bytes(b"0::" + cgroup + b"\n")


def named_oddly(computer: Computer, name: bytes, limit: int) -> Path:
    """The trainer in a cgroup of that name below its service, with a limit."""
    computer.trainer(SERVICE, mib=50)
    put_into(computer, TRAINER, os.fsencode(SERVICE) + b"/" + name)
    directory = Path(f"{computer.cgroups}{SERVICE}/{os.fsdecode(name)}")
    directory.mkdir()
    (directory / "memory.max").write_text(f"{limit}\n")
    return directory


def audited(computer: Computer) -> dict[int, Verdicts]:
    with computer.sources() as sources:
        found = reported(CONFIG, sources).audited
    return {one.subject.holder.pid: one.verdicts for one in found}


def too_long(computer: Computer) -> None:
    """The trainer, beside another in a service with a limit."""
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    put_into(computer, TRAINER, TOO_LONG.encode())
    computer.process(OTHER, b"python3", mib=50, cgroup=SERVICE, adj=-900)
    computer.cgroup(SERVICE, limit=GIB)


def test_what_cannot_be_looked_at_is_unknown_and_says_why(computer: Computer) -> None:
    too_long(computer)
    verdicts = audited(computer)[TRAINER]

    for killer in ("cgroup", "oom_group", "systemd_oomd"):
        assert verdicts[killer].verdict == "unknown"
        assert verdicts[killer].reason == TOO_LONG_REASON
    assert verdicts["kernel"].verdict == "last_in_line"
    assert verdicts["oom_policy"].reason == "no other process of term.scope can be killed"


def test_what_is_unseen_of_one_spoils_nothing_that_is_said_of_others(computer: Computer) -> None:
    too_long(computer)
    verdicts = audited(computer)[OTHER]

    assert verdicts["cgroup"].verdict == "exposed"
    assert "is limited to 1.0 GiB" in verdicts["cgroup"].reason


def test_a_limit_above_it_that_was_seen_exposes_it_all_the_same(computer: Computer) -> None:
    too_long(computer)
    computer.cgroup(TERMINAL, limit=GIB)

    assert audited(computer)[TRAINER]["cgroup"].verdict == "exposed"


def test_where_not_even_the_path_is_told_nothing_is_said_of_units(computer: Computer) -> None:
    computer.trainer(SERVICE)
    subject, around = computer.survey()
    untold = subject._replace(
        holder=subject.holder._replace(cgroup=""), line=CgroupTree(computer.cgroups).line("")
    )
    found = Auditor(around).verdicts(untold)
    unknown = [killer for killer, verdict in found.items() if verdict.verdict == "unknown"]

    assert unknown == ["cgroup", "oom_group", "oom_policy"]


def test_cgroup_v1_has_no_groups_to_be_killed_seen_or_unseen(tmp_path: Path) -> None:
    computer = Computer(tmp_path, unified=False)
    computer.trainer(TERMINAL)
    put_into(computer, TRAINER, TOO_LONG.encode())
    verdicts = audited(computer)[TRAINER]

    assert (verdicts["cgroup"].verdict, verdicts["oom_group"].verdict) == ("unknown", "absent")


def test_without_systemd_oomd_no_mark_need_be_seen(computer: Computer) -> None:
    computer.trainer(TERMINAL)
    put_into(computer, TRAINER, TOO_LONG.encode())

    assert audited(computer)[TRAINER]["systemd_oomd"].verdict == "absent"


def test_the_daemon_s_audit_counts_the_others(computer: Computer) -> None:
    too_long(computer)
    targets = [[pid, 100, -900, "training"] for pid in (TRAINER, OTHER)]
    question = {"rules": {"training": [-900, None, "preference"]}, "targets": targets}
    with computer.sources() as sources:
        exposed = answer(question, sources)["exposed"]

    assert ["training", "cgroup", 1] in exposed
    assert ["training", "systemd_oomd", 0] in exposed


def test_check_does_not_warn_of_a_mark_that_it_cannot_see(computer: Computer) -> None:
    too_long(computer)
    with computer.sources() as sources:
        broken = promises_broken([Target(TRAINER, 100, TRAINING, -900)], sources)

    assert broken == []


def test_a_file_that_cannot_be_read_is_not_one_without_a_limit(computer: Computer) -> None:
    computer.trainer(SERVICE)
    limit = Path(f"{computer.cgroups}{SERVICE}/memory.max")
    limit.unlink()
    limit.mkdir()

    assert audited(computer)[TRAINER]["cgroup"] == (
        "unknown", "its cgroup could not be looked at: Is a directory", "", None,
    )  # fmt: skip


def test_the_scope_of_a_user_s_manager_may_be_what_is_not_seen(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    scope = next(computer.cgroups.glob("user.slice/*/*/init.scope"))
    (scope / "memory.max").unlink()
    (scope / "memory.max").mkdir()
    verdict = audited(computer)[TRAINER]["systemd_oomd"]

    assert verdict.verdict == "unknown"
    assert verdict.reason.endswith("init.scope could not be looked at: Is a directory")


def test_of_cgroups_nested_by_the_thousand_only_the_upper_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    line = CgroupTree(tmp_path).line("/a" * 1950)

    assert [cgroup.path for cgroup in line[:3]] == ["/", "/a", "/a/a"]
    assert len(line) == LEVELS_MAX + 2
    assert line[-1].path == "/a" * 1950
    assert line[-1].unseen == "more than 64 cgroups lie above it"


def test_a_cgroup_that_the_kernel_does_not_tell_is_not_the_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    [root, own] = CgroupTree(tmp_path).line("")

    assert (root.path, root.unseen) == ("/", "")
    assert own.unseen == "the kernel does not tell which it is, as its path is too long"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9", "caf\\xe9"),
        (b"caf\\xe9", "caf\\xe9"),  # systemd writes such names itself
        ("caf\u00e9".encode(), "caf\u00e9"),
    ],
)
def test_a_limit_is_seen_whatever_the_cgroup_is_called(
    computer: Computer, name: bytes, shown: str
) -> None:
    named_oddly(computer, name, 64 << 20)
    verdict = audited(computer)[TRAINER]["cgroup"]

    assert verdict.verdict == "exposed"
    assert verdict.reason.startswith(f"{SERVICE}/{shown} is limited to 64.0 MiB")


def test_so_are_its_mark_and_its_owner(computer: Computer) -> None:
    directory = named_oddly(computer, b"caf\xe9", GIB)
    set_mark(directory, "omit")
    subject, _ = computer.survey()

    assert subject.line[-1].preference == "omit"
    assert subject.line[-1].owner_uid == os.stat(directory).st_uid
    assert subject.line[-1].path == subject.holder.cgroup == f"{SERVICE}/caf\\xe9"


def test_such_a_name_can_be_shown(computer: Computer, capsys: pytest.CaptureFixture[str]) -> None:
    named_oddly(computer, b"caf\xe9", 64 << 20)
    with computer.sources() as sources:
        status = audit(Namespace(json=True, rule=None, pid=None), CONFIG, sources)
    [entry] = json.loads(capsys.readouterr().out)

    assert status == exits.NO
    assert entry["cgroup"] == f"{SERVICE}/caf\\xe9"


def test_configuration_that_could_not_be_read_is_told(
    computer: Computer, capsys: pytest.CaptureFixture[str]
) -> None:
    place = computer.files / "etc/systemd/oomd.conf.d"
    place.mkdir(parents=True)
    (place / "10.conf").symlink_to(place / "nowhere")
    computer.trainer(SERVICE)
    with computer.sources() as sources:
        audit(Namespace(json=True, rule=None, pid=None), CONFIG, sources)

    assert f"not read: {place}/10.conf: No such file" in capsys.readouterr().err
