"""The manifests for Kubernetes: valid, in line with the code, with no more rights than told."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from demand import demanded
from guides import DOCS, blocks
from podlike import (
    KUBERNETES,
    VARIANTS,
    Manifest,
    built,
    container,
    daemonset,
    manifests,
    pod,
    source,
)
from test_packaging import CAPABILITIES, CHECKOUT, HELD_KIB, settings

from oomwatchd.config import parse
from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.model import Config
from oomwatchd.paths import CONFIG, RUNTIME_DIRECTORY, STATE_DIRECTORY

VALIDATOR = CHECKOUT / ".venv/bin/kubernetes-validate"
VERSIONS = ("1.30", "1.33", "1.37")
OLDER = ("1.25", "1.29")  # which know no appArmorProfile
OF_THE_UNIT_ONLY = {"NET_ADMIN", "SYSLOG", "KILL"}  # their reasons are in the privileged variant
OF_THE_POD_ONLY = {"IPC_LOCK"}
RESIDENT_MIB = 38  # with 10,000 processes
AUDITS = 2  # its own and one of ours at the same time, neither of which takes more than that
MANAGED = 1000  # processes under rules that there has to be room for
SECTION = (DOCS / "fleet.md").read_text(encoding="utf-8").partition("\n## Kubernetes\n")[2]
MONITOR = yaml.safe_load(source("podmonitor.yaml"))
# Of prometheus-operator's PodMonitor, what we use: the type of each, or what is below it.
MONITOR_FIELDS = {
    "jobLabel": str,
    "selector": {"matchLabels": dict},
    "podMetricsEndpoints": [
        {"port": str, "interval": str, "relabelings": [{"sourceLabels": list, "targetLabel": str}]}
    ],
}


@pytest.fixture(scope="module")
def sent() -> dict[str, str]:
    return {name: built(KUBERNETES / name) for name in VARIANTS}


@pytest.fixture(params=VARIANTS)
def found(request: pytest.FixtureRequest, sent: dict[str, str]) -> dict[str, Manifest]:
    return manifests(sent[request.param])


def configured(name: str) -> Config:
    loaded = parse(source(f"{name}/oomwatchd.yaml").encode(), name)
    assert loaded.warnings == ()
    return loaded.config


# -- valid -----------------------------------------------------------------------------------------


def validate(text: str, version: str, directory: Path) -> subprocess.CompletedProcess[str]:
    path = directory / "sent.yaml"
    path.write_text(text, encoding="utf-8")
    validator = demanded(VALIDATOR)
    command = [validator, "--strict", "--kubernetes-version", version, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_manifests(version: str, sent: dict[str, str], tmp_path: Path) -> None:
    done = validate("---\n".join(sent.values()), version, tmp_path)

    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" passed ") == 4 * len(VARIANTS)


@pytest.mark.parametrize("version", OLDER)
def test_older_ones_take_all_but_the_apparmor_profile(
    version: str, sent: dict[str, str], tmp_path: Path
) -> None:
    whole = validate(sent["base"], version, tmp_path)
    without = re.sub(r"\n +appArmorProfile:\n +type: Unconfined", "", sent["base"])
    less = validate(without, version, tmp_path)

    assert "'appArmorProfile' was unexpected" in whole.stdout
    assert (less.returncode, less.stdout.count(" passed ")) == (0, 4), less.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("hostPID: true", "hostPid: true"),
        ("cpu: 200m", "cpu: [200m]"),
        ("readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true"),
    ],
)
def test_a_mistake_would_be_noticed(
    right: str, wrong: str, sent: dict[str, str], tmp_path: Path
) -> None:
    assert right in sent["base"]

    done = validate(sent["base"].replace(right, wrong), VERSIONS[-1], tmp_path)

    assert "did not validate" in done.stdout


def test_the_monitor_has_the_fields_that_prometheus_operator_knows() -> None:
    assert (MONITOR["apiVersion"], MONITOR["kind"]) == (
        "monitoring.coreos.com/v1",
        "PodMonitor",
    )
    assert list(unknown(MONITOR["spec"], MONITOR_FIELDS)) == []
    assert list(unknown({"podMetricsEndpoint": []}, MONITOR_FIELDS)) == ["podMetricsEndpoint"]


def unknown(value: Any, known: Any) -> Iterator[str]:
    """The names that *known* has not, and the values that are of another kind."""
    if isinstance(known, type):
        if not isinstance(value, known):
            yield repr(value)
    elif isinstance(known, list):
        for item in value:
            yield from unknown(item, known[0])
    else:
        for name, below in value.items():
            if name in known:
                yield from unknown(below, known[name])
            else:
                yield name


def test_the_monitor_finds_the_pods_and_calls_the_job_as_the_alerts_do() -> None:
    labels = daemonset()["spec"]["template"]["metadata"]["labels"]
    [endpoint] = MONITOR["spec"]["podMetricsEndpoints"]
    [port] = daemonset()["spec"]["template"]["spec"]["containers"][0]["ports"]

    assert MONITOR["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[MONITOR["spec"]["jobLabel"]] == "oomwatchd"
    assert endpoint["port"] == port["name"]
    assert MONITOR["metadata"]["namespace"] == daemonset()["metadata"]["namespace"]


# -- in line with the code -------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_the_port_is_the_one_that_the_configuration_listens_on(
    name: str, sent: dict[str, str]
) -> None:
    [port] = container(manifests(sent[name]))["ports"]
    listen = configured(name).metrics_listen

    assert listen is not None
    assert (listen.host, listen.port) == ("0.0.0.0", port["containerPort"])  # noqa: S104 - a pod's


def test_every_directory_is_where_the_daemon_looks_for_it(found: dict[str, Manifest]) -> None:
    mounted = {one["mountPath"]: one["name"] for one in container(found)["volumeMounts"]}
    volumes = {one["name"]: one for one in pod(found)["volumes"]}
    of_host = {path: volumes[name]["hostPath"]["path"] for path, name in mounted.items()
               if "hostPath" in volumes[name]}  # fmt: skip

    assert {str(CONFIG), str(CGROUP_ROOT), RUNTIME_DIRECTORY, STATE_DIRECTORY} <= mounted.keys()
    assert of_host == {path: path for path in of_host}
    assert mounted.keys() - of_host.keys() == {str(CONFIG)}
    assert sorted(mounted.values()) == sorted(volumes)


def test_the_settings_of_the_unit_that_hold_in_a_pod_are_the_same() -> None:
    spec = daemonset()["spec"]["template"]["spec"]
    [variable] = spec["containers"][0]["env"]
    unit = settings()

    assert f"{variable['name']}={variable['value']}" == unit["Environment"]
    assert spec["terminationGracePeriodSeconds"] == int(unit["TimeoutStopSec"])


def test_all_probes_ask_for_health_on_the_port_of_the_metrics() -> None:
    [one] = daemonset()["spec"]["template"]["spec"]["containers"]
    probes = {name: probe["httpGet"] for name, probe in one.items() if name.endswith("Probe")}

    assert probes.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
    assert all(probe == {"path": "/healthz", "port": "metrics"} for probe in probes.values())


def test_a_hung_daemon_is_ended_as_late_as_systemd_would() -> None:
    [one] = daemonset()["spec"]["template"]["spec"]["containers"]
    probe = one["livenessProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] == int(settings()["WatchdogSec"])


def test_another_file_is_another_map_which_the_pods_name(tmp_path: Path) -> None:
    """So a change of rules is a rollout."""
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes") / "base"
    before = manifests(built(copy))
    rules = copy / "oomwatchd.yaml"
    rules.write_text(rules.read_text().replace("-900", "-800"))
    after = manifests(built(copy))

    assert before["ConfigMap"]["metadata"]["name"] != after["ConfigMap"]["metadata"]["name"]
    for one in (before, after):
        config = next(volume for volume in pod(one)["volumes"] if volume["name"] == "config")
        assert config["configMap"]["name"] == one["ConfigMap"]["metadata"]["name"]


def test_the_map_holds_the_rules_that_are_mounted(found: dict[str, Manifest]) -> None:
    [mount] = [one for one in container(found)["volumeMounts"] if one["name"] == "config"]
    text = found["ConfigMap"]["data"][mount["subPath"]]

    assert mount["mountPath"] == str(CONFIG)
    assert [rule.name for rule in parse(text.encode(), "map").config.rules] == ["ssh", "sessions"]


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_left_alone_and_nothing_goes_below_the_kubelet(name: str) -> None:
    config = configured(name)

    assert config.kubernetes_pods == "leave"
    assert min(rule.oom_score_adj for rule in config.rules) > -997


def test_without_marks_no_rule_asks_for_one() -> None:
    """The cgroups are mounted read-only."""
    [cgroups] = [one for one in daemonset()["spec"]["template"]["spec"]["containers"][0]
                 ["volumeMounts"] if one["name"] == "cgroups"]  # fmt: skip

    assert cgroups["readOnly"] is True
    assert {rule.shield for rule in configured("base").rules} == {"none"}


# -- its place on the node -------------------------------------------------------------------------


def test_it_is_among_the_last_to_be_killed_or_evicted(found: dict[str, Manifest]) -> None:
    """Guaranteed takes requests as high as limits, of both, in all containers."""
    resources = container(found)["resources"]

    assert resources["requests"] == resources["limits"]
    assert resources["limits"].keys() == {"cpu", "memory"}
    assert pod(found)["priorityClassName"] == "system-node-critical"
    assert "initContainers" not in pod(found)


def test_its_memory_suffices(found: dict[str, Manifest]) -> None:
    limit_mib = int(container(found)["resources"]["limits"]["memory"].removesuffix("Mi"))

    assert limit_mib >= (1 + AUDITS) * RESIDENT_MIB + MANAGED * HELD_KIB / 1024
    assert limit_mib <= int(settings()["MemoryMax"].removesuffix("M"))


def test_it_runs_on_every_node_whatever_its_taints(found: dict[str, Manifest]) -> None:
    assert pod(found)["tolerations"] == [{"operator": "Exists"}]
    assert pod(found)["nodeSelector"] == {"kubernetes.io/os": "linux"}


# -- rights ----------------------------------------------------------------------------------------


def test_it_may_ask_the_cluster_nothing(found: dict[str, Manifest]) -> None:
    assert found.keys() == {"Namespace", "ResourceQuota", "ConfigMap", "DaemonSet"}
    assert pod(found)["automountServiceAccountToken"] is False


def test_every_capability_is_one_of_the_units_or_has_its_difference_told() -> None:
    [one] = daemonset()["spec"]["template"]["spec"]["containers"]
    rights = one["securityContext"]["capabilities"]
    of_unit = {name.removeprefix("CAP_") for name in CAPABILITIES}

    assert rights["drop"] == ["ALL"]
    assert set(rights["add"]) == of_unit - OF_THE_UNIT_ONLY | OF_THE_POD_ONLY
    assert all(f"- {name} # " in source("base/daemonset.yaml") for name in rights["add"])
    assert all(name in source("privileged/daemonset.yaml") for name in OF_THE_UNIT_ONLY)
    assert all(f"`{name}`" in SECTION for name in {*rights["add"], *OF_THE_UNIT_ONLY})


def test_the_base_has_neither_the_nodes_network_nor_its_devices(sent: dict[str, str]) -> None:
    base = manifests(sent["base"])
    rights = container(base)["securityContext"]

    assert pod(base)["hostPID"] is True
    assert not {"hostNetwork", "hostIPC"} & pod(base).keys()
    assert "privileged" not in rights
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_privileged_variant_differs_in_nothing_but_what_it_says(sent: dict[str, str]) -> None:
    base, more = (flat(pod(manifests(sent[name]))) for name in VARIANTS)
    changed = {key for key in base.keys() | more.keys() if base.get(key) != more.get(key)}
    rights = "containers/oomwatchd/securityContext"

    assert changed == {
        "hostNetwork",
        f"{rights}/privileged",
        f"{rights}/allowPrivilegeEscalation",
        f"{rights}/capabilities/add",
        f"{rights}/capabilities/drop",
        f"{rights}/seccompProfile/type",
        "containers/oomwatchd/volumeMounts/kmsg/name",
        "containers/oomwatchd/volumeMounts/kmsg/mountPath",
        "containers/oomwatchd/volumeMounts/kmsg/readOnly",
        "containers/oomwatchd/volumeMounts/cgroups/readOnly",
        "volumes/kmsg/name",
        "volumes/kmsg/hostPath/path",
        "volumes/kmsg/hostPath/type",
        "volumes/config/configMap/name",
    }


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Every value by its path; in lists, by the name that items have."""
    if isinstance(value, dict):
        below = list(value.items())
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        below = [(item.get("name", str(number)), item) for number, item in enumerate(value)]
    else:
        return {path: json.dumps(value)}
    return {
        key: leaf
        for name, item in below
        for key, leaf in flat(item, f"{path}/{name}".lstrip("/")).items()
    }


# -- the manual ------------------------------------------------------------------------------------


def test_the_commands_of_the_manual_are_for_files_that_there_are() -> None:
    lines = [line for block in blocks(SECTION, "sh") for line in block.splitlines()]
    files = {word for line in lines for word in line.split() if word.startswith(("pack", "script"))}

    assert {f"packaging/kubernetes/{name}" for name in VARIANTS} < files
    assert [name for name in files if not (CHECKOUT / name).exists()] == []
    assert all(line.startswith(("kubectl ", "podman ", "script/")) for line in lines)
    for line in lines:
        if "oomwatchd get" in line or "exec" in line or "rollout" in line:
            assert "-n oomwatchd" in line


def test_the_overlay_of_the_manual_has_its_own_rules_and_image(tmp_path: Path) -> None:
    [overlay] = [one for one in blocks(SECTION, "yaml") if "kind: Kustomization" in one]
    shutil.copytree(KUBERNETES, tmp_path / "packaging/kubernetes")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "kustomization.yaml").write_text(overlay, encoding="utf-8")
    rules = "rules:\n  - {name: mine, match: {user: 0}, oom_score_adj: 5}\n"
    (ours / "oomwatchd.yaml").write_text(rules, encoding="utf-8")

    found = manifests(built(ours))

    assert found["ConfigMap"]["data"] == {"oomwatchd.yaml": rules}
    assert container(found)["image"] == "registry.internal/oomwatchd:2026-11"
