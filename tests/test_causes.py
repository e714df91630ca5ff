"""Which keys of cases name the same cause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.policy.causes import Causes, oomd_cause, oomd_key

JOB = "/system.slice/a:b.service"
KEY = oomd_key("boot", JOB, 100.4)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        oomd_key("boot", JOB, 99.2),
        oomd_key("boot", JOB, 109.6),
        oomd_key("boot", "a:b.service", 101.0),  # PID 1 knows the unit alone
    ],
)
def test_a_kill_by_systemd_oomd_is_the_same_a_moment_before_or_after(key: str) -> None:
    assert key in Causes(9, [KEY])
    assert KEY in Causes(9, [key])


@pytest.mark.parametrize(
    "key",
    [
        oomd_key("boot", JOB, 112.0),
        oomd_key("boot", JOB, 88.0),
        oomd_key("before", JOB, 100.4),
        oomd_key("boot", "/system.slice", 100.4),
        oomd_key("boot", f"{JOB}/below", 100.4),
        oomd_key("boot", "b.service", 100.4),
        "kernel:boot:100",
        "ended:boot:7:42",
        "",
    ],
)
def test_others_are_not_the_same(key: str) -> None:
    assert key not in Causes(9, [KEY])
    assert KEY not in Causes(9, [key])


def test_keys_of_other_kinds_are_the_same_only_if_they_are_equal() -> None:
    causes = Causes(9, ["kernel:boot:100", "ended:boot:7:42"])

    assert "kernel:boot:100" in causes
    assert "ended:boot:7:42" in causes
    assert "kernel:boot:101" not in causes


def test_of_too_many_the_oldest_is_forgotten() -> None:
    causes = Causes(2, ["a", KEY, "b"])

    assert "a" not in causes
    assert oomd_key("boot", JOB, 101.0) in causes
    causes.add("c")
    assert oomd_key("boot", JOB, 101.0) not in causes


@pytest.mark.parametrize("key", ["oomd", "oomd:", "oomd:boot", "oomd:boot:/a:x", "oomd:boot:5"])
def test_half_a_key_is_none(key: str) -> None:
    assert oomd_cause(key) is None


@given(st.text(alphabet="0123456789abcdef-"), st.text(min_size=1), st.integers(-10, 10**9))
def test_a_key_tells_what_it_is_made_of(boot_id: str, cgroup: str, seconds: int) -> None:
    assert oomd_cause(oomd_key(boot_id, cgroup, seconds)) == (boot_id, cgroup, seconds)
