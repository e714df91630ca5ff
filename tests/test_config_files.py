import os
import stat
from pathlib import Path

import pytest

from oomwatchd.config import ConfigError, Loaded, load
from oomwatchd.config.fault import Report
from oomwatchd.config.files import LIMIT_BYTES, check_owner
from oomwatchd.config.rules import Where
from oomwatchd.model import Config

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "oomwatchd.yaml"


def rules_text(*names: str) -> str:
    uid = sum(map(ord, "".join(names)))  # so that no rule stands in the way of another
    rules = (
        f"- {{name: {name}, match: {{user: {uid + index}}}, oom_score_adj: 1}}\n"
        for index, name in enumerate(names)
    )
    return "rules:\n" + "".join(rules)


def loaded(path: Path) -> Loaded:
    return load(path, root_only=False)


def load_faults(path: Path, *, root_only: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, root_only=root_only)
    return [str(fault).replace(str(path), "X") for fault in caught.value.faults]


def test_a_file_that_is_not_there_is_for_the_caller_to_tell(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        loaded(path)


def test_rules_of_fragments_follow_in_the_order_of_names(path: Path) -> None:
    directory = Path(f"{path}.d")
    directory.mkdir()
    path.write_text(rules_text("main"))
    (directory / "20-b.yaml").write_text(rules_text("fourth"))
    (directory / "10-a.yaml").write_text(rules_text("second", "third"))
    (directory / "30-empty.yaml").write_text("")

    result = loaded(path)

    assert [rule.name for rule in result.config.rules] == ["main", "second", "third", "fourth"]
    assert result.where["third"] == Where(str(directory / "10-a.yaml"), 3)
    assert str(result.where["main"]) == f"{path}:2"


def test_files_that_are_no_fragments_are_left_alone(path: Path) -> None:
    directory = Path(f"{path}.d")
    directory.mkdir()
    path.write_text("interval: 1s")
    for name in (".hidden.yaml", "a.yml", "a.yaml~", "a.yaml.dpkg-new", "README"):
        (directory / name).write_text("[")

    assert loaded(path).config == Config(interval_seconds=1.0)


def test_rules_in_fragments_alone_are_enough(path: Path) -> None:
    Path(f"{path}.d").mkdir()
    Path(f"{path}.d", "a.yaml").write_text(rules_text("one"))
    path.write_text("")

    assert loaded(path).warnings == ()


def test_a_fragment_holds_rules_only(path: Path) -> None:
    Path(f"{path}.d").mkdir()
    Path(f"{path}.d", "a.yaml").write_text("interval: 5s\n")
    path.write_text("")

    assert load_faults(path) == [
        "X.d/a.yaml:1:1: 'interval' does not belong here but at the top level of the main file; "
        "allowed: rules"
    ]


def test_what_cannot_be_read_as_a_fragment_is_its_fault(path: Path) -> None:
    directory = Path(f"{path}.d")
    directory.mkdir()
    path.write_text("colour: red")
    (directory / "a.yaml").symlink_to("nowhere")
    (directory / "b.yaml").mkdir()
    os.mkfifo(directory / "c.yaml")

    assert load_faults(path) == [
        "X:1:1: unknown key 'colour'; allowed: interval, events, metrics, pressure, "
        "unkillable_memory_max, kubernetes_pods, incidents, on_incident, on_pressure, on_stop, "
        "rules",
        "X.d/a.yaml:1:1: cannot be read: No such file or directory; "
        "make it readable or take it away",
        "X.d/b.yaml:1:1: is not a regular file; allowed: regular files, and links to them",
        "X.d/c.yaml:1:1: is not a regular file; allowed: regular files, and links to them",
    ]


def test_a_file_in_place_of_the_directory_is_a_fault(path: Path) -> None:
    path.write_text("")
    Path(f"{path}.d").write_text("")

    assert load_faults(path) == [
        "X.d:1:1: cannot be read: Not a directory; make it readable or take it away"
    ]


def test_a_name_that_is_not_text_can_be_told(path: Path) -> None:
    Path(f"{path}.d").mkdir()
    path.write_text("")
    with open(os.fsencode(f"{path}.d/") + b"\xff\n.yaml", "w") as file:
        file.write("[")

    [fault] = load_faults(path)

    assert fault.startswith(r"X.d/\udcff\n.yaml:1:2: is not valid YAML: ")
    assert fault.isprintable()


@pytest.mark.parametrize("special", ["directory", "fifo", "device"])
def test_what_is_no_file_is_neither_read_nor_waited_for(path: Path, special: str) -> None:
    if special == "directory":
        path.mkdir()
    elif special == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")

    assert load_faults(path) == [
        "X:1:1: is not a regular file; allowed: regular files, and links to them"
    ]


def test_a_link_is_followed(path: Path) -> None:
    (path.parent / "real.yaml").write_text("interval: 1s")
    path.symlink_to("real.yaml")

    assert loaded(path).config.interval_seconds == 1.0


def test_a_file_may_have_256_kibibytes_and_no_more(path: Path) -> None:
    path.write_bytes(b"#" * LIMIT_BYTES)
    assert loaded(path).config == Config()

    path.write_bytes(b"#" * (LIMIT_BYTES + 1))
    assert load_faults(path) == ["X:1:1: is too large; allowed: 256 KiB"]


@pytest.mark.parametrize(
    ("uid", "mode", "told"),
    [
        (0, 0o644, []),
        (0, 0o600, []),
        (1000, 0o644, ["must belong to root, not to uid 1000; chown root x.yaml"]),
        (
            0,
            0o664,
            ["must not be writable by group or others, mode is 0664; chmod go-w x.yaml"],
        ),
        (
            1000,
            0o602,
            [
                "must belong to root, not to uid 1000; chown root x.yaml",
                "must not be writable by group or others, mode is 0602; chmod go-w x.yaml",
            ],
        ),
    ],
)
def test_root_alone_may_write_the_file(uid: int, mode: int, told: list[str]) -> None:
    report = Report("x.yaml")

    check_owner(os.stat_result((stat.S_IFREG | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0)), report)

    assert [fault.text for fault in report.faults] == told


@needs_root
def test_every_file_and_the_directory_are_asked_whose_they_are(path: Path) -> None:
    directory = Path(f"{path}.d")
    directory.mkdir(mode=0o755)
    fragment = directory / "a.yaml"
    for file in (path, fragment):
        file.write_text("")
        file.chmod(0o644)
    assert load(path, root_only=True).config == Config()

    os.chown(path, 65534, 0)
    directory.chmod(0o775)
    fragment.chmod(0o646)
    fragment.write_text("events: x")

    assert load_faults(path, root_only=True) == [
        "X:1:1: must belong to root, not to uid 65534; chown root X",
        "X.d:1:1: must not be writable by group or others, mode is 0775; chmod go-w X.d",
        "X.d/a.yaml:1:1: 'events' does not belong here but at the top level of the main file; "
        "allowed: rules",
        "X.d/a.yaml:1:1: must not be writable by group or others, mode is 0646; "
        "chmod go-w X.d/a.yaml",
    ]
    fragment.write_text("")
    assert load(path, root_only=False).config == Config()
