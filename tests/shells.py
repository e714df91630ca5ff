"""Real shells, asked for what they would complete."""

import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Final

import pytest
from demand import terminal

COMPLETIONS: Final = Path(__file__).parent.parent / "packaging" / "completion"
BASH_COMPLETION: Final = Path("/usr/share/bash-completion/bash_completion")
PATIENCE_SECONDS: Final = 30.0
PROMPT: Final = "ready> "
TAB, KILL_LINE = "\t", "\x15"
ROWS, COLUMNS = 1000, 160  # so many that no shell asks whether to show them all
ESCAPES: Final = re.compile(r"\x1b(\[[0-9;?>=]*[a-zA-Z]|[=>]|\][^\x07]*\x07)|[\x07\x0f]")
BASHRC: Final = f"""
PS1='{PROMPT}'
. {BASH_COMPLETION}
bind 'set show-all-if-ambiguous on'
bind 'set completion-query-items 0'
bind 'set page-completions off'
"""
ZSHRC: Final = f"""
PS1='{PROMPT}' PROMPT_SP='' LISTMAX=1000
unsetopt prompt_sp prompt_cr beep
fpath=({COMPLETIONS} $fpath)
autoload -Uz compinit && compinit -u -D
"""


def environment(home: Path, extra: dict[str, str]) -> dict[str, str]:
    """A new user's; bash finds the completion as in the package, but below XDG_DATA_HOME."""
    lazily = home / "bash-completion" / "completions"
    lazily.mkdir(parents=True)
    (lazily / "oomwatchd").symlink_to(COMPLETIONS / "oomwatchd")
    (home / ".bashrc").write_text(BASHRC)
    (home / ".zshrc").write_text(ZSHRC)
    return {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        **extra,
    }


def offered(shell: str, typed: str, env: dict[str, str], directory: Path) -> list[str]:
    """The words that *shell* shows when TAB is pressed after *typed*, and those typed."""
    if not shutil.which(shell) or (shell == "bash" and not BASH_COMPLETION.exists()):
        pytest.skip(f"no {shell}, or no completion for it: script/test fetches them")
    if shell == "fish":
        return asked_of_fish(typed, env, directory)
    return typed_into(shell, typed, env, directory).split()


def asked_of_fish(typed: str, env: dict[str, str], directory: Path) -> list[str]:
    """fish answers without a terminal."""
    script = f"set fish_complete_path {COMPLETIONS}; complete -C {typed!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=env, cwd=directory, capture_output=True, text=True, check=True,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


def typed_into(shell: str, typed: str, env: dict[str, str], directory: Path) -> str:
    """What the terminal shows from *typed* on.

    After TAB, the line is taken back and a command is given: what the shell has to offer has been
    shown when that command's output comes.
    """
    own, its = terminal()
    fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = ["setsid", "--ctty", shell, *(["--noprofile"] if shell == "bash" else []), "-i"]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=env, cwd=directory) as it:
        os.close(its)
        try:
            read_until(own, PROMPT)
            os.write(own, (typed + TAB + KILL_LINE + "echo end-$((40 + 2))\r").encode())
            shown = read_until(own, "end-42")
            os.write(own, b"exit\r")
            read_to_the_end(own)
        finally:
            it.kill()
            os.close(own)
    return shown


def read_until(terminal: int, marker: str) -> str:
    raw, until = b"", time.monotonic() + PATIENCE_SECONDS
    while marker not in (text := ESCAPES.sub("", raw.decode(errors="replace"))):
        assert time.monotonic() < until, f"no {marker!r} in {text!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            raw += os.read(terminal, 65536)
    return text


def read_to_the_end(terminal: int) -> None:
    """A shell does not end before all it says has been read; a closed terminal gives EIO."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        return
