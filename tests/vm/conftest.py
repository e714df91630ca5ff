"""Scenarios on real machines, collected only with --suite, which script/test-vm gives."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from .machine import SUITES, Image, Machine, image, only_one
from .service import GUEST, WORK, configure, install, put_programs
from .shield import NO_RULES, calm, end_all, prepare

CACHE: Final = Path(
    # Large, and worth keeping over a reboot; only root writes there, and root checks no images.
    os.environ.get("OOMWATCHD_VM_CACHE", "/var/tmp/oomwatchd-vm")  # noqa: S108
)
RUNNING: Final = pytest.StashKey[Machine]()  # the machine of the scenario that runs now

Boot = Callable[..., Machine]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", choices=SUITES, help="which machine the vm scenarios run on")
    parser.addoption("--deb", type=Path, help="the package they install")
    parser.addoption("--results", type=Path, help="where consoles, journals and tables go")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Without --suite no machine is started, whatever else is asked for."""
    return True if config.getoption("--suite", None) is None else None


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, report: pytest.TestReport | pytest.CollectReport
) -> None:
    """Show with a failure what the machine had to say."""
    if RUNNING in node.session.stash:
        machine = node.session.stash[RUNNING]
        journal = machine.journal().splitlines()[-100:]
        report.sections.append(("the machine's journal", "\n".join(journal)))
        report.sections.append(("the machine's console", machine.console_end()))


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> str:
    name: str = pytestconfig.getoption("--suite")
    return name


@pytest.fixture(scope="session")
def deb(pytestconfig: pytest.Config) -> Path:
    path: Path = pytestconfig.getoption("--deb")
    return path


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config, suite: str) -> Path:
    path: Path = pytestconfig.getoption("--results").resolve() / suite
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def suite_image(suite: str) -> Iterator[Image]:
    with only_one(CACHE):
        yield image(suite, CACHE)


@pytest.fixture(scope="module")
def boot(request: pytest.FixtureRequest, suite_image: Image, results: Path) -> Iterator[Boot]:
    """Boot a machine with the kernel arguments given; it ends with the next boot or the module."""
    stash = request.session.stash
    module = request.node.name.removesuffix(".py")

    def end() -> None:
        if RUNNING in stash:
            machine = stash[RUNNING]
            del stash[RUNNING]
            (machine.console.parent / "journal.txt").write_text(machine.journal())
            machine.stop()

    def booted(*kernel_arguments: str) -> Machine:
        end()
        name = "-".join([module, *kernel_arguments])
        stash[RUNNING] = Machine(suite_image, results / name, kernel_arguments)
        return stash[RUNNING]

    yield booted
    end()


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Machine:
    """A machine as it is before the package is installed, with the scenarios' programs in it."""
    machine = boot()
    put_programs(machine)
    return machine


@pytest.fixture(scope="module")
def protected(machine: Machine, deb: Path) -> Machine:
    """The same machine with the package installed, and its service active."""
    install(machine, deb)
    return machine


@pytest.fixture(scope="module")
def squeezed(protected: Machine) -> Machine:
    """Whatever lives under the user's manager and needs more than 200 MiB is under pressure."""
    for name in ("trainer", "other"):
        protected.put(f"{WORK}/{name}.py", (GUEST / "trainer.py").read_bytes(), 0o755)
    prepare(protected)
    return protected


@pytest.fixture
def session(squeezed: Machine) -> Iterator[Machine]:
    """The same machine, quiet, and quiet again afterwards."""
    calm(squeezed)
    yield squeezed
    end_all(squeezed)
    configure(squeezed, NO_RULES)
