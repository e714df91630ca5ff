"""systemd-oomd's own configuration, from wherever it lies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.auditing import Oomd
from oomwatchd.systemd.oomd import parse_conf, ratio, read_oomd, seconds


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_without_files_it_is_as_systemd_has_it(tmp_path: Path) -> None:
    assert read_oomd(tmp_path, running=True) == Oomd(
        running=True, limit_ratio=0.6, seconds=30.0, swap_limit_ratio=0.9
    )


def test_debian_s_drop_in_counts(tmp_path: Path) -> None:
    conf = "# comment\n[OOM]\nDefaultMemoryPressureDurationSec=20s\n"
    put(tmp_path, "usr/lib/systemd/oomd.conf.d/10-oomd-defaults.conf", conf)

    assert read_oomd(tmp_path, running=False).seconds == 20.0


def test_the_administrator_s_file_of_the_same_name_replaces_the_vendor_s(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/systemd/oomd.conf.d/10.conf", "[OOM]\nSwapUsedLimit=50%\n")
    put(tmp_path, "etc/systemd/oomd.conf.d/10.conf", "[OOM]\nSwapUsedLimit=70%\n")

    assert read_oomd(tmp_path, running=True).swap_limit_ratio == 0.7


def test_a_drop_in_that_cannot_be_read_is_told_and_the_others_count(tmp_path: Path) -> None:
    places = tmp_path / "etc/systemd/oomd.conf.d"
    put(tmp_path, "etc/systemd/oomd.conf.d/20.conf", "[OOM]\nSwapUsedLimit=70%\n")
    (places / "10.conf").symlink_to(tmp_path / "nowhere")
    (places / "15.conf").mkdir()
    (places / "16.conf").symlink_to("/dev/null")
    found = read_oomd(tmp_path, running=True)

    assert found.swap_limit_ratio == 0.7
    assert found.unread == (
        f"{places}/10.conf: No such file or directory",
        f"{places}/15.conf: Is a directory",
    )


def test_drop_ins_come_after_the_main_file_and_in_the_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/oomd.conf", "[OOM]\nDefaultMemoryPressureLimit=10%\n")
    put(tmp_path, "etc/systemd/oomd.conf.d/20.conf", "[OOM]\nDefaultMemoryPressureLimit=30%\n")
    put(tmp_path, "usr/lib/systemd/oomd.conf.d/10.conf", "[OOM]\nDefaultMemoryPressureLimit=20%\n")

    assert read_oomd(tmp_path, running=True).limit_ratio == 0.3


def test_rule_files_are_named(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/oomd/rules.d/20-site.oomrule", "[Rule]\n")
    put(tmp_path, "etc/systemd/oomd/rules.d/README", "")

    assert read_oomd(tmp_path, running=True).rule_files == ("20-site.oomrule",)


def test_settings_of_other_sections_and_comments_are_passed_over() -> None:
    text = "A=1\n[Other]\nB=2\n[OOM]\n#C=3\n;D=4\n E = 5 \n\nE=6\n"

    assert parse_conf(text) == {"E": "6"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60%", 0.6),
        ("57.5%", 0.575),
        ("5‰", 0.005),
        ("5‱", 0.0005),
        ("60", None),
        ("x%", None),
        ("", None),
    ],
)
def test_a_share_is_told_in_percent_or_less(text: str, expected: float | None) -> None:
    assert ratio(text) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20s", 20), ("2", 2), ("1min 30s", 90), ("1min30s", 90), ("500ms", 0.5), ("2 h", 7200),
     ("soon", None), ("10 weeks", None), ("0", None), ("", None)],
)  # fmt: skip
def test_a_time_is_told_in_systemd_s_words(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


@given(st.text())
def test_nothing_in_such_a_file_is_an_error(text: str) -> None:
    for value in parse_conf(f"[OOM]\n{text}").values():
        assert ratio(value) is None or isinstance(ratio(value), float)
        assert seconds(value) is None or isinstance(seconds(value), float)
