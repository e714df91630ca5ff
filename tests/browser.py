"""A real browser without a screen, for the tests of the page: Chromium, driven by its own protocol.

Source:  https://chromedevtools.github.io/devtools-protocol/, over --remote-debugging-pipe.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_SECONDS: Final = 60.0
# It looks for its commands at descriptor 3, and answers at 4.
LAUNCH: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page in it; *events* is all that it has told of itself."""

    def __init__(self, commands_fd: int, answers_fd: int) -> None:
        self._commands_fd, self._answers_fd = commands_fd, answers_fd
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> Mapping[str, Any]:
        self._number += 1
        command: dict[str, object] = {
            "id": self._number, "method": method, "params": parameters,
        }  # fmt: skip
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands_fd, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            message = self._message(until)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: Mapping[str, Any] = message["result"]
                return result
            self.events.append(message)

    def _message(self, until: float) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers_fd], [], [], until - time.monotonic())
            read = os.read(self._answers_fd, 1 << 16) if ready else b""
            assert read, "the browser says nothing"
            self._unread += read
        raw, _, self._unread = self._unread.partition(b"\0")
        message: Mapping[str, Any] = json.loads(raw)
        return message

    def show(self, path: Path, *, width: int, scheme: str = "light", height: int = 900) -> None:
        """On a screen of *width* CSS pixels; below 600 it is a phone's."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.heard("Page.loadEventFired"):
            self.events.append(self._message(until))

    def close(self) -> None:
        self._session = None
        self.ask("Browser.close")

    def heard(self, method: str) -> list[Mapping[str, Any]]:
        return [one["params"] for one in self.events if one.get("method") == method]

    def value(self, expression: str) -> Any:
        """Of JavaScript, in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)[
            "result"
        ].get("value")

    def screenshot(self) -> bytes:
        """Of the whole page, as PNG."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here to show the page")
    commands, answers = os.pipe(), os.pipe()
    with subprocess.Popen(
        [
            sys.executable, "-c", LAUNCH, str(commands[0]), str(answers[1]),
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={directory}",
        ],
        pass_fds=(commands[0], answers[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(commands[0])
        os.close(answers[1])
        try:
            opened = Browser(commands[1], answers[0])
            yield opened
            opened.close()
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            os.close(commands[1])
            os.close(answers[0])
