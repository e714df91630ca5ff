"""A reload: the configuration read afresh beside the loop, and where the metrics are then."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from oomwatchd.beside import Beside
from oomwatchd.config import ConfigError, Loaded
from oomwatchd.host import Wake
from oomwatchd.journal import log
from oomwatchd.model import Address
from oomwatchd.text import printable

Load = Callable[[], Loaded]
Rebind = Callable[[Address | None], None]  # serve the metrics elsewhere; raises OSError
LOAD_SECONDS: Final = 30.0  # systemd waits for 90


class Ended(NamedTuple):
    loaded: Loaded | None  # None: it has failed, so all stays as it is


class Reload:
    def __init__(self, load: Load, rebind: Rebind) -> None:
        self.successful = True
        self.success_unix_seconds = time.time()
        self._loading = Beside(load, LOAD_SECONDS)
        self._rebind = rebind

    def fileno(self) -> int:
        """Readable when `tend` is to be called."""
        return self._loading.fileno()

    def tend(self, wake: Wake) -> Ended | None:
        """Begin if told to; how it has ended, once it has."""
        if wake.reload:
            self._loading.ask(wake.now.seconds)
        try:
            loaded = self._loading.take(wake.now.seconds)
            if loaded is None:
                return None
            self._rebind(loaded.config.metrics_listen)
        except ConfigError as error:
            for fault in error.faults:
                log.error("%s", printable(str(fault)))
            log.error("reload failed, the rules in force stay in force")
        except OSError as error:
            log.error("reload failed, the rules in force stay in force: %s", error)
        else:
            self.successful, self.success_unix_seconds = True, time.time()
            log.info("reloaded: %d rules", len(loaded.config.rules))
            return Ended(loaded)
        self.successful = False
        return Ended(None)

    def close(self) -> None:
        self._loading.close()
