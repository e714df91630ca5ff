"""The recipe of the image, as far as it can be read; script/chroot-check does what it says."""

import re
from pathlib import Path

import pytest
from image import FROM, KUBERNETES, Refused, Step, copy, follow, steps, words
from test_packaging import CHECKOUT

from oomwatchd.cli.main import COMMANDS

TEXT = (KUBERNETES / "Containerfile").read_text(encoding="utf-8")
RECIPE = list(steps(TEXT))


def one(instruction: str) -> str:
    [text] = [step.text for step in RECIPE if step.instruction == instruction]
    return text


def test_comments_continued_lines_and_arguments_are_understood() -> None:
    recipe = "ARG A=b\n# no\nFROM x:${A}-slim\n\nRUN one && \\\n# no\n    two\nUSER root\n"

    assert list(steps(recipe)) == [
        Step("ARG", "A=b"),
        Step("FROM", "x:b-slim"),
        Step("RUN", "one && two"),
        Step("USER", "root"),
    ]


@pytest.mark.parametrize(
    "line", ["ADD x /", "RUN --mount=type=cache true", "run true", "VOLUME /x"]
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(Refused, match=re.escape(line)):
        list(steps(line))


@pytest.mark.parametrize("text", ["none-*.deb /tmp/", "a.deb /tmp"])
def test_a_copy_of_nothing_or_to_no_directory_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.deb").touch()

    with pytest.raises(Refused, match="COPY"):
        copy(text, tmp_path, tmp_path / "root")


def test_files_are_copied_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/a_1_all.deb").write_text("package")

    copy("dist/a_*_all.deb /tmp/", tmp_path, tmp_path / "root")

    assert (tmp_path / "root/tmp/a_1_all.deb").read_text() == "package"


def test_another_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="another base"):
        follow([Step("FROM", "docker.io/library/alpine:3")], tmp_path, tmp_path)


def test_the_base_is_a_debian_that_the_package_is_built_for() -> None:
    assert FROM.fullmatch(one("FROM"))
    assert one("FROM").removeprefix("docker.io/library/debian:") in {"trixie-slim", "bookworm-slim"}


def test_the_daemon_is_started_without_a_shell_as_root_and_ended_by_its_own_signal() -> None:
    assert words(RECIPE, "ENTRYPOINT") == ["/usr/bin/oomwatchd"]
    assert words(RECIPE, "CMD") == ["run"]
    assert words(RECIPE, "CMD")[0] in COMMANDS
    assert (one("USER"), one("STOPSIGNAL")) == ("root", "SIGTERM")


def test_nothing_of_the_build_is_left_in_the_image() -> None:
    copied = one("COPY").split()
    pattern = f"{copied[-1]}{Path(copied[0]).name}"

    assert pattern in one("RUN").partition("rm -r ")[2].split()
    assert "/var/lib/apt/lists/*" in one("RUN")


def test_what_is_copied_is_what_the_script_builds() -> None:
    script = (CHECKOUT / "script/build-deb").read_text()

    assert re.search(r"^deb=oomwatchd_\$\{version\}_all\.deb$", script, re.MULTILINE)
    assert one("COPY").startswith("dist/oomwatchd_*_all.deb ")
