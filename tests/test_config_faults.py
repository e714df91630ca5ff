import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oomwatchd import config
from oomwatchd.config import ConfigError, Fault, parse
from oomwatchd.config.files import LIMIT_BYTES

DATA = Path(__file__).parent / "data" / "config"
PACKAGE = Path(config.__file__).parent
RULE = "- {{name: {}, match: {{user: {}}}, oom_score_adj: 1}}\n"


def told(raw: bytes, file: str = "x.yaml") -> list[str]:
    """All faults and warnings as lines, without the name of the file."""
    try:
        loaded = parse(raw, file)
    except ConfigError as error:
        return lines_of(error.faults) + [f"warning {line}" for line in lines_of(error.warnings)]
    return [f"warning {line}" for line in lines_of(loaded.warnings)]


def lines_of(faults: Sequence[Fault]) -> list[str]:
    return [str(fault).removeprefix(f"{fault.file}:") for fault in faults]


def files(kind: str) -> list[Path]:
    return sorted((DATA / kind).glob("*.yaml"))


@pytest.mark.parametrize("path", files("bad"), ids=lambda path: path.stem)
def test_each_fault_is_told_with_its_place(path: Path) -> None:
    lines = told(path.read_bytes(), path.name)

    assert lines == path.with_suffix(".expected").read_text().splitlines()
    assert any(not line.startswith("warning ") for line in lines)


@pytest.mark.parametrize("path", files("good"), ids=lambda path: path.stem)
def test_a_valid_file_has_its_warnings_and_no_more(path: Path) -> None:
    lines = told(path.read_bytes(), path.name)

    assert lines == path.with_suffix(".expected").read_text().splitlines()
    assert all(line.startswith("warning ") for line in lines)


TOLD_ELSEWHERE = {  # what no file in data/config can show, and the test that does
    "rule number ": "test_more_rules_than_are_compared_are_refused",
    "the list has more than ": "test_more_items_than_a_list_may_have_are_refused",
    "nested too deeply": "test_deep_nesting_is_a_fault",
    "global flags not at the start": "test_flags_inside_an_expression_are_refused",
    " is not a pattern: ": "none: only Python 3.10.0 to 3.10.4 refuse any text",
    "expected a single document": "none: PyYAML's own words, which are compared with",
}


def texts(path: Path) -> Iterator[str]:
    """What a module may tell, as regular expressions: all its text of more than a word."""
    tree = ast.parse(path.read_text())
    passed_over = {
        id(part)
        for node in ast.walk(tree)
        for part in ast.walk(node)
        if (isinstance(node, ast.JoinedStr) and part is not node)
        or (isinstance(node, ast.Expr) and part is node.value)  # documentation
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile")
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in passed_over:
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            pattern = "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*"
                for part in parts
            )
            if " " in pattern:
                yield pattern


@pytest.mark.parametrize("module", ["section", "values", "patterns", "source", "rules", "load"])
def test_every_text_of_the_code_is_shown_by_some_file(module: str) -> None:
    shown = "".join(path.read_text() for path in DATA.glob("*/*.expected"))

    never = [
        text
        for text in texts(PACKAGE / f"{module}.py")
        if not re.search(text, shown)
        and not any(re.escape(elsewhere) in text for elsewhere in TOLD_ELSEWHERE)
    ]

    assert never == []


def test_more_rules_than_are_compared_are_refused() -> None:
    rules = "".join(
        f"- {{name: r{i}, match: {{user: {i}}}, oom_score_adj: 1}}\n" for i in range(1001)
    )

    lines = told(f"rules:\n{rules}".encode())

    assert lines == ["1002:3: rule number 1001; allowed: 1000 in all files"]


def test_more_items_than_a_list_may_have_are_refused() -> None:
    users = ", ".join(map(str, range(1001)))

    [line] = told(f"rules: [{{name: a, match: {{user: [{users}]}}, oom_score_adj: 1}}]".encode())

    assert line.startswith("1:33: user: the list has more than 1000 items; allowed: ")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_a_fault(opening: str) -> None:
    [line] = told(opening.encode() * 2000)

    assert line.endswith(": nested too deeply; allowed: a few levels")


def test_deep_nesting_of_an_expression_is_a_fault_or_well() -> None:
    regex = "(?:" * 249 + ")" * 249  # as deep as the length allows; enough for some Pythons

    lines = told(f"rules: [{{name: a, match: {{cmdline: '{regex}'}}, oom_score_adj: 1}}]".encode())

    assert all(": nested too deeply; allowed: " in line for line in lines)


@pytest.mark.filterwarnings("error")
def test_flags_inside_an_expression_are_refused() -> None:
    [line] = told(b"rules: [{name: a, match: {cmdline: 'a(?i)b'}, oom_score_adj: 1}]")

    assert "'a(?i)b' is not a regular expression: global flags not at the start" in line


def test_a_doubtful_expression_is_told_of_at_every_load() -> None:
    raw = (DATA / "good" / "regex-doubtful.yaml").read_bytes()

    assert told(raw) == told(raw) != []


def test_faults_of_all_files_are_told_in_order() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            b"interval: 5\nrules:\n" + RULE.format("one", 1).encode(),
            "x.yaml",
            {
                "x.yaml.d/2.yaml": b"interval: 5s\nrules:\n" + RULE.format("one", 1).encode(),
                "x.yaml.d/1.yaml": b"rules: [",
                "x.yaml.d/3.yaml": b"events: [a]: b",
            },
        )

    assert [line.partition("; ")[0] for line in str(caught.value).splitlines()] == [
        "x.yaml:1:11: interval: '5' has no unit",
        "x.yaml.d/1.yaml:1:9: is not valid YAML: expected the node content, but found "
        "'<stream end>' (while parsing a flow node, line 1)",
        "x.yaml.d/2.yaml:1:1: 'interval' does not belong here but at the top level of the main "
        "file",
        "x.yaml.d/2.yaml:3:3: rule 'one' can never be reached: rule 'one' at x.yaml:3 matches all "
        "that it matches",
        "x.yaml.d/2.yaml:3:10: name: 'one' is the name of the rule at x.yaml:3",
        "x.yaml.d/3.yaml:1:12: is not valid YAML: mapping values are not allowed here",
    ]


def test_a_file_name_cannot_forge_a_line() -> None:
    fault = Fault("a\nb.yaml:1:1: all is well\x1b[2K", 3, 5, "is wrong")

    assert str(fault) == "a\\nb.yaml:1:1: all is well\\x1b[2K:3:5: is wrong"


VALID = (DATA / "good" / "every-key.yaml").read_bytes()
PIECES = [b"\n", b"\r", b"\t", b"  ", b"- ", b": ", b"? ", b"&a ", b"<<: *a", b"!!int ", b"---\n"]
PIECES += [
    b"%YAML 1.1\n",
    b"\\ud800",
    b"\x00",
    b"\xff",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"name: ",
]
PIECES += b"* *a [ ] { } ' \" ~ | > # 010 1e999 = 0 % @".split()


def faults_of(raw: bytes) -> tuple[Fault, ...]:
    try:
        parse(raw, "x.yaml")
    except ConfigError as error:
        assert error.faults  # noqa: PT017 - there may be no error at all
        return error.faults
    return ()


def assert_told_in_one_line_each(raw: bytes) -> None:
    """Whatever the bytes are: faults, or none, but no other exception."""
    lines = raw.count(b"\n") + raw.count(b"\r") + 1

    faults = faults_of(raw)

    assert all(len(str(fault).splitlines()) == 1 for fault in faults)
    assert all(1 <= fault.line <= lines and fault.column >= 1 for fault in faults)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe")
@example(b'"\\UFFFFFFFF"')
@example(b"%YAML " + b"9" * 5000 + b".1\n---\na: b")
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
@example(b"!<tag:yaml.org,2002:python/object/apply:os.system> [true]")
def test_random_bytes_never_cause_more_than_faults(raw: bytes) -> None:
    assert_told_in_one_line_each(raw)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.text(
        st.one_of(st.characters(), st.sampled_from("-:[]{}?&*!|>'\"%@`#, \n\t\\")), max_size=100
    )
)
def test_random_text_never_causes_more_than_faults(text: str) -> None:
    assert_told_in_one_line_each(text.encode("utf-8", "surrogatepass"))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 12), st.sampled_from(PIECES)),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_file_never_causes_more_than_faults(
    changes: list[tuple[int, int, bytes]],
) -> None:
    raw = VALID
    for start, length, piece in changes:
        raw = raw[:start] + piece + raw[start + length :]

    assert_told_in_one_line_each(raw)


words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20).filter(
    str.isprintable
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(0, 5), words, words)
def test_the_column_counts_characters(spaces: int, before: str, word: str) -> None:
    key, value = ("'" + text.replace("'", "''") + "'" for text in (before, word))
    line = f"{{{key}:{' ' * (spaces + 1)}1, interval: {value}}}"

    lines = told(line.encode())

    column = len(key) + spaces + len("{: 1, interval: ") + 1
    assert any(line.startswith(f"1:{column}: interval: ") for line in lines)


def test_aliases_cannot_make_a_file_larger_than_it_looks() -> None:
    regexes = ", ".join(f"'{'x' * 200}{i}'" for i in range(900))
    first = f"- {{name: a, match: {{user: root, cmdline: &r [{regexes}]}}, oom_score_adj: 1}}\n"
    others = "".join(
        f"- {{name: r{i}, match: {{user: {i}, cmdline: *r}}, oom_score_adj: 1}}\n"
        for i in range(999)
    )

    lines = told(f"rules:\n{first}{others}".encode())

    assert len(first + others) < LIMIT_BYTES
    assert lines == ["2:1: is too large with its aliases written out; allowed: 4 MiB"]
