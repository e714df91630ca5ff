"""What happens at the limits of the cgroups above a process: who goes first, and whether they can
be reached at all.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
from computer import GIB, SERVICE, Build, Computer, Machines, as_expected, name_of

from oomwatchd.auditing import Standing

machine = Machines()


@machine(kernel="last_in_line", cgroup="exposed")
def alone_in_a_limited_cgroup(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(cgroup="last_in_line")
def workers_in_a_limited_cgroup(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=4096, cgroup=SERVICE)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(cgroup="exposed")
def a_shell_of_a_megabyte_beside_it_in_a_limited_cgroup(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"sh", mib=1, cgroup=SERVICE)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(kernel="last_in_line", cgroup="exposed")
def a_value_that_is_enough_for_the_machine_but_not_for_its_limit(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-300)
    computer.process(80, b"worker", mib=300, cgroup=SERVICE)
    computer.cgroup(SERVICE, limit=10 * GIB)


@machine(cgroup="exposed")
def all_at_minus_1000_in_a_limited_cgroup(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.process(80, b"worker", mib=100, cgroup=SERVICE, adj=-1000)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(cgroup="safe")
def at_minus_1000_beside_others_in_a_limited_slice(computer: Computer) -> None:
    computer.trainer(SERVICE, adj=-1000)
    computer.cgroup("/system.slice", limit=16 * GIB)


@machine(cgroup="exposed")
def two_limits_of_which_the_lower_one_counts(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.cgroup("/system.slice", limit=24 * GIB)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(cgroup="absent")
def a_limit_beyond_all_memory(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.cgroup(SERVICE, limit=64 * GIB)


@machine(cgroup="absent")
def a_limit_beyond_all_memory_which_swap_does_not_add_to(computer: Computer) -> None:
    computer.memory(ram=32, swap=64)
    computer.trainer(SERVICE)
    computer.cgroup(SERVICE, limit=48 * GIB)


@machine(cgroup="exposed")
def a_limit_below_the_memory_there_is(computer: Computer) -> None:
    computer.memory(ram=32, swap=64)
    computer.trainer(SERVICE)
    computer.cgroup(SERVICE, limit=31 * GIB)


@machine(cgroup="last_in_line")
def a_limit_that_the_one_above_it_always_precedes(computer: Computer) -> None:
    computer.trainer(SERVICE)
    computer.process(80, b"other", mib=6144, cgroup="/system.slice/other.service")
    computer.cgroup("/system.slice", limit=16 * GIB)
    computer.cgroup(SERVICE, limit=24 * GIB)


@machine(cgroup="last_in_line")
def a_limit_as_high_as_the_one_above_it(computer: Computer) -> None:
    a_limit_that_the_one_above_it_always_precedes(computer)
    computer.cgroup(SERVICE, limit=16 * GIB)


@machine(cgroup="exposed")
def a_limit_below_the_one_above_it(computer: Computer) -> None:
    a_limit_that_the_one_above_it_always_precedes(computer)
    computer.cgroup(SERVICE, limit=15 * GIB)


@machine(kernel="exposed", cgroup="last_in_line")
def the_kernel_is_to_panic_but_not_at_a_limit(computer: Computer) -> None:
    workers_in_a_limited_cgroup(computer)
    computer.setting("panic_on_oom", 1)


@machine(cgroup="last_in_line")
def a_value_that_swap_makes_enough(computer: Computer) -> None:
    a_value_that_is_enough_for_the_machine_but_not_for_its_limit(computer)
    computer.memory(swap=64)
    computer.process(80, b"worker", mib=900, cgroup=SERVICE)


@machine(cgroup="exposed")
def the_same_where_its_cgroup_may_not_swap(computer: Computer) -> None:
    a_value_that_swap_makes_enough(computer)
    computer.cgroup(SERVICE, swap_limit=0)


@pytest.mark.parametrize(("build", "expected"), machine.cases, ids=name_of)
def test_the_verdicts_on(build: Build, expected: Mapping[str, Standing], tmp_path: Path) -> None:
    as_expected(Computer(tmp_path), build, expected)


@pytest.mark.parametrize(
    ("both_gib", "verdict"), [(64, "exposed"), (95, "exposed"), (96, "absent"), (128, "absent")]
)
def test_a_limit_of_cgroup_v1_counts_swap_as_well(
    tmp_path: Path, both_gib: int, verdict: Standing
) -> None:
    computer = Computer(tmp_path, unified=False)
    computer.memory(ram=32, swap=64)
    computer.trainer(SERVICE)
    directory = computer.cgroups / "memory" / SERVICE.strip("/")
    (directory / "memory.limit_in_bytes").write_text(f"{48 * GIB}\n")
    (directory / "memory.memsw.limit_in_bytes").write_text(f"{both_gib * GIB}\n")

    assert computer.verdicts()["cgroup"].verdict == verdict


def test_of_two_limits_the_one_that_frees_less_is_told(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.trainer(SERVICE)
    computer.process(80, b"worker", mib=2048, cgroup=SERVICE)
    computer.cgroup("/system.slice", limit=24 * GIB)
    computer.cgroup(SERVICE, limit=16 * GIB)

    assert computer.verdicts()["cgroup"].first_bytes == 2 * GIB
