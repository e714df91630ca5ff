"""The values from before us: what survives the daemon, a crash, a full disk, and bad bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oomwatchd.ledger import FORMAT, Ledger, LedgerError, line, mark_line, parsed, parsed_marks
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim, Standing

BOOT = "5c2f8f4e-8f5b-4a0e-9d0a-3f1f5ad0c0de"
CLAIM = Claim("db", "matched", before=3, ours=frozenset({-900, -200}))
HEIR = Claim("browser", "heir", before=0, ours=frozenset({500}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


def filled(path: Path, claims: dict[ProcessId, Claim]) -> Ledger:
    ledger = Ledger(path, BOOT)
    for id, claim in claims.items():
        ledger.remember(id, claim)
    return ledger


def loaded(path: Path, boot_id: str = BOOT) -> dict[ProcessId, Claim]:
    ledger = Ledger(path, boot_id)
    ledger.load()
    return dict(ledger.claims())


TWO = {ProcessId(7, 100): CLAIM, ProcessId(8, 200): HEIR}


def document(claims: dict[ProcessId, Claim]) -> bytes:
    lines = ",".join(line(id, claim) for id, claim in claims.items())
    return f'{{"format": {FORMAT}, "boot_id": "{BOOT}", "processes": [{lines}]}}'.encode()


# -- keeping ---------------------------------------------------------------------------------------

scores = st.integers(-1000, 1000)
standings: st.SearchStrategy[Standing] = st.sampled_from(["matched", "heir", "released"])
ids = st.builds(ProcessId, st.integers(1, 1 << 22), st.integers(0, 1 << 60))
claims = st.builds(
    Claim,
    st.text("abz09_-", min_size=1, max_size=64),
    standings,
    scores,
    st.frozensets(scores, min_size=1, max_size=4),
)


@given(st.dictionaries(ids, claims, max_size=5))
def test_what_is_kept_is_what_is_found_again(kept: dict[ProcessId, Claim]) -> None:
    assert dict(parsed(document(kept), BOOT)) == kept


def test_a_ledger_survives_its_daemon(path: Path) -> None:
    filled(path, TWO).save()

    assert loaded(path) == TWO
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_file_there_is_nothing_to_take_over(path: Path) -> None:
    assert loaded(path) == {}


def test_the_ledger_of_another_boot_says_nothing_of_this_one(path: Path) -> None:
    filled(path, TWO).save()

    assert loaded(path, boot_id="another") == {}


def test_what_has_nothing_to_put_back_is_not_kept(path: Path) -> None:
    ledger = filled(path, TWO)
    ledger.remember(ProcessId(8, 200), HEIR._replace(ours=frozenset()))

    assert ledger.claims() == [(ProcessId(7, 100), CLAIM)]


def test_what_is_forgotten_is_gone_from_the_file(path: Path) -> None:
    ledger = filled(path, TWO)
    ledger.save()
    ledger.forget(ProcessId(7, 100))
    ledger.save()
    once = loaded(path)
    ledger.forget(ProcessId(7, 100))
    ledger.save()

    assert once == loaded(path) == {ProcessId(8, 200): HEIR}
    assert ledger.get(ProcessId(7, 100)) is None


def test_a_pid_with_another_start_is_another_process(path: Path) -> None:
    ledger = filled(path, TWO)

    assert ledger.get(ProcessId(7, 101)) is None
    assert ledger.get(ProcessId(7, 100)) == CLAIM


def test_a_ledger_that_has_not_changed_is_not_written_again(path: Path) -> None:
    ledger = filled(path, TWO)
    ledger.save()
    path.unlink()
    ledger.remember(ProcessId(7, 100), CLAIM)
    ledger.save()

    assert not path.exists()


def test_a_dry_run_writes_nothing(path: Path) -> None:
    ledger = Ledger(path, BOOT, read_only=True)
    ledger.remember(ProcessId(7, 100), CLAIM)
    ledger.save()

    assert list(path.parent.iterdir()) == []


# -- bad bytes -------------------------------------------------------------------------------------

WHOLE = document(TWO)


@given(st.binary() | st.integers(0, len(WHOLE)).map(lambda size: WHOLE[:size]))
@example(b"[" * 100_000)
@example(b"{}")
@example(b"null")
@example(b'"format"')
@example(b"\xff\xfe")
def test_bytes_that_are_no_ledger_are_a_ledger_error_and_nothing_else(raw: bytes) -> None:
    try:
        found = parsed(raw, BOOT)
    except LedgerError:
        return

    assert dict(found) == TWO
    assert raw == WHOLE


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = list(json.loads(line(ProcessId(7, 100), CLAIM)))


@given(st.sampled_from(KEYS), json_values)
@example("pid", float("inf"))
@example("oom_score_adj_before", float("nan"))
@example("oom_score_adj_ours", [float("inf")])
@example("standing", [])
@example("standing", "somehow")
@example("oom_score_adj_before", 1001)
@example("oom_score_adj_ours", [-1001])
def test_no_field_of_a_wrong_kind_is_taken_over(key: str, value: object) -> None:
    entry = json.loads(line(ProcessId(7, 100), CLAIM)) | {key: value}
    raw = json.dumps({"format": FORMAT, "boot_id": BOOT, "processes": [entry]}).encode()
    try:
        [(id, claim)] = parsed(raw, BOOT)
    except LedgerError:
        return

    assert isinstance(id.pid, int)
    assert isinstance(id.start_ticks, int)
    assert -1000 <= claim.before <= 1000  # the kernel would refuse to have it put back
    assert all(-1000 <= value <= 1000 for value in claim.ours)


@pytest.mark.parametrize("top", [{"format": 2}, {"boot_id": 3}, {"processes": None}])
def test_another_format_is_not_guessed_at(top: dict[str, object]) -> None:
    raw = json.dumps(json.loads(WHOLE) | top).encode()
    if "boot_id" in top:
        assert parsed(raw, BOOT) == []
        return

    with pytest.raises(LedgerError):
        parsed(raw, BOOT)


# -- marks -----------------------------------------------------------------------------------------

names = st.binary(min_size=1, max_size=9).map(
    lambda raw: os.fsdecode(raw.translate(None, b"/\0") or b"\xff")
)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.dictionaries(paths, st.integers(0, 1 << 64)))
def test_marks_that_are_kept_are_found_again(kept: dict[str, int]) -> None:
    entries = ",".join(mark_line(cgroup, inode) for cgroup, inode in kept.items())
    raw = f'{{"format": {FORMAT}, "boot_id": "{BOOT}", "processes": [], "marks": [{entries}]}}'

    assert parsed_marks(raw.encode(), BOOT) == kept
    assert parsed_marks(raw.encode(), "another") == {}


def test_marks_survive_their_daemon_and_a_ledger_without_them_is_good(path: Path) -> None:
    ledger = filled(path, TWO)
    ledger.save()
    without = parsed_marks(document(TWO), BOOT)
    ledger.remember_mark("/a.scope", 17)
    ledger.save()
    again = Ledger(path, BOOT)
    again.load()
    again.forget_mark("/a.scope")
    again.save()

    assert without == {}
    assert again.marks() == {}
    assert loaded(path) == TWO


@pytest.mark.parametrize(
    "entry",
    [
        {"cgroup": "/a/../../etc", "inode": 1},
        {"cgroup": "a", "inode": 1},
        {"cgroup": "/a\0", "inode": 1},
        {"cgroup": "/a", "inode": "x"},
        {"cgroup": "/a", "inode": float("inf")},
        {"inode": 1},
        "/a",
        None,
    ],
)
def test_no_mark_of_a_wrong_kind_is_taken_over(entry: object) -> None:
    document = {"format": FORMAT, "boot_id": BOOT, "processes": [], "marks": [entry]}

    with pytest.raises(LedgerError):
        parsed_marks(json.dumps(document).encode(), BOOT)


# -- writing ---------------------------------------------------------------------------------------

READ_ON = """
import json, sys
from pathlib import Path
path, reads = Path(sys.argv[1]), 0
print(flush=True)
while True:
    document = json.loads(path.read_bytes())
    assert document["processes"][-1]["pid"] == len(document["processes"])
    reads += 1
    if document["processes"][0]["start_ticks"] == 0:
        print(reads)
        break
"""


def test_a_reader_sees_the_old_ledger_or_the_new_one_and_never_half_of_one(path: Path) -> None:
    ledger = filled(path, {ProcessId(1, 1): CLAIM})
    ledger.save()
    command = [sys.executable, "-c", READ_ON, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for pid in range(2, 200):
            ledger.remember(ProcessId(pid, pid), CLAIM)
            ledger.save()
        filled(path, {ProcessId(1, 0): CLAIM}).save()
        reads = int(reader.stdout.readline() or 0)

    assert reader.returncode == 0
    assert reads > 10


def test_where_nothing_can_be_written_that_is_said_and_tried_again(path: Path) -> None:
    ledger = filled(path, TWO)
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        ledger.save()
    path.parent.mkdir()
    ledger.save()

    assert loaded(path) == TWO


FILL_UP = """
import sys, resource, signal
from pathlib import Path
from oomwatchd.ledger import Ledger
from oomwatchd.model import ProcessId
from oomwatchd.policy.plan import Claim
ledger = Ledger(Path(sys.argv[1]), sys.argv[2])
ledger.remember(ProcessId(1, 1), Claim("db", "matched", 0, frozenset({-900})))
ledger.save()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))  # as a full disk: less than a whole ledger
ledger.remember(ProcessId(2, 2), Claim("db", "matched", 0, frozenset({-900})))
try:
    ledger.save()
except OSError as error:
    print(type(error).__name__)
"""


def test_on_a_full_disk_the_old_ledger_stands(path: Path) -> None:
    command = [sys.executable, "-c", FILL_UP, str(path), BOOT]
    said = subprocess.run(command, check=True, capture_output=True, text=True)

    assert said.stdout == "OSError\n"
    assert list(loaded(path)) == [ProcessId(1, 1)]


def test_a_link_put_in_the_way_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    path.with_suffix(".json.new").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        filled(path, TWO).save()

    assert target.read_text() == "precious"
