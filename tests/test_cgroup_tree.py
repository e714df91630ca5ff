"""What the tree of cgroups tells of those above a process."""

from pathlib import Path

import pytest
from computer import set_mark
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.auditing import Cgroup, UnitName
from oomwatchd.kernel.tree import CgroupTree, parse_limit, paths_above, units_above

USER_SCOPE = "/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope/deeper"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").touch()
    return tmp_path


def made(root: Path, path: str, **files: str) -> Path:
    directory = root / path.strip("/")
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".")).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (b"max\n", None),
        (b"0\n", 0),
        (b"104857600\n", 104857600),
        (b"9223372036854771712\n", None),  # cgroup v1's way to say max
    ],
)
def test_a_limit_is_a_number_of_bytes_or_none(raw: bytes, limit: int | None) -> None:
    assert parse_limit(raw) == limit


@given(st.binary())
def test_what_is_no_limit_is_a_value_error(raw: bytes) -> None:
    try:
        limit = parse_limit(raw)
    except ValueError:
        return
    assert limit is None or isinstance(limit, int)


def test_the_line_goes_from_the_root_down_to_the_process(root: Path) -> None:
    made(root, "/a/b", memory_max="100\n", memory_current="7\n", memory_oom_group="1\n")

    line = CgroupTree(root).line("/a/b")

    assert [cgroup.path for cgroup in line] == ["/", "/a", "/a/b"]
    assert [cgroup.limit_bytes for cgroup in line] == [None, None, 100]
    assert (line[2].used_bytes, line[2].oom_group) == (7, True)
    assert [cgroup.leaf for cgroup in line] == [False, False, True]


def test_of_a_cgroup_that_has_gone_nothing_is_told(root: Path) -> None:
    [_, gone] = CgroupTree(root).line("/gone")

    assert gone == Cgroup("/gone")


@pytest.mark.parametrize(
    ("marks", "preference"),
    [([], "none"), (["avoid"], "avoid"), (["omit"], "omit"), (["avoid", "omit"], "omit")],
)
def test_of_both_marks_omit_counts(root: Path, marks: list[str], preference: str) -> None:
    directory = made(root, "/a")
    for mark in marks:
        set_mark(directory, mark)

    assert CgroupTree(root).line("/a")[1].preference == preference


def test_cgroup_v1_has_its_limits_elsewhere_and_no_marks(tmp_path: Path) -> None:
    directory = made(tmp_path, "/memory/a", memory_max="5\n")
    (directory / "memory.limit_in_bytes").write_text("100\n")
    (directory / "memory.memsw.limit_in_bytes").write_text("130\n")
    tree = CgroupTree(tmp_path)

    [_, cgroup] = tree.line("/a")

    assert not tree.unified
    assert (cgroup.limit_bytes, cgroup.swap_limit_bytes, cgroup.units) == (100, 30, ())


def test_a_user_s_scope_is_under_units_of_two_managers() -> None:
    units = [unit for _, units in units_above(USER_SCOPE) for unit in units]

    assert units == [
        UnitName(None, "-.slice"),
        UnitName(None, "user.slice"),
        UnitName(None, "user-1000.slice"),
        UnitName(None, "user@1000.service"),
        UnitName(1000, "-.slice"),
        UnitName(1000, "app.slice"),
        UnitName(1000, "term.scope"),
    ]


def test_what_lies_below_a_unit_is_nobody_s_unit() -> None:
    units = dict(units_above("/system.slice/box.service/user@1000.service/x.service"))

    assert list(units) == ["/", "/system.slice", "/system.slice/box.service"]


def test_a_name_that_would_clash_with_the_kernel_s_has_a_mark_of_its_own() -> None:
    assert dict(units_above("/_cpu.slice"))["/_cpu.slice"] == (UnitName(None, "cpu.slice"),)


def test_the_scope_of_a_user_s_manager_is_found_from_below(root: Path) -> None:
    scope = "/user.slice/user-1000.slice/user@1000.service/init.scope"
    made(root, scope)
    made(root, USER_SCOPE)
    tree = CgroupTree(root)

    found = tree.init_scope(USER_SCOPE)

    assert found is not None
    assert found.path == scope
    assert tree.init_scope("/system.slice/a.service") is None


@given(st.lists(st.text(st.characters(blacklist_characters="/"), min_size=1), min_size=1))
def test_the_paths_above_one_are_its_beginnings(components: list[str]) -> None:
    path = "/" + "/".join(components)

    above = list(paths_above(path))

    assert above[0] == "/"
    assert above[-1] == path
    assert len(above) == len(components) + 1
    assert all(path.startswith(one) for one in above)


def test_the_root_is_above_itself_alone() -> None:
    assert list(paths_above("/")) == ["/"]


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        ("/", "/a", True),
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a", "/ab", False),
        ("/a", "/", False),
    ],
)
def test_a_cgroup_holds_what_lies_in_it(outer: str, inner: str, *, holds: bool) -> None:
    assert Cgroup(outer).holds(inner) is holds
