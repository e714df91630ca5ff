"""``oomwatchd run``: the daemon, in the foreground."""

import argparse
import grp
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from oomwatchd import __version__, journal
from oomwatchd.cli import exits
from oomwatchd.cli.failure import unreadable
from oomwatchd.config import ConfigError, Loaded, load
from oomwatchd.coroner import Coroner, Sources
from oomwatchd.daemon import Daemon, Machine, serve
from oomwatchd.exposure import auditor_command
from oomwatchd.history import History
from oomwatchd.host import SystemHost
from oomwatchd.identify import SlowReader
from oomwatchd.incidents import Incidents
from oomwatchd.journal import log
from oomwatchd.kernel.cgroup import CGROUP_ROOT
from oomwatchd.kernel.counters import OomKills
from oomwatchd.kernel.features import probe
from oomwatchd.kernel.kmsg import KernelLog
from oomwatchd.kernel.proc import ProcFs
from oomwatchd.ledger import Ledger, LedgerError
from oomwatchd.listeners import resolved
from oomwatchd.model import Address, Config
from oomwatchd.paths import (
    CONFIG,
    incidents_directory,
    ledger_path,
    runtime_directory,
    status_socket,
)
from oomwatchd.policy.remembered import Remembered
from oomwatchd.record import Record
from oomwatchd.sampler import Sampler
from oomwatchd.server import Reporter
from oomwatchd.systemd.manager import spawned, worker_command
from oomwatchd.systemd.notify import Notifier
from oomwatchd.text import printable

if TYPE_CHECKING:
    from oomwatchd.systemd.bus import OomdSignals
    from oomwatchd.systemd.entries import JournalEntries

STALE_SECONDS: Final = 15.0
READERS: Final = "adm"  # the group that may read the log may read incidents
T = TypeVar("T")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", type=Path, default=CONFIG, metavar="FILE",
                        help=f"the configuration; {CONFIG} if not given")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true",
                        help="say what would be set, and write nothing anywhere")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    journal.start()
    if os.geteuid() != 0 and not arguments.dry_run:
        log.error("only root may set other users' oom_score_adj; --dry-run works for anyone")
        return exits.NOT_PERMITTED
    try:
        loaded = loaded_config(arguments.config)
    except ConfigError as error:
        for fault in error.faults:
            log.error("%s", printable(str(fault)))
        return exits.CONFIG
    except OSError as error:
        failure = unreadable(arguments.config, error)
        log.error("%s", printable(failure.message))
        return failure.status
    try:
        return watch(arguments.config, loaded, os.environ, dry_run=arguments.dry_run)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        log.error("%s%s", where, error.strerror or error)
        return exits.NOT_PERMITTED if isinstance(error, PermissionError) else exits.NO


def loaded_config(path: Path) -> Loaded:
    return load(path, root_only=os.geteuid() == 0)


def reloaded_config(path: Path) -> Loaded:
    """With the host of the metrics looked up, too.  May take long, so not for the loop."""
    loaded = loaded_config(path)
    listen = loaded.config.metrics_listen
    if listen is None:
        return loaded
    return replace(loaded, config=replace(loaded.config, metrics_listen=resolved(listen)))


def watch(path: Path, loaded: Loaded, environment: Mapping[str, str], *, dry_run: bool) -> int:
    """Raises OSError, if what the daemon needs at its start cannot be had."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # three for each process under a rule
    directory = runtime_directory(environment)
    if not dry_run:
        directory.mkdir(mode=0o750, exist_ok=True)
    reporter = reporting(
        loaded.config.metrics_listen, None if dry_run else status_socket(directory)
    )
    host = SystemHost(Notifier(environment), reporter)
    try:
        features = probe()
        greet(path, loaded, reporter.address, features)
        proc = ProcFs()
        ledger = opened_ledger(ledger_path(directory), proc.boot_id(), dry_run=dry_run)
        daemon = Daemon(
            loaded,
            partial(reloaded_config, path),
            reporter.rebind,
            proc,
            ledger,
            features,
            Machine(
                ram_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
                ticks_per_second=os.sysconf("SC_CLK_TCK"),
                cgroup_root=None if features["cgroup2"] else CGROUP_ROOT,
                spawn_auditor=None if dry_run else partial(spawned, auditor_command()),
                spawn=None
                if features["systemd"]
                else partial(spawned, worker_command(CGROUP_ROOT)),
                coroner=None
                if dry_run
                else partial(
                    coroner,
                    proc,
                    loaded.config,
                    incidents_directory(environment),
                    Remembered(ledger.claims()),
                    systemd=not features["systemd"],
                ),
            ),
            dry_run=dry_run,
        )
        serve(daemon, host)
    finally:
        host.close()
        reporter.close()
    return exits.FINE


def coroner(
    proc: ProcFs,
    config: Config,
    directory: Path,
    remembered: Remembered,
    record: Record,
    *,
    systemd: bool,
) -> Coroner:
    """*systemd*: it runs this machine.  Raises OSError, where /proc shows processes alone."""
    history = History(config.incidents.history_seconds)
    return Coroner(
        Sources(
            opened(KernelLog),
            opened(OomKills),
            oomd_signals() if systemd else None,
            journal_entries() if systemd else None,
        ),
        history,
        Sampler(proc, history, SlowReader()),
        Incidents(directory, keep=config.incidents.keep, group=group_id(READERS)),
        record,
        proc.boot_id(),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        remembered=remembered,
    )


def oomd_signals() -> "OomdSignals":
    from oomwatchd.systemd.bus import OomdSignals  # 0.2 MiB, for machines with systemd alone

    return OomdSignals()


def journal_entries() -> "JournalEntries":
    from oomwatchd.systemd.entries import JournalEntries

    return JournalEntries()


def opened(source: Callable[[], T]) -> T | None:
    """None, where it is not to be had, which `probe` has told."""
    try:
        return source()
    except OSError:
        return None


def group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def reporting(listen: Address | None, socket: Path | None) -> Reporter:
    """Raises OSError, if it cannot listen; a dry run beside a daemon goes without metrics."""
    try:
        return Reporter(listen, socket, stale_seconds=STALE_SECONDS)
    except OSError as error:
        if socket is not None:
            raise
        log.warning("no metrics in this dry run: %s", error.strerror)
        return Reporter(None, None, stale_seconds=STALE_SECONDS)


def opened_ledger(path: Path, boot_id: str, *, dry_run: bool) -> Ledger:
    ledger = Ledger(path, boot_id, read_only=dry_run)
    try:
        ledger.load()
    except LedgerError as error:
        log.error("%s: cannot be understood (%s); what it remembered is lost", path, error)
    except PermissionError:
        if not dry_run:
            raise
        log.warning("%s: may not be read; values of another daemon are taken for original", path)
    return ledger


def greet(path: Path, loaded: Loaded, address: Address | None, features: Mapping[str, str]) -> None:
    """Say what is in force and what is missing: one line for each."""
    where = f"metrics on {address.host} port {address.port}" if address else "no metrics"
    log.info(
        "oomwatchd %s, Python %s: %d rules from %s, a look every %g s, %s",
        __version__, sys.version.split()[0], len(loaded.config.rules), path,
        loaded.config.interval_seconds, where,
    )  # fmt: skip
    for name, missing in features.items():
        if missing:
            log.warning("%s: not available (%s)", name, missing)
