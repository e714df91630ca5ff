"""What systemd-oomd can kill: who watches what, whose marks there are, and whether they count."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from computer import (
    CONTINUE,
    SERVICE,
    SESSION,
    TERMINAL,
    WATCHED,
    Build,
    Computer,
    Machines,
    as_expected,
    name_of,
)

from oomwatchd.auditing import Cgroup, Standing, UnitSettings, Unseen
from oomwatchd.policy.audit_systemd import honoured

machine = Machines()
SWAP = UnitSettings(swap="kill")


@machine(systemd_oomd="safe", oom_policy="safe")
def a_service_that_systemd_oomd_does_not_watch(computer: Computer) -> None:
    computer.oomd()
    computer.trainer(SERVICE)


@machine(systemd_oomd="exposed")
def a_terminal_as_debian_ships_it(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL, adj=-1000)


@machine(systemd_oomd="exposed")
def the_only_large_scope_is_omitted_and_the_manager_is_not(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    computer.cgroup(TERMINAL, mark="omit")


@machine(systemd_oomd="last_in_line")
def one_of_two_large_scopes_is_omitted_and_the_manager_is_not(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.trainer(TERMINAL)
    computer.process(81, b"browser", mib=4096, cgroup=f"{SESSION}/app.slice/web.scope")
    computer.cgroup(TERMINAL, mark="omit")


@machine(systemd_oomd="safe")
def the_scope_and_the_manager_are_omitted(computer: Computer) -> None:
    computer.oomd()
    computer.session(owner=1000)
    computer.trainer(TERMINAL)
    computer.cgroup(TERMINAL, mark="omit", owner=1000)
    computer.cgroup(f"{SESSION}/init.scope", mark="omit")


@machine(systemd_oomd="exposed")
def the_same_before_marks_of_users_counted(computer: Computer) -> None:
    the_scope_and_the_manager_are_omitted(computer)
    computer.version = (249, 11)


@machine(systemd_oomd="unknown")
def the_same_with_a_systemd_of_unknown_version(computer: Computer) -> None:
    the_scope_and_the_manager_are_omitted(computer)
    computer.version = Unseen("systemd did not answer within 10 s")


@machine(systemd_oomd="exposed")
def swap_watched_from_the_root_where_the_scope_is_a_user_s(computer: Computer) -> None:
    the_scope_and_the_manager_are_omitted(computer)
    computer.memory(swap=8)
    computer.unit("-.slice", SWAP)


@machine(systemd_oomd="safe")
def the_same_without_swap(computer: Computer) -> None:
    the_scope_and_the_manager_are_omitted(computer)
    computer.unit("-.slice", SWAP)


@machine(systemd_oomd="exposed")
def swap_watched_from_the_user_s_manager_where_the_scope_is_that_user_s(
    computer: Computer,
) -> None:
    the_scope_and_the_manager_are_omitted(computer)
    computer.memory(swap=8)
    computer.unit("user@1000.service", SWAP)


@machine(systemd_oomd="exposed")
def the_same_where_only_the_manager_s_scope_is_the_user_s(computer: Computer) -> None:
    swap_watched_from_the_user_s_manager_where_the_scope_is_that_user_s(computer)
    computer.cgroup(TERMINAL, owner=0)


@machine(systemd_oomd="safe")
def the_same_where_both_scopes_are_root_s(computer: Computer) -> None:
    the_same_where_only_the_manager_s_scope_is_the_user_s(computer)
    computer.cgroup(f"{SESSION}/init.scope", owner=0)


@machine(systemd_oomd="unknown")
def swap_perhaps_watched_from_a_user_s_slice_that_nobody_tells_of(computer: Computer) -> None:
    computer.oomd()
    computer.memory(swap=8)
    computer.trainer("/batch.slice/train.service")
    computer.cgroup("/batch.slice", owner=1000)
    computer.cgroup("/batch.slice/train.service", owner=1000, mark="omit")
    computer.unit("batch.slice", Unseen("systemd did not answer within 10 s"))


@machine(systemd_oomd="safe")
def the_same_without_swap_to_be_used_up(computer: Computer) -> None:
    swap_perhaps_watched_from_a_user_s_slice_that_nobody_tells_of(computer)
    computer.memory()


@machine(systemd_oomd="safe", oom_policy="safe")
def in_a_scope_of_our_own_under_all_of_that(computer: Computer) -> None:
    computer.oomd()
    computer.session()
    computer.memory(swap=8)
    computer.unit("-.slice", SWAP)
    scope = "/oomwatchd.slice/oomwatchd-training-4711.scope"
    computer.trainer(scope)
    computer.process(80, b"worker", mib=100, cgroup=scope)
    computer.cgroup(scope, mark="omit")
    computer.unit("oomwatchd-training-4711.scope", CONTINUE)


@machine(systemd_oomd="exposed")
def avoided_and_nobody_else_is_there(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.slice", WATCHED)
    computer.trainer("/train.slice/train.service")
    computer.cgroup("/train.slice/train.service", mark="avoid")


@machine(systemd_oomd="last_in_line")
def avoided_beside_another(computer: Computer) -> None:
    avoided_and_nobody_else_is_there(computer)
    computer.process(80, b"batch", mib=4096, cgroup="/train.slice/batch.service")


@machine(systemd_oomd="exposed")
def the_mark_is_on_the_slice_which_is_not_inherited(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.slice", WATCHED)
    computer.trainer("/train.slice/train-one.slice/train.service")
    computer.cgroup("/train.slice/train-one.slice", mark="omit")


@machine(systemd_oomd="exposed")
def the_mark_is_below_a_group_that_is_killed_whole(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.slice", WATCHED)
    computer.trainer("/train.slice/pod.service/one")
    computer.cgroup("/train.slice/pod.service/one", mark="omit")
    computer.cgroup("/train.slice/pod.service", group=True)


@machine(systemd_oomd="safe")
def in_a_cgroup_with_others_below_it(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.slice", WATCHED)
    computer.trainer("/train.slice/train.service")
    computer.cgroup("/train.slice/train.service/below")


@machine(systemd_oomd="absent")
def watched_by_nobody_that_runs(computer: Computer) -> None:
    computer.session()
    computer.trainer(TERMINAL)


@machine(systemd_oomd="unknown", earlyoom="unknown", nohang="unknown", ray="unknown",
         kubelet="unknown", kernel="last_in_line", oom_policy="unknown")  # fmt: skip
def where_others_processes_are_hidden(computer: Computer) -> None:
    computer.trainer(TERMINAL)
    computer.proc.exit(1)


@machine(systemd_oomd="unknown", earlyoom="unknown", nohang="unknown", ray="unknown",
         kubelet="unknown", kernel="unknown")  # fmt: skip
def where_others_are_hidden_and_the_value_is_not_enough(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1, mib=9000)
    computer.proc.exit(1)


@machine(systemd_oomd="absent")
def a_user_calls_his_program_systemd_oomd(computer: Computer) -> None:
    computer.session()
    computer.trainer(TERMINAL)
    computer.process(80, b"systemd-oomd", mib=2, cgroup=TERMINAL)


@machine(systemd_oomd="unknown")
def systemd_oomd_has_rules_of_its_own(computer: Computer) -> None:
    computer.oomd()
    computer.trainer(SERVICE)
    rules = computer.files / "etc/systemd/oomd/rules.d"
    rules.mkdir(parents=True)
    (rules / "20-site.oomrule").write_text("[Rule]\nMemoryPressureAbove=20%\n")


@machine(systemd_oomd="unknown", oom_policy="unknown")
def another_user_s_manager(computer: Computer) -> None:
    computer.oomd()
    computer.session(watched=CONTINUE)
    computer.trainer(TERMINAL)
    computer.process(80, b"worker", mib=100, cgroup=TERMINAL)
    for name in ("-.slice", "app.slice", "term.scope"):
        computer.unit(name, Unseen("only uid 1000 and root may ask its systemd"), manager=1000)


@machine(systemd_oomd="exposed")
def a_bus_of_five_megabytes_is_not_enough_to_go_first(computer: Computer) -> None:
    the_only_large_scope_is_omitted_and_the_manager_is_not(computer)
    computer.process(82, b"dbus-daemon", mib=5, cgroup=f"{SESSION}/app.slice/dbus.service")


@machine(systemd_oomd="exposed")
def what_the_manager_itself_holds_does_not_go_before_it(computer: Computer) -> None:
    the_only_large_scope_is_omitted_and_the_manager_is_not(computer)
    computer.process(83, b"(sd-pam)", mib=2000, cgroup=f"{SESSION}/init.scope")


@machine(systemd_oomd="safe")
def the_watched_cgroup_is_a_group_itself_which_does_not_count(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.slice", WATCHED)
    computer.trainer("/train.slice/train.service")
    computer.cgroup("/train.slice", group=True)
    computer.cgroup("/train.slice/train.service", mark="omit")


@machine(systemd_oomd="exposed")
def the_service_itself_is_watched(computer: Computer) -> None:
    computer.oomd()
    computer.unit("train.service", WATCHED)
    computer.trainer(SERVICE)


@machine(systemd_oomd="safe", oom_policy="unknown")
def systemd_does_not_answer_but_the_mark_is_root_s(computer: Computer) -> None:
    computer.oomd()
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)
    computer.cgroup(SERVICE, mark="omit")
    computer.version = Unseen("systemd did not answer within 10 s")
    for name in ("-.slice", "system.slice", "train.service"):
        computer.unit(name, computer.version)


@pytest.mark.parametrize(("build", "expected"), machine.cases, ids=name_of)
def test_the_verdicts_on(build: Build, expected: Mapping[str, Standing], tmp_path: Path) -> None:
    as_expected(Computer(tmp_path), build, expected)


def test_the_remedy_is_the_one_that_helps_against_swap_too(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.oomd()
    computer.session(watched=WATCHED._replace(swap="kill"), owner=1000)
    computer.memory(swap=8)
    computer.trainer(TERMINAL)
    computer.cgroup(TERMINAL, owner=1000)

    advice = computer.verdicts()["systemd_oomd"].advice
    assert advice == "shield: scope in rule training"


USER, ROOT = 1000, 0


@pytest.mark.parametrize(
    ("owner", "watched_owner", "version", "counts"),
    [
        (ROOT, ROOT, (247, 3), False),
        (ROOT, ROOT, (248, 0), True),
        (ROOT, USER, (249, 11), True),
        (USER, USER, (249, 11), False),
        (ROOT, USER, (252, 0), False),
        (ROOT, ROOT, (252, 0), True),
        (USER, USER, (252, 0), True),
        (ROOT, USER, (252, 39), True),
        (USER, USER, (257, 13), True),
        (USER, ROOT, (262, 1), False),
        (USER, 1001, (262, 1), False),
        (ROOT, ROOT, Unseen("not asked"), True),
        (ROOT, USER, Unseen("not asked"), None),
        (USER, USER, Unseen("not asked"), None),
        (USER, ROOT, Unseen("not asked"), False),
    ],
)
def test_whose_mark_counts_hangs_on_the_version(
    owner: int, watched_owner: int, version: tuple[int, int] | Unseen, *, counts: bool | None
) -> None:
    mine, watched = Cgroup("/a/b", owner_uid=owner), Cgroup("/a", owner_uid=watched_owner)

    assert honoured(mine, watched, version) is counts
