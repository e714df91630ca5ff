"""The alerts: each fires when it should, and whoever is woken is told what to do."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import yaml
from live import REPOSITORY, Service, needs_root, rule, service
from test_incidents import incident
from test_prometheus import REQUIRED, free_ports, program

from oomwatchd.incidents import Incidents
from oomwatchd.series import DECLARED

PACKAGED = REPOSITORY / "packaging/prometheus"
RULES = PACKAGED / "oomwatchd.rules.yml"
FLEET = PACKAGED / "oomwatchd-fleet.rules.yml"
CASES = PACKAGED / "oomwatchd.rules.test.yml"
ALERTMANAGER = PACKAGED / "alertmanager.yml"
MANUAL = (REPOSITORY / "docs/alerts.md").read_text(encoding="utf-8")
MANUAL_URL = "file:///usr/share/doc/oomwatchd/alerts.md#"
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS = [one for group in GROUPS for one in group["rules"] if "alert" in one]
NAMES = sorted({one["alert"] for one in ALERTS})
# Of those that do not wait: a change after which they would fire too easily.
LOOSER = {
    "OomwatchdProtectedProcessKilled": (
        "oomwatchd_rule_oom_score_adj < 0",
        "oomwatchd_rule_oom_score_adj",
    ),
    "OomwatchdKillsKeepComing": ("> 5", "> 1"),
    "OomwatchdAdjustmentsRefused": ("> 0", "or oomwatchd_start_time_seconds"),
    "OomwatchdValuesDrift": ("> 10", "> 1"),
    "OomwatchdMatchingGivenUp": ("> 10", "> 1"),
    "OomwatchdHooksFail": ("> 0", ">= 0"),
    "OomwatchdRestarts": ("> 3", "> 0"),
    "OomwatchdKernelLogLost": ("> 0", ">= 0"),
    "OomwatchdEventsLost": ("> 30", "> 1"),
}
PATIENCE_SECONDS = 20.0

Alert = dict[str, Any]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def alertmanager(name: str) -> str:
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"no {name}: it is in Debian's package prometheus-alertmanager"
    if any(os.environ.get(variable) for variable in REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)


def section(alert: str) -> str:
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", MANUAL, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the manual has no section {alert}"
    return found[1]


# -- the rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [RULES, FLEET], ids=lambda path: path.name)
def test_promtool_finds_the_rules_valid(rules: Path) -> None:
    done = promtool("check", "rules", rules)

    assert (done.returncode, done.stderr) == (0, "")
    assert "SUCCESS" in done.stdout


def test_every_case_holds() -> None:
    done = promtool("test", "rules", CASES)

    assert (done.returncode, done.stderr) == (0, "")


def failing(directory: Path, change: Callable[[Alert], Alert]) -> set[str]:
    """The alerts of which some case fails, after each of them has been changed so."""
    document = {"groups": [
        {**group, "rules": [change(one) if "alert" in one else one for one in group["rules"]]}
        for group in GROUPS
    ]}  # fmt: skip
    (directory / RULES.name).write_text(json.dumps(document), encoding="utf-8")
    shutil.copy(FLEET, directory)
    shutil.copy(CASES, directory)
    assert promtool("check", "rules", directory / RULES.name).returncode == 0
    done = promtool("test", "rules", directory / CASES.name)
    said = done.stdout + done.stderr
    return set(re.findall(r'(?:alertname: |expr: .*alertname=\\?")(\w+)', said))


def test_the_cases_need_every_alert_to_fire(tmp_path: Path) -> None:
    assert failing(tmp_path, lambda alert: {**alert, "expr": "vector(0) > 1"}) == set(NAMES)


def test_the_cases_need_no_alert_to_fire_too_easily(tmp_path: Path) -> None:
    def loosened(alert: Alert) -> Alert:
        if "for" in alert:
            return {**alert, "for": "0m"}
        before, after = LOOSER[alert["alert"]]
        assert before in alert["expr"]
        return {**alert, "expr": alert["expr"].replace(before, after)}

    assert failing(tmp_path, loosened) == set(NAMES)


@pytest.mark.parametrize("rules", [RULES, FLEET], ids=lambda path: path.name)
def test_every_metric_that_a_rule_asks_for_is_exported(rules: Path) -> None:
    ours = {one.name for one in DECLARED}
    expressions = "\n".join(
        one["expr"]
        for group in yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
        for one in group["rules"]
    )
    asked = set(re.findall(r"(?<![:\w])oomwatchd_\w+(?![:\w])", expressions))

    assert asked
    assert {re.sub("_seconds_(sum|count)$", "_seconds", name) for name in asked} <= ours


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_the_labels_that_an_alert_tells_of_are_there(alert: Alert) -> None:
    told = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
    fired = re.findall(rf'ALERTS{{alertname="{alert["alert"]}",[^}}]*}}', CASES.read_text())
    written = re.findall(r"exp_labels: {[^}]*}", CASES.read_text())

    labels = [set(re.findall(r"(\w+)[=:] ?", one)) for one in fired + written]
    assert any(told <= one for one in labels)


# -- what people are told --------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: Alert) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == MANUAL_URL + alert["alert"].lower()


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_its_section_in_the_manual(name: str) -> None:
    text = section(name)

    positions = [text.find(f"**{part}**") for part in ("What it means.", "Look.", "Do.")]
    assert positions == sorted(positions)
    assert positions[0] >= 0
    assert re.search(r"^```sh\n(.*\n)*?```$", text, re.MULTILINE)


def test_the_manual_lists_the_alerts_and_nothing_else() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+)", MANUAL, re.MULTILINE)

    severities = {one["alert"]: one["labels"]["severity"] for one in reversed(ALERTS)}
    assert {name: severity for name, _, severity in rows} == severities
    assert [anchor for _, anchor, _ in rows] == [name.lower() for name, _, _ in rows]
    assert sorted(re.findall(r"^## (\w+)$", MANUAL, re.MULTILINE)) == NAMES


def commands() -> list[str]:
    shown = re.findall(r"^```sh\n(.*?)^```", MANUAL, re.MULTILINE | re.DOTALL)
    return sorted({line for block in shown for line in block.splitlines()})


@pytest.fixture(scope="module")
def daemon() -> Iterator[Service]:
    """With one rule and one incident."""
    with service() as one:
        one.configure(rule("training", {"name": "live-nobody"}, 0))
        kept = Incidents(one.state / "incidents", keep=1)
        one.state.mkdir()
        kept.prepare()
        kept.write(incident(time.time() - 60.0))
        one.start()
        yield one


@needs_root
@pytest.mark.parametrize("command", [one for one in commands() if one.startswith("oomwatchd ")])
def test_the_commands_of_the_manual_run(command: str, daemon: Service) -> None:
    words = [str(os.getpid()) if word == "4711" else word for word in command.split()[1:]]
    if words[0] in ("audit", "check", "explain", "rank"):
        words += [str(daemon.config)] if words[0] == "check" else ["-c", str(daemon.config)]

    done = subprocess.run(
        [sys.executable, "-m", "oomwatchd", *words],
        cwd=REPOSITORY, env=daemon.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.returncode == (1 if words[0] == "explain" else 0)  # no rule is for this process


def test_the_other_commands_of_the_manual_are_those_of_the_system() -> None:
    others = {one.split()[0] for one in commands() if not one.startswith("oomwatchd ")}

    assert others == {"curl", "journalctl", "systemctl"}


def test_what_the_manual_looks_for_in_the_log_is_what_the_log_says() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "oomwatchd").rglob("*.py"))
    systemd_says = {"Main process exited", "Failed with result", "watchdog"}
    patterns = {word for one in re.findall(r"-g '?([^'\n]+)'?", MANUAL) for word in one.split("|")}

    assert len(patterns) > 5
    assert {one for one in patterns - systemd_says if one not in sources} == set()


# -- Alertmanager ----------------------------------------------------------------------------------


def test_amtool_finds_the_example_valid() -> None:
    done = subprocess.run(
        [alertmanager("amtool"), "check-config", ALERTMANAGER], capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "1 templates" in done.stdout


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["alertname=OomwatchdProtectedProcessKilled", "severity=critical"], "kills"),
        (["alertname=OomwatchdPressureCritical", "severity=critical"], "oncall"),
        (["alertname=OomwatchdPressureCritical", "severity=warning"], "tickets"),
        (["alertname=OomwatchdDown", "severity=warning"], "tickets"),
    ],
)
def test_what_is_critical_wakes_somebody(labels: list[str], receiver: str) -> None:
    done = subprocess.run(
        [alertmanager("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}",
         *labels],
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.stdout.strip() == receiver


class Slack:
    """What is sent to an incoming webhook."""

    def __init__(self) -> None:
        messages: Queue[Any] = Queue()

        class Webhook(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self.messages = messages
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Webhook)
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def slack() -> Iterator[Slack]:
    with contextlib.closing(Slack()) as one:
        yield one


def unpacked(path: str) -> list[str]:
    """What starts it also where the package has been unpacked and not installed.

    It wants templates of its own in /usr/share; so it is shown one with both in it.
    """
    share = Path(path).resolve().parent.parent / "share"
    if share == Path("/usr/share"):
        return [path]
    mount = 'mount -t overlay overlay -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"'
    return ["unshare", "--mount", "/bin/sh", "-c", mount, str(share), path]


@pytest.fixture
def alertmanager_url(mount_namespaces: None, slack: Slack, tmp_path: Path) -> Iterator[str]:
    """A real one, with the example as its configuration, but for how long it waits."""
    shutil.copy(PACKAGED / "oomwatchd.tmpl", tmp_path)
    webhook = tmp_path / "slack-url"
    webhook.write_text(f"http://127.0.0.1:{slack.server.server_port}/hook", encoding="utf-8")
    example = ALERTMANAGER.read_text(encoding="utf-8")
    example = example.replace("/etc/prometheus/slack-url", str(webhook))
    example = re.sub(r"group_wait: \w+", "group_wait: 1s", example)
    (tmp_path / ALERTMANAGER.name).write_text(example, encoding="utf-8")
    [port] = free_ports(1)
    command = [
        *unpacked(alertmanager("prometheus-alertmanager")),
        f"--config.file={tmp_path / ALERTMANAGER.name}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def send(url: str, *alerts: dict[str, dict[str, str]]) -> None:
    """To Alertmanager, as Prometheus does; it may not be ready yet."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    address = url.removeprefix("http://")
    while True:
        client = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
        with contextlib.closing(client), contextlib.suppress(ConnectionRefusedError):
            headers = {"Content-Type": "application/json"}
            client.request("POST", "/api/v2/alerts", json.dumps(alerts), headers)
            if client.getresponse().status == 200:
                return
        assert time.monotonic() < deadline, "Alertmanager does not take alerts"
        time.sleep(0.1)


def fired(name: str, **labels: str) -> dict[str, dict[str, str]]:
    """An alert as Prometheus would send it, by our rules."""
    alert = next(one for one in ALERTS if one["alert"] == name)
    known = {"alertname": name, "job": "oomwatchd", **alert["labels"], **labels}

    def expanded(text: str) -> str:
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: known[found[1]], text)

    annotations = {key: expanded(text) for key, text in alert["annotations"].items()}
    return {"labels": known, "annotations": annotations}


def test_a_kill_at_night_is_one_message_that_says_what_to_do(
    slack: Slack, alertmanager_url: str
) -> None:
    killed = {"instance": "gpu-17:9847", "rule": "training", "killer": "kernel"}
    send(alertmanager_url, fired("OomwatchdProtectedProcessKilled", **killed))
    message = slack.messages.get(timeout=PATIENCE_SECONDS)
    [attachment] = message["attachments"]

    assert message["channel"] == "#oncall"
    assert attachment["title"] == "[1 firing] OomwatchdProtectedProcessKilled on gpu-17:9847"
    assert attachment["title_link"] == MANUAL_URL + "oomwatchdprotectedprocesskilled"
    assert "rule training protects was killed on gpu-17:9847" in attachment["text"]
    assert "`oomwatchd incidents show last`" in attachment["text"]
    assert attachment["color"] == "danger"


def test_the_same_ticket_of_many_machines_is_one_message(
    slack: Slack, alertmanager_url: str
) -> None:
    exposed = {"rule": "training", "killer": "systemd_oomd"}
    machines = [f"gpu-{number}:9847" for number in range(40)]
    send(
        alertmanager_url,
        *(fired("OomwatchdProcessExposed", instance=one, **exposed) for one in machines),
    )
    message = slack.messages.get(timeout=PATIENCE_SECONDS)
    [attachment] = message["attachments"]

    assert message["channel"] == "#tickets"
    assert attachment["title"] == "[40 firing] OomwatchdProcessExposed, rule training"
    assert attachment["text"].count("can take what rule training protects on gpu-") == 10
    assert "and others, 40 in all" in attachment["text"]
    assert slack.messages.empty()


def test_a_rollout_that_goes_wrong_is_not_also_a_ticket_for_each_machine(
    slack: Slack, alertmanager_url: str
) -> None:
    down = [fired("OomwatchdDown", instance=f"gpu-{number}:9847") for number in range(5)]
    send(alertmanager_url, fired("OomwatchdDownOnMany"), *down)
    send(alertmanager_url, fired("OomwatchdReloadFailed", instance="gpu-1:9847"))
    told = [slack.messages.get(timeout=PATIENCE_SECONDS) for _ in range(2)]
    titles = sorted(one["attachments"][0]["title"] for one in told)

    assert titles == ["[1 firing] OomwatchdDownOnMany", "[1 firing] OomwatchdReloadFailed"]
    assert slack.messages.empty()
