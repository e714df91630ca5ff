"""``python -m oomwatchd`` is the same as the command ``oomwatchd``."""

import sys

from oomwatchd.cli.main import main

sys.exit(main())
