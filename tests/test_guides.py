"""The guides in docs: every command in them runs, and what they show is what is said."""

import os
import pwd
import re
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import NOBODY, REPOSITORY, needs_root, written
from computer import GIB, SESSION, TRAINER, Computer
from guides import DOCS, blocks, guide
from live import until
from test_incidents import incident

from oomwatchd.auditing import UnitSettings
from oomwatchd.cli import exits
from oomwatchd.cli.audit import audit
from oomwatchd.cli.stored import as_text
from oomwatchd.config import parse
from oomwatchd.history import History
from oomwatchd.incident import Case, Incident, Machine
from oomwatchd.incidents import Incidents
from oomwatchd.postmortem import Clocks
from oomwatchd.postmortem import incident as explained

GUIDES = ["first-night", "exit-137", "values", "troubleshooting"]
# Of other programs, which are not on every machine; their options were looked up in their manuals.
ELSEWHERE = ("docker ", "kubectl ", "journalctl ", "systemctl ", "/usr/bin/time ")
TERMINAL = (
    f"{SESSION}/app.slice/app-org.gnome.Terminal.slice/"
    "vte-spawn-6a1f0c52-8d9e-4f3b-9c77-d2f1b0a3e845.scope"
)
SCOPE = "/oomwatchd.slice/oomwatchd-training-4711.scope"
LINES = [
    pytest.param(line, id=f"{name}: {line}")
    for name in GUIDES
    for block in blocks(guide(name), "sh")
    if not block.startswith("#!")
    for line in block.splitlines()
]
SCRIPTS = [block for name in GUIDES for block in blocks(guide(name), "sh") if block[:2] == "#!"]
IS_THERE = "import sys; sys.stdin.read()"
PATIENCE_SECONDS = 60.0


class Night(NamedTuple):
    """The guides' machine: with a daemon, a run of alice's, and a kill."""

    directory: Path
    config: Path
    environment: dict[str, str]
    trainer: int


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    directory = tmp_path_factory.mktemp("night")
    script = written(directory / "train.py", IS_THERE)
    kept = Incidents(directory / "incidents", keep=2)
    kept.prepare()
    kept.write(container_s(incident(time.time() - 60.0)))
    text = blocks(guide("first-night"), "yaml")[0]
    me = pwd.getpwuid(os.geteuid()).pw_name
    text = text.replace("alice", me).replace("train*.py", f"{directory}/train*.py")
    config = written(directory / "oomwatchd.yaml", f"metrics: {{listen: off}}\n{text}")
    programs = directory / "bin"
    programs.mkdir()
    runs = f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m oomwatchd "$@"\n'
    written(programs / "oomwatchd", runs).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "STATE_DIRECTORY": str(directory),
        "RUNTIME_DIRECTORY": str(directory),
    }
    with (
        subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE) as trainer,
        subprocess.Popen(["oomwatchd", "run", "-c", config], env=environment) as daemon,
    ):
        try:
            until((directory / "status.sock").exists, "the daemon runs")
            yield Night(directory, config, environment, trainer.pid)
        finally:
            trainer.kill()
            daemon.terminate()


def container_s(one: Incident) -> Incident:
    """As of a container, too, whose id is in the path; and of the unit that a runner is."""
    cgroup = "/system.slice/train.service/docker-3f2a9c1d7b60aa.scope"
    victim = one.victim._replace(cgroup=cgroup)
    other = victim._replace(pid=4712, unit="actions.runner.example.service")
    return one._replace(victim=victim, case=one.case._replace(victims=(victim, other)))


def as_here(line: str, night: Night) -> list[str]:
    """With this machine's file; with a process that is there, where one has to be."""
    words = line.split()
    command = words[1]
    if command in ("explain", "audit", "rank"):
        words += ["-c", str(night.config)]
    if command == "check":
        words.append(str(night.config))
    if command == "explain":
        words[2] = str(night.trainer)
    return words


@needs_root
@pytest.mark.parametrize("line", LINES)
def test_every_command_runs(line: str, night: Night) -> None:
    if line.startswith(ELSEWHERE):
        assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0
        return
    if line == "script/install":
        assert os.access(REPOSITORY / line, os.X_OK)  # script/chroot-check runs it
        return
    if '"$(docker' in line:
        line = re.sub(r'"\$\(docker .*\)"', "3f2a9c1d7b60", line)

    done = subprocess.run(
        as_here(line, night), cwd=night.directory, env=night.environment,
        capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
    )  # fmt: skip

    assert line.startswith("oomwatchd ")
    assert done.stderr == ""
    assert done.returncode in ({0, 1} if " audit" in line else {0})  # as this machine is


def test_there_is_a_script() -> None:
    assert len(SCRIPTS) == 1
    assert len(LINES) > 30


def step(directory: Path, killed: str) -> None:
    """The run ends as it is told to; of its kill for want of memory there is an incident."""
    programs = directory / "bin"
    programs.mkdir()
    kept = Incidents(directory / "incidents", keep=2)
    kept.prepare()
    written(directory / "pid", "").chmod(0o666)
    runs = "#!/bin/sh\necho $$ >pid\n" + ("exit 3\n" if killed == "not at all" else "kill -9 $$\n")
    written(programs / "python3", runs).chmod(0o755)
    asks = (
        f"#!{sys.executable}\n"
        "import sys\n"
        f"sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / 'tests')!r}]\n"
        f"if {killed == 'for want of memory'}:\n"
        "    import test_guides\n"
        f"    test_guides.leave_incident({str(directory)!r}, int(open('pid').read()))\n"
        "from oomwatchd.cli.main import main\n"
        "sys.exit(main([*sys.argv[1:], '--wait', '1s']))\n"
    )
    written(programs / "oomwatchd", asks).chmod(0o755)
    written(directory / "step", SCRIPTS[0])


def stepped(directory: Path, state: str = ".", **options: Any) -> subprocess.CompletedProcess[str]:
    path = f"{directory / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["sh", "step"], cwd=directory, capture_output=True, text=True, check=False,
        env={"PATH": path, "STATE_DIRECTORY": str(directory / state)},
        timeout=PATIENCE_SECONDS, **options,
    )  # fmt: skip


@pytest.mark.parametrize("killed", ["by hand", "for want of memory", "not at all"])
def test_the_script_for_pipelines_tells_one_kill_from_another(killed: str, tmp_path: Path) -> None:
    step(tmp_path, killed)

    done = stepped(tmp_path)

    said = {
        "by hand": "killed, but not for want of memory",
        "for want of memory": "was killed by the kernel: the machine was out of memory",
        "not at all": "",
    }[killed]
    assert done.returncode == (3 if killed == "not at all" else 137)
    assert said in done.stderr
    assert ("not for want of memory" in done.stderr) == (killed == "by hand")
    assert done.stdout == ""


STEPPED_WITHOUT: dict[str, dict[str, Any]] = {
    "rights": {"user": NOBODY, "group": NOBODY, "extra_groups": []},
    "the daemon": {"state": "absent"},
}


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        ("rights", "may not be read by you"),
        ("the daemon", "has not run here yet"),
        ("the program", "not found"),
    ],
)
@needs_root
def test_the_script_does_not_guess_if_it_cannot_be_told(lacking: str, told: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        step(directory, "by hand")
        if lacking == "the program":
            (directory / "bin/oomwatchd").unlink()
        done = stepped(directory, **STEPPED_WITHOUT.get(lacking, {}))

    assert done.returncode == 137
    assert told in done.stderr
    assert "killed; it cannot be told here by whom" in done.stderr
    assert "not for want of memory" not in done.stderr


def leave_incident(directory: str, pid: int) -> None:
    one = incident(time.time())
    victim = one.victim._replace(pid=pid)
    kept = Incidents(Path(directory) / "incidents", keep=2)
    kept.write(one._replace(victim=victim, case=one.case._replace(victims=(victim,))))


# -- the first night -------------------------------------------------------------------------------


def shown(text: str) -> list[list[str]]:
    return [block.splitlines() for block in blocks(text, "console")]


def test_the_kill_of_the_night_is_told_like_this() -> None:
    """It happened before there was a daemon, and is found in the journal."""
    case = Case("o", 1000.0, "systemd_oomd", TERMINAL, (), reason="memory pressure")
    machine = Machine(ram_bytes=32 * GIB, swap_bytes=2 * GIB, page_bytes=4096)
    clocks = Clocks(1_700_000_000.0, 1000.0, 1000.0)
    told = list(as_text(explained(case, History(600.0), machine, clocks, str, while_down=True)))
    text = guide("first-night")

    assert f"Killed {TERMINAL} due to memory pressure" in blocks(text, "text")[0]
    assert set(shown(text)[0]) - {"  ..."} <= set(told)
    assert len(shown(text)[0]) > 4


@pytest.mark.parametrize(
    ("place", "cgroup", "status"),
    [(1, TERMINAL, exits.NO), (2, SCOPE, exits.FINE)],
    ids=["exposed", "closed"],
)
@needs_root
def test_the_audits_of_the_night_read_like_this(
    place: int, cgroup: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = guide("first-night")
    config = parse(blocks(text, "yaml")[place - 1].replace("alice", "1000").encode(), "x").config
    with workstation(tmp_path, cgroup).sources() as sources:
        found = audit(Namespace(json=False, rule="training", pid=None), config, sources)

    assert found == status
    assert capsys.readouterr().out.splitlines() == shown(text)[place]


def workstation(directory: Path, cgroup: str) -> Computer:
    """Ubuntu 22.04 with a desktop, as the guide has it; the run is in *cgroup*, which is marked."""
    computer = Computer(directory)
    computer.version = (249, 11)
    computer.memory(ram=32, swap=2)
    conf = computer.files / "usr/lib/systemd/oomd.conf.d"
    conf.mkdir(parents=True)
    (conf / "10-oomd-defaults.conf").write_text("[OOM]\nDefaultMemoryPressureDurationSec=20s\n")
    computer.oomd()
    computer.session(owner=1000)
    computer.unit("-.slice", UnitSettings(swap="kill"))
    computer.unit(TERMINAL.rpartition("/")[2], UnitSettings(), 1000)  # scopes have no OOMPolicy=
    computer.unit(SCOPE.rpartition("/")[2], UnitSettings())
    shell, browser = f"{SESSION}/session.slice/gnome.service", f"{SESSION}/app.slice/firefox.scope"
    computer.process(80, b"gnome-shell", mib=900, cgroup=shell, parent=70)
    computer.process(81, b"firefox", mib=2600, cgroup=browser, parent=70, adj=100)
    computer.process(4700, b"bash", mib=6, cgroup=TERMINAL, parent=70)
    computer.process(
        TRAINER, b"python3", mib=18 * 1024, cgroup=cgroup, adj=-900, parent=4700,
        arguments=(b"python3", b"train.py"),
    )  # fmt: skip
    computer.cgroup(cgroup, mark="omit", owner=1000 if cgroup == TERMINAL else None)
    computer.cgroup(f"{SESSION}/init.scope", mark="omit")
    return computer


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GUIDES)
def test_the_configurations_load_without_a_warning(name: str) -> None:
    for block in blocks(guide(name), "yaml"):
        assert parse(block.replace("alice", "root").encode(), name).warnings == ()


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", guide(name))

    assert links
    for path, anchor in links:
        target = (DOCS / path).resolve() if path else DOCS / f"{name}.md"
        assert target.exists()
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}


def test_the_package_has_all_of_them() -> None:
    installed = (REPOSITORY / "packaging/debian/oomwatchd.docs").read_text().splitlines()

    assert [name for name in GUIDES if f"docs/{name}.md" not in installed] == []
