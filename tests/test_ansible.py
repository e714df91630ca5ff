"""The role for Ansible, as it is told of; script/check-ansible lets it do its work in a chroot."""

import re
import shlex
import subprocess
from typing import Any

import yaml
from commands import REPOSITORY
from guides import blocks, guide, rows

ROLE = REPOSITORY / "packaging/ansible/roles/oomwatchd"
SECTION = guide("fleet").partition("\n## Ansible\n")[2].partition("\n## ")[0]


def document(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def options() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = document("meta/argument_specs.yml")["argument_specs"]["main"]
    return found["options"]


def test_the_manual_tells_every_variable() -> None:
    assert [name for name, _ in rows(SECTION)] == list(options())


def test_every_variable_has_the_default_that_is_told() -> None:
    told = {name: one["default"] for name, one in options().items() if "default" in one}

    assert document("defaults/main.yml") == told
    assert list(options()) == list(told)


def test_the_manual_s_commands_name_what_is_there() -> None:
    [block] = blocks(SECTION, "sh")
    words = shlex.split(block)
    named = [word for word in words if re.match(r"(script|packaging)/", word)]

    assert subprocess.run(["sh", "-n", "-c", block], check=False).returncode == 0
    assert len(named) == 3
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_each_way_to_the_configuration_leads_past_the_check_and_is_for_all_to_read() -> None:
    tasks = document("tasks/rules.yml")
    modules = [
        task.get(f"ansible.builtin.{name}") for task in tasks for name in ("template", "copy")
    ]
    deployed = [one for one in modules if one and one["dest"] == "/etc/oomwatchd.yaml"]

    assert [one["validate"] for one in deployed] == ["/usr/bin/oomwatchd check %s"] * 2
    assert {(one["owner"], one["group"], one["mode"]) for one in deployed} == {
        ("root", "root", "0644")
    }
