"""What gets installed: the unit, the default configuration, what the package is built with."""

import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

import oomwatchd
from oomwatchd.cli import exits
from oomwatchd.cli.run import READERS
from oomwatchd.config.load import parse
from oomwatchd.incidents import DIRECTORY_MODE
from oomwatchd.model import Config

CHECKOUT = Path(__file__).parent.parent
UNIT = CHECKOUT / "packaging/systemd/oomwatchd.service"
DEFAULT_CONFIG = CHECKOUT / "packaging/oomwatchd.yaml"
EXPOSURE_MAX = 2.8
CAPABILITIES = {
    "CAP_SYS_RESOURCE",
    "CAP_DAC_OVERRIDE",
    "CAP_SYS_PTRACE",
    "CAP_NET_ADMIN",
    "CAP_SYSLOG",
    "CAP_KILL",
}
DESCRIPTORS_PER_PROCESS = 3  # under a rule
RESIDENT_MIB = 32  # without any
HELD_KIB = 10  # each, the kernel's part included; measured with 2,000
# Each of them takes something away that the daemon does.
BREAKING = {
    "ProtectControlGroups",
    "ProtectKernelLogs",
    "ProcSubset",
    "PrivateNetwork",
    "PrivateUsers",
    "PrivatePIDs",
    "User",
}

needs_systemd_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian: systemd)"
)


def settings() -> dict[str, str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if line[:1].isalpha())
    return {name: value for name, _, value in lines}


# -- the unit --------------------------------------------------------------------------------------


@needs_systemd_analyze
def test_systemd_finds_nothing_to_object_to_in_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name  # the program has to exist
    copy.write_text(UNIT.read_text().replace("=/usr/bin/oomwatchd ", "=/bin/true "))

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd_analyze
def test_the_units_exposure_stays_low() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)

    assert exposure, done.stderr
    assert float(exposure[1]) <= EXPOSURE_MAX
    assert f"rates it {exposure[1]}." in UNIT.read_text()


def test_every_setting_stands_below_a_comment_of_its_own_or_its_groups() -> None:
    """A group is a run of lines; the first setting in it has the comment."""
    service = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    lines = service.splitlines()

    bare = [
        line
        for above, line in pairwise(lines)
        if line[:1].isalpha() and not (above.startswith("# ") or above[:1].isalpha())
    ]

    assert not bare


def test_the_unit_has_the_capabilities_that_are_used_and_no_others() -> None:
    assert set(settings()["CapabilityBoundingSet"].split()) == CAPABILITIES


def test_what_would_break_the_daemon_is_left_out_and_the_unit_says_why() -> None:
    reasons = UNIT.read_text().partition("# Missing on purpose:\n")[2]
    explained = set(re.findall(r"^# (\w+)(?:=\w+)?: ", reasons, re.MULTILINE))

    assert BREAKING.isdisjoint(settings())
    assert explained == BREAKING


def test_the_ledger_outlives_the_service() -> None:
    unit = settings()

    assert (unit["RuntimeDirectory"], unit["RuntimeDirectoryPreserve"]) == ("oomwatchd", "yes")


def test_incidents_can_be_read_by_those_who_may_read_the_log() -> None:
    """Its filter of system calls lets it give no file away: all that it makes is of the group."""
    unit = settings()

    assert (unit["Group"], unit["StateDirectory"]) == (READERS, "oomwatchd")
    assert unit["StateDirectoryMode"] == f"{DIRECTORY_MODE:04o}"


def test_the_service_is_the_last_to_be_killed_but_not_unkillable() -> None:
    unit = settings()

    assert (unit["OOMScoreAdjust"], unit["ManagedOOMPreference"]) == ("-900", "omit")


def test_its_memory_suffices_for_as_many_processes_as_its_descriptors() -> None:
    """Any user can start thousands of processes that a rule matches."""
    unit = settings()
    held = int(unit["LimitNOFILE"]) // DESCRIPTORS_PER_PROCESS
    needed_mib = RESIDENT_MIB + held * HELD_KIB / 1024

    assert needed_mib < int(unit["MemoryMax"].removesuffix("M"))
    assert held > 10_000


def test_no_limit_on_locked_memory_makes_an_allocation_fail() -> None:
    """Nor does it have the capability that would stand in for that: see `kernel.memory`."""
    assert settings()["LimitMEMLOCK"] == "infinity"


def test_a_faulty_configuration_is_not_tried_again() -> None:
    unit = settings()

    assert unit["Restart"] == "always"
    assert unit["RestartPreventExitStatus"] == str(exits.CONFIG)


# -- the default configuration ---------------------------------------------------------------------


def uncommented(text: str) -> str:
    """Settings are commented out by a ``#`` alone, what explains them has a space after it."""
    return re.sub(r"^#(?! \S)(?=.)", "", text, flags=re.MULTILINE)


def test_the_default_configuration_is_valid_and_changes_nothing() -> None:
    loaded = parse(DEFAULT_CONFIG.read_bytes(), "oomwatchd.yaml")

    assert loaded.config == Config()
    assert [fault.text for fault in loaded.warnings] == ["no rules: nothing will be changed"]


def test_the_rule_in_the_default_configuration_is_valid_once_uncommented() -> None:
    loaded = parse(uncommented(DEFAULT_CONFIG.read_text()).encode(), "oomwatchd.yaml")

    assert [rule.name for rule in loaded.config.rules] == ["model-training"]


# -- version and files -----------------------------------------------------------------------------


def script(name: str) -> str:
    return (CHECKOUT / "script" / name).read_text()


def test_the_version_is_written_down_once() -> None:
    named = re.compile(rf"(?<![\d.]){re.escape(oomwatchd.__version__)}(?![\d.])")
    places = ["pyproject.toml", "packaging", "script", "oomwatchd", ".ci"]
    files = [file for place in places for file in tree(CHECKOUT / place)]

    assert [file for file in files if named.search(file.read_text())] == [
        CHECKOUT / "oomwatchd/__init__.py"
    ]


def tree(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


def test_script_run_installs_the_libraries_that_pip_would() -> None:
    pyproject = (CHECKOUT / "pyproject.toml").read_text()
    of_users = re.sub(r"^(test|top) = .*", "", pyproject, flags=re.MULTILINE)
    of_pip = set(re.findall(r'"([A-Za-z-]+)>=', of_users))
    of_debian = {f"python3-{name.lower().replace('pyyaml', 'yaml')}" for name in of_pip}

    assert set(re.findall(r"python3-[a-z-]+", script("run"))) == of_debian


def test_nobody_is_told_to_have_pip_fetch_our_name() -> None:
    """It is published nowhere, so that anybody may publish something under it."""
    places = [CHECKOUT / name for name in ("README.md", "docs", "oomwatchd", "packaging", "script")]
    files = [file for place in places for file in tree(place) if file.suffix != ".svg"]
    fetches = re.compile(rb"oomwatchd\[\w|pip[\s:\\%]+(install[\s\\%]+)?['\"]?oomwatchd")

    assert [file for file in files if fetches.search(file.read_bytes())] == []


def test_build_deb_installs_what_the_package_says_it_is_built_with() -> None:
    control = (CHECKOUT / "packaging/debian/control").read_text()
    fields = control.partition("Build-Depends:\n")[2].partition("\nStandards")[0]
    names = {line.strip(" ,").partition(" (")[0] for line in fields.splitlines()}
    provided_by = {"debhelper-compat": "debhelper", "dh-sequence-python3": "dh-python"}
    installed = re.search(r"script/need (build-essential .*)", script("build-deb"))

    assert installed
    assert {provided_by.get(name, name) for name in names} | {"build-essential"} == set(
        installed[1].split()
    )
