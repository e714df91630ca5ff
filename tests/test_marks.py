"""Marks for systemd-oomd: who gets one, how it is kept, and that only ours are taken back."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgrouptree import OMIT, CgroupTree, cgroup_tree
from fakeproc import Fake, FakeProc, at_each_open
from shielded import APP, MANAGER_SCOPE, SERVICE, TERM, ShieldedWorld
from world import named

from oomwatchd.kernel.mark import CgroupFs, Refused, is_marked, mark, unmark
from oomwatchd.marks import PAUSE_SECONDS
from oomwatchd.record import Marking
from oomwatchd.shield import AGAIN_SECONDS, ALARM_PAUSE_SECONDS, ROUND_SECONDS

TRAINING = named("train", -900, shield="preference")
DATABASE = named("db", -500, shield="preference")
UNSHIELDED = named("cat", -100, shield="none")


@pytest.fixture
def tree() -> Iterator[CgroupTree]:
    with cgroup_tree() as tree:
        yield tree


@pytest.fixture
def world(fake: FakeProc, tmp_path: Path, tree: CgroupTree) -> Iterator[ShieldedWorld]:
    tree.add(MANAGER_SCOPE)
    world = ShieldedWorld(fake, tmp_path / "ledger.json", tree)
    yield world
    world.end_of_days()


# -- who is marked ---------------------------------------------------------------------------------


def test_the_cgroup_of_a_match_is_marked_and_remembered(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()

    assert world.tree.marked() == {SERVICE} == world.remembered_marks()
    assert world.tree.mark(SERVICE) == b"1"
    assert world.markings() == [(SERVICE, "applied")]


def test_in_a_user_s_manager_its_init_scope_is_marked_too(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.run(8, "cat", f"{APP}/other.scope")
    world.configure(TRAINING, UNSHIELDED)
    world.scan()

    assert world.tree.marked() == {TERM, MANAGER_SCOPE} == world.remembered_marks()


def test_two_in_one_cgroup_share_a_mark_until_the_last_has_gone(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.run(8, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.fake.exit(7)
    world.scan()
    still = world.tree.marked()
    world.fake.exit(8)
    world.scan()

    assert still == {TERM, MANAGER_SCOPE}
    assert world.tree.marked() == set() == world.remembered_marks()
    assert [result for cgroup, result in world.markings() if cgroup == TERM] == [
        "applied",
        "restored",
    ]


def test_the_manager_stays_marked_while_another_of_its_units_needs_it(
    world: ShieldedWorld,
) -> None:
    world.run(7, "train", TERM)
    world.run(8, "train", f"{APP}/other.scope")
    world.configure(TRAINING)
    world.scan()
    world.fake.exit(7)
    world.scan()

    assert world.tree.marked() == {f"{APP}/other.scope", MANAGER_SCOPE}


def test_of_a_delegated_unit_the_cgroup_within_it_is_marked(world: ShieldedWorld) -> None:
    inner = f"{TERM}/workers/one"
    world.run(7, "train", inner)
    world.configure(TRAINING)
    world.scan()

    assert world.tree.marked() == {inner, MANAGER_SCOPE}


def test_where_the_unit_is_killed_as_one_it_is_marked_too(world: ShieldedWorld) -> None:
    inner = f"{SERVICE}/workers/one"
    world.run(7, "db", inner)
    world.tree.set_group(SERVICE)
    world.tree.set_group("/system.slice")  # a slice is not the unit's to protect
    world.configure(DATABASE)
    world.scan()

    assert world.tree.marked() == {inner, SERVICE}


@pytest.mark.parametrize(
    "cgroup",
    [
        "/system.slice/docker-0123abc.scope",
        "/docker/0123abc",
        "/machine.slice/libpod-0123abc.scope/container",
        "/kubepods.slice/kubepods-burstable.slice/cri-containerd-0123abc.scope",
        "/kubelet-kubepods.slice/x",
        "/lxc.payload.web/system.slice/db.service",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-0123abc.scope",
        "/system.slice/web.service/libpod-payload-0123abc",
    ],
)
def test_containers_and_pods_are_left_alone(world: ShieldedWorld, cgroup: str) -> None:
    world.run(7, "db", cgroup)
    world.configure(DATABASE, kubernetes_pods="manage")
    world.scan()

    assert world.values() == [-500]
    assert world.tree.marked() == set() == world.remembered_marks()


@pytest.mark.parametrize("cgroup", ["/", "/../outside"])
def test_neither_the_root_nor_what_lies_outside_is_marked(
    world: ShieldedWorld, cgroup: str
) -> None:
    world.tree.root.with_name("outside").mkdir()
    world.fake.add(Fake(7, b"db", cgroup=f"0::{cgroup}\n"))
    world.configure(DATABASE)
    world.scan()

    assert world.tree.marked() == set() == world.remembered_marks()
    assert os.listxattr(world.tree.root.with_name("outside")) == []
    world.tree.root.with_name("outside").rmdir()


def test_who_is_under_rules_without_a_shield_is_not_marked(world: ShieldedWorld) -> None:
    world.run(7, "cat", SERVICE)
    world.configure(UNSHIELDED)
    world.scan()

    assert world.values() == [-100]
    assert world.tree.marked() == set()


def test_a_cgroup_of_any_name_is_marked(world: ShieldedWorld) -> None:
    hostile = f"{APP}/a b:\x1b[2J\\x2d\udcff.scope"
    world.run(7, "train", "/elsewhere")
    world.tree.add(hostile)
    (world.fake.root / "7/cgroup").write_bytes(os.fsencode(f"0::{hostile}\n"))
    world.configure(TRAINING)
    world.scan()

    assert world.tree.marked() == {hostile, MANAGER_SCOPE} == world.remembered_marks()


# -- kept ------------------------------------------------------------------------------------------


def is_woken(world: ShieldedWorld) -> bool:
    return bool(select.select([world.shield], [], [], 0)[0])


def settled(world: ShieldedWorld) -> None:
    """Our own marks, too, are news; after that, the shield listens again."""
    world.configure(TRAINING)
    world.scan()
    world.turn(ALARM_PAUSE_SECONDS)
    world.turn(ALARM_PAUSE_SECONDS)
    world.news()


def test_a_mark_that_is_removed_is_set_again_at_once(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    settled(world)
    asleep = not is_woken(world)
    world.tree.remove_mark(TERM)
    woken = is_woken(world)
    world.turn()

    assert asleep
    assert woken
    assert world.tree.marked() == {TERM, MANAGER_SCOPE}
    assert world.markings() == [(TERM, "repaired")]


def test_whoever_changes_attributes_all_day_wakes_us_only_so_often(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    settled(world)
    world.tree.remove_mark(TERM)
    world.turn()
    world.tree.remove_mark(TERM)
    asleep = not is_woken(world)
    world.turn()
    between = world.tree.mark(TERM)
    pause_seconds = world.shield.due_seconds - world.seconds
    world.turn(ALARM_PAUSE_SECONDS)

    assert asleep
    assert between is None
    assert pause_seconds == pytest.approx(ALARM_PAUSE_SECONDS)
    assert world.tree.mark(TERM) == b"1"


def test_what_was_missed_is_found_at_the_next_scan(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    settled(world)
    world.tree.remove_mark(TERM)
    world.turn()
    world.tree.remove_mark(TERM)
    world.scan(ALARM_PAUSE_SECONDS / 2)

    assert world.tree.mark(TERM) == b"1"


def test_all_marks_that_one_reload_removes_are_set_again(world: ShieldedWorld) -> None:
    scopes = [f"{APP}/{pid}.scope" for pid in range(100, 150)]
    for pid, scope in zip(range(100, 150), scopes, strict=True):
        world.run(pid, "train", scope)
    settled(world)
    for scope in scopes:
        world.tree.remove_mark(scope)
        world.turn()
    world.turn(ALARM_PAUSE_SECONDS)

    assert world.tree.marked() == {*scopes, MANAGER_SCOPE}


def test_a_process_that_is_moved_takes_its_mark_along(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.move(7, f"{APP}/other.scope")
    world.scans(2, ROUND_SECONDS)

    assert world.tree.marked() == {f"{APP}/other.scope", MANAGER_SCOPE} == world.remembered_marks()


def test_a_cgroup_that_vanishes_is_forgotten(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.fake.exit(7)
    world.tree.remove(TERM)
    world.scan()

    assert world.tree.marked() == set() == world.remembered_marks()


def test_a_process_whose_cgroup_has_gone_is_found_where_it_is_now(world: ShieldedWorld) -> None:
    for pid in range(7, 47):  # so many that each is looked up once a minute only
        world.run(pid, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    for pid in range(7, 47):
        world.move(pid, f"{APP}/other.scope")
    world.tree.remove(TERM)
    world.scan()
    world.scan()

    assert world.tree.marked() == {f"{APP}/other.scope", MANAGER_SCOPE} == world.remembered_marks()


def test_another_cgroup_of_the_same_name_is_marked_afresh(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.configure(TRAINING)
    world.scan()
    world.tree.again(TERM)
    world.scan()

    assert world.tree.mark(TERM) == b"1"
    assert TERM in world.remembered_marks()


def test_a_unit_that_is_restarted_is_marked_again_at_once(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()
    world.news()
    world.fake.exit(7)
    world.tree.again(SERVICE)
    world.run(8, "db", SERVICE)
    world.event()

    assert world.tree.mark(SERVICE) == b"1"
    assert world.markings() == [(SERVICE, "applied")]


def test_who_is_put_elsewhere_a_moment_after_its_start_is_followed(world: ShieldedWorld) -> None:
    """As desktops do with what is started from their menus."""
    for pid in range(100, 160):
        world.run(pid, "train", f"{APP}/{pid}.scope")
    world.configure(TRAINING)
    world.scans(20)
    world.run(7, "train", f"{APP}/shell.service")
    world.event()
    world.move(7, f"{APP}/app.scope")
    world.turn(world.shield.due_seconds - world.seconds)
    world.turn(AGAIN_SECONDS[0])

    assert world.tree.mark(f"{APP}/app.scope") == b"1"
    assert world.tree.mark(f"{APP}/shell.service") is None


def test_a_cgroup_that_vanishes_while_it_is_being_marked_is_no_fault(world: ShieldedWorld) -> None:
    world.run(7, "train", TERM)
    world.configure(TRAINING)

    def vanish(name: str) -> None:
        if name == "term.scope" and world.fake.pids():
            world.tree.remove(TERM)
            world.fake.everybody_exits()

    with at_each_open(vanish):
        world.scan()
    world.scan()

    assert world.remembered_marks() == set()
    assert (TERM, "refused") not in world.markings()


# -- ours and others' ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"1", b"yes", b"True", b"on"])
def test_a_mark_that_was_there_before_us_stays(world: ShieldedWorld, value: bytes) -> None:
    world.run(7, "db", SERVICE)
    world.tree.set_mark(SERVICE, value)
    world.configure(DATABASE)
    world.scan()
    remembered = world.remembered_marks()
    world.fake.exit(7)
    world.scan()

    assert remembered == set()
    assert world.tree.mark(SERVICE) == value
    assert world.markings() == []


def test_a_mark_that_says_no_is_none(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.tree.set_mark(SERVICE, b"0")
    world.configure(DATABASE)
    world.scan()

    assert world.tree.mark(SERVICE) == b"1"


def test_a_mark_on_another_cgroup_of_that_name_is_not_ours_to_take_back(
    world: ShieldedWorld,
) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()
    world.tree.again(SERVICE)
    world.tree.set_mark(SERVICE)
    world.fake.exit(7)
    world.scan()

    assert world.tree.marked() == {SERVICE}
    assert world.remembered_marks() == set()


def test_without_the_rule_the_mark_goes(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()
    world.configure(named("db", -500, shield="none"))
    world.scan()

    assert world.tree.marked() == set() == world.remembered_marks()
    assert world.values() == [-500]


def test_a_daemon_that_was_killed_leaves_marks_that_the_next_takes_back(
    world: ShieldedWorld,
) -> None:
    world.run(7, "db", SERVICE)
    world.run(8, "train", TERM)
    world.tree.set_mark(MANAGER_SCOPE)  # not ours
    world.configure(DATABASE, TRAINING)
    world.scan()
    world.end()
    world.start()
    world.configure(DATABASE)
    world.scan()
    first = world.tree.marked()
    world.end()
    world.start()
    world.configure()
    world.scan()

    assert first == {SERVICE, MANAGER_SCOPE}
    assert world.tree.marked() == {MANAGER_SCOPE}
    assert world.remembered_marks() == set()


def test_what_is_about_to_be_marked_is_remembered_before_it_is(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    seen = []

    def look(name: str) -> None:
        if name.endswith("ledger.json.new"):
            seen.append(world.tree.marked())

    with at_each_open(look):
        world.scan()

    assert seen
    assert all(marked == set() for marked in seen)
    assert world.remembered_marks() == {SERVICE}


def test_on_stop_restore_all_of_ours_are_taken_back(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.run(8, "train", TERM)
    world.tree.set_mark(TERM)
    world.configure(DATABASE, TRAINING)
    world.scan()
    world.shield.take_all_back(world.moment())

    assert world.tree.marked() == {TERM}
    assert world.remembered_marks() == set()


def test_a_dry_run_says_once_what_it_would_mark_and_marks_nothing(
    fake: FakeProc, tmp_path: Path, tree: CgroupTree
) -> None:
    world = ShieldedWorld(fake, tmp_path / "ledger.json", tree, dry_run=True)
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scans(3)
    markings = world.markings()
    world.end_of_days()

    assert markings == [(SERVICE, "applied")]
    assert tree.marked() == set()
    assert world.record.markings == {}
    assert not world.ledger_path.exists()


def test_a_dry_run_leaves_the_marks_of_the_daemon_beside_it(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()
    beside = ShieldedWorld(world.fake, world.ledger_path, world.tree, dry_run=True)
    beside.configure()
    beside.scan()
    beside.shield.close()
    beside.proc.close()

    assert world.tree.marked() == {SERVICE} == world.remembered_marks()


# -- refused ---------------------------------------------------------------------------------------


def test_what_the_kernel_refuses_is_tried_again_after_a_pause(world: ShieldedWorld) -> None:
    too_long = f"/{'x' * 300}"  # for the kernel's own cgroups, too
    world.fake.add(Fake(7, b"db", cgroup=f"0::{too_long}\n"))
    world.configure(DATABASE)
    world.scans(3)
    first = world.news()
    world.scan(PAUSE_SECONDS)

    assert first.count(Marking(too_long, DATABASE.name, "refused", "ENAMETOOLONG")) == 1
    assert world.markings() == [(too_long, "refused")]
    assert world.remembered_marks() == set()


def test_what_cannot_be_taken_back_stays_remembered(world: ShieldedWorld) -> None:
    world.run(7, "db", SERVICE)
    world.configure(DATABASE)
    world.scan()
    real = world.tree.root / "system.slice"
    real.rename(world.tree.root / "moved")
    real.symlink_to("moved")  # not by way of links
    world.configure()
    world.scan()
    kept = world.remembered_marks()
    real.unlink()
    (world.tree.root / "moved").rename(real)
    world.scans(2, PAUSE_SECONDS)

    assert kept == {SERVICE}
    assert world.tree.marked() == set() == world.remembered_marks()


# -- the edge itself -------------------------------------------------------------------------------


def test_a_link_on_the_way_is_not_followed(tree: CgroupTree, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tree.root / "link").symlink_to(tmp_path)
    tree.add("/real")
    (tree.root / "real/link").symlink_to(tmp_path / "precious")

    for path in ("/link/precious", "/real/link"):
        with pytest.raises(Refused), CgroupFs(tree.root).held(path):
            pass


def test_a_file_system_without_such_attributes_is_a_refusal() -> None:
    with (
        CgroupFs(Path("/proc")).held(f"/{os.getpid()}") as directory,
        pytest.raises(Refused) as refused,
    ):
        mark(directory)

    assert str(refused.value) in {"EPERM", "ENOTSUP", "EOPNOTSUPP"}


def test_a_path_may_be_longer_than_a_system_call_takes(tree: CgroupTree) -> None:
    directory, component = os.open(tree.root, os.O_RDONLY), "x" * 250
    for _ in range(20):
        os.mkdir(component, dir_fd=directory)
        inner = os.open(component, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.setxattr(directory, OMIT, b"1")
    os.close(directory)

    assert CgroupFs(tree.root).is_marked(f"/{component}" * 20)


def test_marking_and_taking_back(tree: CgroupTree) -> None:
    tree.add("/a")
    with CgroupFs(tree.root).held("/a") as cgroup:
        before = is_marked(cgroup)
        mark(cgroup)
        between = is_marked(cgroup)
        unmark(cgroup)
        unmark(cgroup)  # somebody else was quicker
        after = is_marked(cgroup)

    assert (before, between, after) == (False, True, False)
