"""``script/make-docs [--check]``: write all that is made of what the code says."""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from manual import completion, roff
from manual.tables import TABLES
from oomwatchd.config.schema import schema

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = Path(__file__).parent
README: Final = ROOT / "README.md"
PAGES: Final = ("oomwatchd.8", "oomwatchd.yaml.5")
# What stands between these is made here.
PLACE: Final = re.compile(r"(<!-- made: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
# In the sources of the man pages: a section of the README, less its heading.
SECTION: Final = re.compile(r"^<!-- README: (.*?) -->\n", re.MULTILINE)
DOC: Final = re.compile(r"\[docs/([^]]*)\]\([^)]*\)")  # where the package puts it
TITLE: Final = re.compile(r"# (\S+)\((\d)\), (\S+)\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/make-docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if anything would")
    checking = parser.parse_args().check
    changed = list(changes(made()))
    for path, text in changed:
        if checking:
            sys.stdout.writelines(difference(path, text))
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if checking and changed else 0


def made() -> dict[Path, str]:
    """Every file that is made, or has parts that are, with its content."""
    readme = filled(README.read_text(encoding="utf-8"))
    files = {
        README: readme,
        ROOT / "docs/oomwatchd.schema.json": json.dumps(schema(), indent=2) + "\n",
    }
    for name in PAGES:
        source = (SOURCES / f"{name}.md").read_text(encoding="utf-8")
        files[ROOT / "packaging/man" / name] = man_page(source, readme)
    for name, text in completion.scripts().items():
        files[ROOT / "packaging/completion" / name] = text
    return files


def changes(files: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield path, text


def difference(path: Path, text: str) -> Iterator[str]:
    name = str(path.relative_to(ROOT))
    there = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = there.splitlines(keepends=True), text.splitlines(keepends=True)
    yield from difflib.unified_diff(*lines, name, f"{name} as script/make-docs makes it")


def filled(text: str) -> str:
    def place(found: re.Match[str]) -> str:
        lines = "\n".join(TABLES[found[2]]()).strip()
        return f"{found[1]}{lines}\n{found[3]}"

    return PLACE.sub(place, text)


def man_page(source: str, readme: str) -> str:
    title = TITLE.match(source)
    if title is None:
        raise ValueError("a page begins with its title: # name(section), date")
    whole = SECTION.sub(lambda found: section(readme, found[1]), source[title.end() :])
    whole = DOC.sub(r"`\1` in `/usr/share/doc/oomwatchd`", whole)
    named = roff.Title(title[1], int(title[2]), title[3])
    return roff.page(filled(whole), named)


def section(text: str, title: str) -> str:
    """What is under the heading *title*, up to the next of its level or a higher one."""
    found: list[str] = []
    level = 0
    for line, depth in with_depth(text.splitlines()):
        if level and 0 < depth <= level:
            break
        if level:
            found.append(line)
        elif depth and line.lstrip("#") == f" {title}":
            level = depth
    if not level:
        raise ValueError(f"the README has no section '{title}'")
    return "\n".join(found).strip("\n") + "\n"


def with_depth(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each line with the level of its heading, 0 if it is none; # in an example is a comment."""
    in_example = False
    for line in lines:
        in_example ^= line.startswith(roff.FENCE)
        marks = 0 if in_example else len(line) - len(line.lstrip("#"))
        yield line, marks


if __name__ == "__main__":
    sys.exit(main())
