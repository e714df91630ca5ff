"""A real terminal: tmux, with a shell in it."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from demand import demanded, terminal

PATIENCE_SECONDS = 10.0
PROMPT = "ready> "
SHELL = f"exec env PS1='{PROMPT}' bash --norc --noprofile -i"


class Pane:
    def __init__(self, socket: Path, env: Mapping[str, str]) -> None:
        self._command = ["tmux", "-S", str(socket), "-f", os.devnull]
        self._env = {**os.environ, **env, "LC_ALL": "C.UTF-8"}
        self._env.pop("TMUX", None)

    def open(self, width: int, height: int) -> None:
        size = ["-x", str(width), "-y", str(height)]
        self.tmux("new-session", "-d", *size, SHELL)
        self.until(lambda: PROMPT.strip() in self.text())

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments], env=self._env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.tmux("send-keys", "Enter")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        return self.tmux("capture-pane", "-p").splitlines()

    def text(self) -> str:
        return "\n".join(self.lines())

    def drawn(self) -> str:
        """With the sequences for styles."""
        return self.tmux("capture-pane", "-p", "-e")

    def told(self, what: str) -> str:
        """A format of tmux, such as alternate_on; see tmux(1)."""
        return self.tmux("display-message", "-p", f"#{{{what}}}").rstrip("\n")

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def pid(self) -> int:
        """Of what runs in it: the child of the shell, or the last of its descendants."""
        pid = self.told("pane_pid")
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = children[0]
        return int(pid)

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < end, self.text()
            time.sleep(0.02)

    def until_shown(self, words: str) -> None:
        self.until(lambda: words in self.text())

    def modes(self) -> str:
        """Of the terminal, as stty tells them."""
        tty = self.told("pane_tty")
        return subprocess.run(
            ["stty", "-g", "-F", tty], capture_output=True, text=True, check=True
        ).stdout


@contextmanager
def pane(width: int, height: int, env: Mapping[str, str]) -> Iterator[Pane]:
    demanded("tmux")
    for end in terminal():  # it has one in its turn
        os.close(end)
    with tempfile.TemporaryDirectory() as directory:  # short, as a socket's path has to be
        one = Pane(Path(directory) / "s", env)
        try:
            one.open(width, height)
            yield one
        finally:
            one.tmux("kill-server")
