"""A cgroup's usage and the limit that bounds it, which may be that of one above."""

from pathlib import Path

import pytest
from fakebounds import cgroup

from oomwatchd.kernel.bounds import (
    BoundFiles,
    HeldBounds,
    Rise,
    bounding,
    names,
    parse_limit,
)


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (b"max\n", None),
        (b"536870912\n", 536870912),
        (b"0\n", 0),
        (b"9223372036854771712\n", None),  # cgroup v1, no limit
    ],
)
def test_limits_of_both_versions_are_read(raw: bytes, limit: int | None) -> None:
    assert parse_limit(raw) == limit


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_limit(b"many\n")


def test_the_least_limit_on_the_way_up_bounds_the_process(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", limit="500")
    cgroup(tmp_path, "/a/b", limit="900")
    cgroup(tmp_path, "/a/b/c")

    assert bounding("/a/b/c", names(tmp_path)) == "/a"


def test_of_equal_limits_the_deeper_is_meant(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", limit="500")
    cgroup(tmp_path, "/a/b", limit="500")

    assert bounding("/a/b", names(tmp_path)) == "/a/b"


@pytest.mark.parametrize("path", ["/a/b", "/gone/away", "/", "/../outside"])
def test_without_a_limit_it_is_the_process_s_own(tmp_path: Path, path: str) -> None:
    cgroup(tmp_path, "/a")
    cgroup(tmp_path, "/a/b")

    assert bounding(path, names(tmp_path)) == path


def test_a_cgroup_nested_thousands_deep_takes_no_longer(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", limit="500")

    assert bounding("/a" + "/x" * 2000, names(tmp_path)) == "/a"


def test_usage_and_limit_are_read_as_they_change(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", usage=100, limit="500")
    files = BoundFiles("/a", names(tmp_path))
    first = files.read()
    cgroup(tmp_path, "/a", usage=200)

    second = files.read()
    files.close()

    assert (first, second) == ((100, 500), (200, None))


def test_version_1_has_other_names(tmp_path: Path) -> None:
    directory = tmp_path / "memory/job"
    directory.mkdir(parents=True)
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1\n")
    (directory / "memory.usage_in_bytes").write_text("4096\n")
    (directory / "memory.limit_in_bytes").write_text("8192\n")
    files = BoundFiles("/job", names(tmp_path))

    read = files.read()
    files.close()

    assert read == (4096, 8192)


def test_the_root_has_no_such_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BoundFiles("/", names(tmp_path))


def test_a_usage_is_read_without_the_limit_which_stays_as_it_was_read(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", usage=100, limit="500")
    held = HeldBounds(tmp_path)
    held.keep({"/a"})
    first = held.read(limits=True)
    cgroup(tmp_path, "/a", usage=200, limit="300")

    second, third = held.read(limits=False), held.read(["/a", "/unknown"], limits=True)
    held.close()

    assert (first, second, third) == ({"/a": (100, 500)}, {"/a": (200, 500)}, {"/a": (200, 300)})


def test_cgroups_are_held_for_as_long_as_they_are_asked_for(tmp_path: Path) -> None:
    for path in ("/a", "/b"):
        cgroup(tmp_path, path)
    held = HeldBounds(tmp_path)

    news = [held.keep(paths) for paths in ({"/a", "/"}, {"/a", "/"}, {"/a", "/b"}, {"/b"})]
    left = held.read(limits=True)
    held.close()

    assert news == [True, False, True, False]
    assert left.keys() == {"/b"}


# -- kills -----------------------------------------------------------------------------------------


def test_a_cgroup_tells_once_how_many_were_killed_since_it_is_held(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", oom=3, oom_kill=5)
    cgroup(tmp_path, "/b")
    held = HeldBounds(tmp_path)
    held.keep({"/a", "/b"})
    before = held.risen()
    cgroup(tmp_path, "/a", oom=4, oom_kill=7)
    told = [held.risen() for _ in range(2)]
    held.close()

    assert before == {}
    assert told == [{"/a": Rise(2, own_limit=True)}, {}]


def test_killed_for_another_s_memory_is_not_killed_for_its_own_limit(tmp_path: Path) -> None:
    cgroup(tmp_path, "/a", oom=3)
    held = HeldBounds(tmp_path)
    held.keep({"/a"})
    cgroup(tmp_path, "/a", oom=3, oom_kill=1)
    told = held.risen()
    held.close()

    assert told == {"/a": Rise(1, own_limit=False)}


def test_version_1_tells_nothing_of_kills(tmp_path: Path) -> None:
    directory = tmp_path / "memory/job"
    directory.mkdir(parents=True)
    for name in ("memory.usage_in_bytes", "job/memory.usage_in_bytes", "job/memory.limit_in_bytes"):
        (tmp_path / "memory" / name).write_text("4096\n")
    held = HeldBounds(tmp_path)
    held.keep({"/job"})
    told = held.risen()
    held.close()

    assert told == {}
