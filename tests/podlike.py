"""The manifests for Kubernetes, as tests read them, and what a container runtime makes of them."""

import subprocess
from pathlib import Path
from typing import Any, Final

import yaml
from demand import demanded

KUBERNETES: Final = Path(__file__).parent.parent / "packaging/kubernetes"
VARIANTS: Final = ("base", "privileged")

Manifest = dict[str, Any]


def built(directory: Path) -> str:
    """What `kubectl apply -k` would send."""
    command = [demanded("kustomize"), "build", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def manifests(text: str) -> dict[str, Manifest]:
    """By kind, of which there is one of each."""
    found = {one["kind"]: one for one in yaml.safe_load_all(text)}
    assert len(found) == text.count("\nkind:")
    return found


def pod(found: dict[str, Manifest]) -> Manifest:
    spec: Manifest = found["DaemonSet"]["spec"]["template"]["spec"]
    return spec


def container(found: dict[str, Manifest]) -> Manifest:
    [one] = pod(found)["containers"]
    found_container: Manifest = one
    return found_container


def source(name: str) -> str:
    return (KUBERNETES / name).read_text(encoding="utf-8")


def daemonset() -> Manifest:
    """As it is written, for those who have no kustomize."""
    found: Manifest = yaml.safe_load(source("base/daemonset.yaml"))
    return found
