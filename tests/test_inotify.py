"""Being told of changed attributes: of which directories, and what the kernel leaves out."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgrouptree import OMIT, CgroupTree, cgroup_tree

from oomwatchd.kernel.inotify import AttributeEvents


@pytest.fixture
def tree() -> Iterator[CgroupTree]:
    with cgroup_tree() as tree:
        tree.add("/a", "/b", "/\udcff")
        yield tree


@pytest.fixture
def events() -> Iterator[AttributeEvents]:
    events = AttributeEvents()
    yield events
    events.close()


def test_it_tells_who_has_changed_and_of_each_once(
    tree: CgroupTree, events: AttributeEvents
) -> None:
    paths = [f"{tree.root}/{name}" for name in ("a", "b", "\udcff")]
    for path in paths:
        events.watch(path)
    before = events.drain()
    tree.set_mark("/a")
    tree.set_mark("/\udcff")
    tree.remove_mark("/a")
    readable = select.select([events], [], [], 0)[0]

    assert before == set()
    assert readable
    assert events.drain() == {paths[0], paths[2]}
    assert events.drain() == set()


def test_what_happens_within_a_directory_is_no_news(
    tree: CgroupTree, events: AttributeEvents
) -> None:
    events.watch(f"{tree.root}/a")
    (tree.root / "a/file").write_text("")
    os.setxattr(tree.root / "a/file", OMIT, b"1")

    assert events.drain() == set()


def test_of_who_is_watched_no_more_nothing_is_told(
    tree: CgroupTree, events: AttributeEvents
) -> None:
    path = f"{tree.root}/a"
    events.watch(path)
    events.unwatch(path)
    events.unwatch(path)
    tree.set_mark("/a")

    assert events.drain() == set()


def test_a_directory_that_has_gone_can_be_watched_again_under_its_name(
    tree: CgroupTree, events: AttributeEvents
) -> None:
    path = f"{tree.root}/a"
    events.watch(path)
    tree.again("/a")
    events.watch(path)
    events.drain()
    tree.set_mark("/a")
    told = events.drain()
    tree.remove("/a")
    events.drain()
    events.unwatch(path)

    assert told == {path}


def test_neither_files_nor_links_are_watched(
    tree: CgroupTree, events: AttributeEvents, tmp_path: Path
) -> None:
    (tree.root / "file").write_text("")
    (tree.root / "link").symlink_to(tmp_path)

    for name in ("file", "link", "missing"):
        with pytest.raises(OSError, match=r"\[Errno"):
            events.watch(f"{tree.root}/{name}")


def test_when_there_was_too_much_to_tell_it_is_all_of_them(
    tree: CgroupTree, events: AttributeEvents
) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    paths = [f"{tree.root}/{name}" for name in ("a", "b")]
    for path in paths:
        events.watch(path)
    for _ in range(queue // 2 + 1):  # one after the other, as equal neighbours become one
        tree.set_mark("/a")
        tree.set_mark("/b")
    told = set[str]()
    while more := events.drain():
        told |= more

    assert told == set(paths)
