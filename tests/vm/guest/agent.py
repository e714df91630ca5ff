#!/usr/bin/python3
"""Inside the machine: carries out what the host asks, one JSON object a line, one after the other.

{"run": [PROGRAM, ARGUMENT...], "timeout_seconds": N}  ->  {"status": N, "output": "..."}
{"put": PATH, "base64": "...", "mode": N}              ->  {}
{"get": PATH}                                          ->  {"base64": "..."} or {"error": "..."}
"""

import base64
import ctypes
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

PORTS = Path("/sys/class/virtio-ports")
LOCK_NOW_AND_LATER = 3  # MCL_CURRENT | MCL_FUTURE
# The agent is last in line for the OOM killer, and its children must not inherit that.
AT_ZERO = ["/bin/sh", "-c", 'echo 0 >/proc/self/oom_score_adj; exec "$@"', "sh"]


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Output goes to a file: a pipe would stay open as long as any grandchild lives."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*AT_ZERO, *request["run"]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/root",
        )
        try:
            status: int | None = process.wait(request["timeout_seconds"])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
        output.seek(0)
        return {"status": status, "output": output.read().decode("utf-8", "backslashreplace")}


def put(request: dict[str, Any]) -> dict[str, Any]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with open(os.open(request["put"], flags, request["mode"]), "wb") as file:
        file.write(base64.b64decode(request["base64"]))
        os.fchmod(file.fileno(), request["mode"])
    return {}


def get(request: dict[str, Any]) -> dict[str, Any]:
    try:
        with open(request["get"], "rb") as file:
            return {"base64": base64.b64encode(file.read()).decode()}
    except OSError as error:
        return {"error": str(error)}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "run" in request:
        return run(request)
    return put(request) if "put" in request else get(request)


def send(port: int, message: dict[str, Any]) -> None:
    line = json.dumps(message).encode() + b"\n"
    while line:
        line = line[os.write(port, line) :]


def main() -> None:
    # With its pages locked the agent can still answer when the page cache has been squeezed out.
    ctypes.CDLL(None).mlockall(LOCK_NOW_AND_LATER)
    name = next(port.name for port in PORTS.iterdir() if (port / "name").exists())
    port = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)  # it can be opened only once
    send(port, {"ready": True})
    with os.fdopen(port, "rb", closefd=False) as lines:
        for line in lines:
            send(port, answer(json.loads(line)))


if __name__ == "__main__":
    main()
