import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd import config
from oomwatchd.config import ConfigError, parse
from oomwatchd.model import (
    Address,
    Config,
    IncidentSettings,
    Match,
    PressureHooks,
    PressureKind,
    PressureSettings,
    PressureWindow,
    Rule,
    Threshold,
    User,
)

GOOD = Path(__file__).parent / "data" / "config" / "good"
PACKAGE = Path(config.__file__).parent


def read(text: str) -> Config:
    return parse(text.encode(), "x.yaml").config


def rule(keys: str) -> Rule:
    [only] = read(f"rules: [{{name: one, {keys}}}]").rules
    return only


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [fault.text for fault in caught.value.faults]


# -- values ----------------------------------------------------------------------------------------


def test_every_key_arrives() -> None:
    loaded = parse((GOOD / "every-key.yaml").read_bytes(), "x.yaml")

    assert loaded.warnings == ()
    assert loaded.config == Config(
        rules=(
            Rule(
                name="all-keys",
                match=Match(
                    name=("python*", "yes", "123", "null"),
                    script=("train*.py",),
                    cmdline=(r"--epochs[= ]\d+",),
                    exe=("/usr/bin/*",),
                    user=(User("root", 0), User("1000", 1000)),
                    unit=("a@*.service",),
                    cgroup=("/user.slice/*",),
                ),
                oom_score_adj=-1000,
                workers=1000,
                descendants="inherit",
                shield="scope",
                drift="yield",
                unkillable=True,
                critical_signal="SIGTERM",
            ),
        ),
        interval_seconds=0.1,
        events="off",
        metrics_listen=Address("::1", 1),
        pressure=PressureSettings(
            warning=(Threshold("some", "avg10", 12.5), Threshold("full", "avg300", 1.0)),
            critical=(),
            clear_after_seconds=0.0,
        ),
        unkillable_memory_max_ratio=0.01,
        kubernetes_pods="manage",
        incidents=IncidentSettings(keep=1, history_seconds=86400.0),
        on_incident=("/usr/local/bin/tell", "", "5", "--to=ops team"),
        on_pressure=PressureHooks(warning=("/bin/w",), critical=("/bin/c", "$x")),
        on_stop="restore",
    )


def test_an_empty_file_gives_the_defaults() -> None:
    assert read("") == Config()


def test_json_is_read_too() -> None:
    assert parse((GOOD / "json.yaml").read_bytes(), "x.yaml").config.rules[0].oom_score_adj == -5


def test_an_alias_stands_for_what_it_names() -> None:
    one, two = parse((GOOD / "aliases.yaml").read_bytes(), "x.yaml").config.rules

    assert one.match.name == two.match.name == ("a", "b")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(-3000, 3000))
def test_every_whole_number_in_range_is_taken_and_no_other(number: int) -> None:
    text = f"rules: [{{name: a, match: {{user: 0}}, oom_score_adj: {number}, unkillable: true}}]"

    if -1000 <= number <= 1000:
        assert read(text).rules[0].oom_score_adj == number
    else:
        assert faults(text) == [
            f"oom_score_adj: '{number}' is out of range; allowed: a whole number from -1000 to 1000"
        ]


def test_zero_is_a_value_like_any_other() -> None:
    assert rule("match: {user: 0}, oom_score_adj: 0, workers: 0") == Rule(
        "one", Match(user=(User("0", 0),)), 0, workers=0
    )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("100ms", 0.1), ("1500ms", 1.5), ("1s", 1.0), ("10m", 600.0), ("'1h'", 3600.0)],
)
def test_durations_are_read_as_seconds(written: str, seconds: float) -> None:
    assert read(f"interval: {written}").interval_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("0.0.0.0:1", Address("0.0.0.0", 1)),  # noqa: S104 - nothing is bound
        ("localhost:65535", Address("localhost", 65535)),
        ("node-1.example.org:9847", Address("node-1.example.org", 9847)),
        ("'[fe80::1]:9847'", Address("fe80::1", 9847)),
        ("'off'", None),
        ("off", None),
    ],
)
def test_addresses_are_split_into_host_and_port(written: str, address: Address | None) -> None:
    assert read(f"metrics: {{listen: {written}}}").metrics_listen == address


@pytest.mark.parametrize("kind", get_args(PressureKind))
@pytest.mark.parametrize("window", get_args(PressureWindow))
def test_every_average_may_be_a_threshold(kind: PressureKind, window: PressureWindow) -> None:
    pressure = read(f"pressure: {{warning: {{{kind}_{window}: 100}}}}").pressure

    assert pressure.warning == (Threshold(kind, window, 100.0),)
    assert pressure.critical == Config().pressure.critical


@pytest.mark.parametrize("written", ["yes", "123", "0x1f", "1e3", "'a b'", "ä*", "'*'", "=", "<<"])
def test_a_pattern_is_the_text_as_written(written: str) -> None:
    assert rule(f"match: {{name: {written}}}, oom_score_adj: 1").match.name == (written.strip("'"),)


def test_a_user_is_found_by_name_and_by_number() -> None:
    users = rule("match: {user: [root, 4294967294, '0']}, oom_score_adj: 1").match.user

    assert users == (User("root", 0), User("4294967294", 4294967294), User("0", 0))


def test_a_user_who_is_not_there_is_kept_and_warned_of() -> None:
    loaded = parse((GOOD / "user-unknown.yaml").read_bytes(), "x.yaml")

    assert loaded.config.rules[0].match.user == (User("no-such-user-here", None), User("root", 0))
    assert len(loaded.warnings) == 1


@pytest.mark.parametrize("values", ["oom_score_adj: -1", "oom_score_adj: 0, workers: -1"])
def test_a_negative_value_is_shielded_and_not_inherited(values: str) -> None:
    made = rule(f"match: {{user: 0}}, {values}")

    assert (made.descendants, made.shield, made.drift) == ("reset", "preference", "reassert")


@pytest.mark.parametrize("values", ["oom_score_adj: 0", "oom_score_adj: 1, workers: 0"])
def test_any_other_value_is_inherited_and_not_shielded(values: str) -> None:
    made = rule(f"match: {{user: 0}}, {values}")

    assert (made.descendants, made.shield, made.drift) == ("inherit", "none", "reassert")


def test_what_is_given_counts_more_than_what_follows_from_the_value() -> None:
    made = rule("match: {user: 0}, oom_score_adj: -1, descendants: inherit, shield: none")

    assert (made.descendants, made.shield) == ("inherit", "none")


@pytest.mark.parametrize("proof", ["user: 0", "unit: a.service", "cgroup: /a", "exe: /a"])
def test_a_negative_rule_with_proof_needs_no_warning(proof: str) -> None:
    text = f"rules: [{{name: one, match: {{name: a, {proof}}}, oom_score_adj: -1}}]"

    assert parse(text.encode(), "x.yaml").warnings == ()


# -- cost ------------------------------------------------------------------------------------------


def test_only_one_module_knows_the_yaml_library() -> None:
    naming = [
        path.name for path in PACKAGE.parent.rglob("*.py") if "import yaml" in path.read_text()
    ]

    assert naming == ["source.py"]


def test_a_file_without_unknown_keys_loads_no_module_for_them() -> None:
    code = (
        "import sys; from oomwatchd.config import parse\n"
        "parse(b'rules: [{name: a, match: {name: a}, oom_score_adj: 1}]', 'x.yaml')\n"
        "print(sorted({'difflib', 'json', 'argparse'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
