"""Machines, and what can kill the training run on each."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from computer import (
    ALL_RIGHTS,
    CONTINUE,
    GIB,
    SERVICE,
    TERMINAL,
    TRAINER,
    Build,
    Computer,
    Machines,
    as_expected,
    name_of,
)

from oomwatchd.auditing import Standing, UnitSettings, Unseen

machine = Machines()


# -- services --------------------------------------------------------------------------------------


@machine(kernel="last_in_line", cgroup="absent", oom_group="absent", oom_policy="safe",
         systemd_oomd="absent")  # fmt: skip
def a_service_of_its_own_and_nothing_else(computer: Computer) -> None:
    computer.trainer(SERVICE)


@machine(oom_policy="exposed")
def workers_in_a_service_with_the_default_policy(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)


@machine(oom_policy="safe")
def workers_in_a_service_that_continues(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)
    computer.unit("train.service", CONTINUE)


@machine(kernel="safe", oom_policy="exposed")
def at_minus_1000_in_a_service_that_stops(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)


@machine(oom_policy="safe")
def workers_that_can_not_be_killed_either(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE, adj=-1000)


@machine(kernel="safe", oom_group="exposed", oom_policy="exposed")
def at_minus_1000_in_a_service_that_kills(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)
    computer.cgroup(SERVICE, group=True)
    computer.unit("train.service", UnitSettings(oom_policy="kill"))


@machine(kernel="safe", oom_group="safe", oom_policy="absent")
def at_minus_1000_in_a_group_that_systemd_does_not_know(computer: Computer) -> None:
    computer.trainer("/lxc/box", adj=-1000)
    computer.process(80, b"worker", mib=100, cgroup="/lxc/box")
    computer.cgroup("/lxc/box", group=True)


@machine(oom_group="exposed")
def at_minus_999_in_a_group(computer: Computer) -> None:
    computer.trainer("/lxc/box", adj=-999)
    computer.process(80, b"worker", mib=100, cgroup="/lxc/box")
    computer.cgroup("/lxc/box", group=True)


@machine(oom_group="safe", oom_policy="safe")
def alone_in_a_group(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.cgroup(SERVICE, group=True)
    computer.unit("train.service", UnitSettings(oom_policy="kill"))


@machine(oom_group="safe", oom_policy="safe")
def alone_in_a_group_at_minus_1000(computer: Computer) -> None:
    alone_in_a_group(computer)
    computer.proc.set_oom_score_adj(TRAINER, -1000)


@machine(oom_group="safe", oom_policy="safe")
def in_a_group_where_nobody_can_be_killed(computer: Computer) -> None:
    alone_in_a_group_at_minus_1000(computer)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE, adj=-1000)


@machine(oom_group="unknown", earlyoom="unknown", nohang="unknown", ray="unknown",
         kubelet="unknown")  # fmt: skip
def alone_in_a_group_as_far_as_can_be_seen(computer: Computer) -> None:
    alone_in_a_group_at_minus_1000(computer)
    computer.proc.exit(1)


@machine(oom_group="safe", earlyoom="unknown", nohang="unknown", ray="unknown",
         kubelet="unknown")  # fmt: skip
def at_minus_1000_in_a_group_whose_others_are_hidden_but_that_systemd_does_not_know(
    computer: Computer,
) -> None:
    computer.trainer("/lxc/box", adj=-1000)
    computer.cgroup("/lxc/box", group=True)
    computer.proc.exit(1)


@machine(oom_policy="unknown", systemd_oomd="unknown")
def systemd_does_not_answer(computer: Computer) -> None:
    computer.oomd()
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE)
    for name in ("-.slice", "system.slice", "train.service"):
        computer.unit(name, Unseen("systemd did not answer within 10 s"))


@machine(oom_policy="safe")
def systemd_does_not_answer_but_nobody_else_is_there(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.unit("train.service", Unseen("systemd did not answer within 10 s"))


# -- the whole machine -----------------------------------------------------------------------------


@machine(kernel="exposed")
def the_largest_without_a_value(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=0)


@machine(kernel="last_in_line")
def some_protection_and_much_that_goes_first(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-100)
    computer.process(80, b"other", mib=9000, cgroup="/system.slice/other.service")


@machine(kernel="exposed", cgroup="exposed")
def the_kernel_is_to_panic(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.cgroup("/system.slice", limit=16 * GIB)
    computer.setting("panic_on_oom", 2)


@machine(kernel="exposed")
def whoever_asks_for_memory_is_killed(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.setting("oom_kill_allocating_task", 1)


@machine(kernel="safe")
def whoever_asks_for_memory_is_killed_but_at_minus_1000(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.setting("oom_kill_allocating_task", 1)


@machine(kernel="exposed")
def everybody_is_at_minus_1000(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.proc.set_oom_score_adj(50, -1000)


# -- killers in user space -------------------------------------------------------------------------


@machine(kernel="safe", earlyoom="safe")
def earlyoom_and_minus_1000(computer: Computer) -> None:
    computer.hunter("earlyoom")
    computer.trainer(SERVICE, adj=-1000)


@machine(kernel="exposed", earlyoom="last_in_line")
def earlyoom_avoids_it_and_the_kernel_does_not(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--avoid", b"^python")
    computer.trainer(SERVICE, adj=0)


@machine(kernel="last_in_line", earlyoom="exposed")
def earlyoom_prefers_it_and_the_kernel_does_not(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--prefer=^python")
    computer.trainer(SERVICE, adj=-300)


@machine(kernel="last_in_line", earlyoom="exposed")
def earlyoom_goes_by_size_alone(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--sort-by-rss")
    computer.trainer(SERVICE)


@machine(earlyoom="exposed")
def earlyoom_kills_the_group_that_a_worker_is_in(computer: Computer) -> None:
    computer.hunter("earlyoom", b"-g")
    computer.trainer(SERVICE, session=7)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE, session=7)


@machine(kernel="exposed", earlyoom="safe")
def earlyoom_only_says_whom_it_would_kill(computer: Computer) -> None:
    computer.hunter("earlyoom", b"-m", b"5", b"--dryrun")
    computer.trainer(SERVICE, adj=0)


@machine(earlyoom="exposed")
def one_earlyoom_only_says_so_and_another_kills(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=0)
    for pid, options in ((90, (b"--dryrun",)), (91, ())):
        computer.process(
            pid, b"earlyoom", mib=2, cgroup="/system.slice/earlyoom.service",
            arguments=(b"earlyoom", *options), rights=ALL_RIGHTS,
        )  # fmt: skip


@machine(earlyoom="absent")
def a_program_of_that_name_that_may_kill_nobody(computer: Computer) -> None:
    computer.process(90, b"earlyoom", mib=2, cgroup=TERMINAL)
    computer.trainer(SERVICE)


@machine(earlyoom="safe")
def earlyoom_ignores_it(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--ignore", b"^python")
    computer.trainer(SERVICE, adj=0)


@machine(earlyoom="safe")
def earlyoom_ignores_root_s(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--ignore-root-user")
    computer.trainer(SERVICE, adj=0, uid=0)


@machine(earlyoom="exposed")
def earlyoom_ignores_root_s_but_this_is_a_user_s(computer: Computer) -> None:
    computer.hunter("earlyoom", b"--ignore-root-user")
    computer.trainer(SERVICE, adj=0)


@machine(earlyoom="absent")
def one_that_is_root_in_a_namespace_of_its_own(computer: Computer) -> None:
    computer.process(90, b"earlyoom", mib=2, cgroup=TERMINAL, rights=ALL_RIGHTS, namespace=True)
    computer.trainer(SERVICE)


@machine(nohang="last_in_line")
def nohang_goes_by_the_same_order(computer: Computer) -> None:
    computer.hunter("nohang")
    computer.trainer(SERVICE)


@machine(ray="exposed")
def a_worker_of_ray(computer: Computer) -> None:
    computer.process(90, b"raylet", mib=20, cgroup=SERVICE)
    computer.process(91, b"sh", mib=1, cgroup=SERVICE, parent=90)
    computer.trainer(SERVICE, parent=91)


@machine(ray="safe")
def the_driver_beside_ray(computer: Computer) -> None:
    computer.process(90, b"raylet", mib=20, cgroup=SERVICE)
    computer.trainer(SERVICE)


@machine(kubelet="safe")
def beside_a_kubelet(computer: Computer) -> None:
    computer.hunter("kubelet")
    computer.trainer(SERVICE)


@machine(kubelet="exposed", oom_group="exposed", cgroup="last_in_line")
def in_a_pod(computer: Computer) -> None:
    pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice"
    container = f"{pod}/cri-containerd-1.scope"
    computer.trainer(container)
    computer.process(80, b"worker", mib=4096, cgroup=container)
    computer.cgroup(container, limit=16 * GIB, group=True)


@pytest.mark.parametrize(("build", "expected"), machine.cases, ids=name_of)
def test_the_verdicts_on(build: Build, expected: Mapping[str, Standing], tmp_path: Path) -> None:
    as_expected(Computer(tmp_path), build, expected)


# -- what is said beside the verdict ---------------------------------------------------------------


def test_shared_memory_is_not_freed_by_a_death(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.trainer(SERVICE)
    computer.process(80, b"web", mib=100, shared_mib=4000, cgroup=SERVICE)

    assert computer.verdicts()["kernel"].first_bytes == (1024 + 100) << 20


def test_memory_that_no_kill_frees_is_told_of(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.trainer(SERVICE)
    computer.memory(huge=16, shared=4)

    reason = computer.verdicts()["kernel"].reason
    assert reason.endswith("; 20.0 GiB in huge pages and shared memory is freed by no kill")


def test_where_memory_is_not_overcommitted_it_is_said(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.trainer(SERVICE)
    computer.setting("overcommit_memory", 2)

    assert "with vm.overcommit_memory=2 most programs" in computer.verdicts()["kernel"].reason
