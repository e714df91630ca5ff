"""What nobody asks for here is not loaded, and what others have loaded stays."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def printed(code: str) -> list[str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    return done.stdout.split()


def test_a_spared_module_cannot_be_imported_within_and_can_after() -> None:
    code = (
        "import sys\n"
        "from oomwatchd.spared import spared\n"
        "with spared('sched'):\n"
        "    try:\n"
        "        import sched\n"
        "    except ImportError:\n"
        "        print('spared')\n"
        "print('sched' in sys.modules)\n"
        "import sched\n"
        "print(callable(sched.scheduler))\n"
    )

    assert printed(code) == ["spared", "False", "True"]


def test_what_was_loaded_before_stays() -> None:
    code = (
        "import sys, sched\n"
        "from oomwatchd.spared import spared\n"
        "with spared('sched'):\n"
        "    print(sys.modules['sched'] is sched)\n"
        "print(sys.modules['sched'] is sched)\n"
    )

    assert printed(code) == ["True", "True"]


def test_the_daemon_loads_neither_openssl_nor_a_client_for_http() -> None:
    code = (
        "import sys\n"
        "import oomwatchd.cli.run, oomwatchd.coroner, oomwatchd.shield\n"
        "print(*{'_ssl', '_hashlib', 'urllib.request', 'decimal', 'tempfile'} & sys.modules.keys())"
    )

    assert printed(code) == []
