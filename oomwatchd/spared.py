"""Imports that do without a module which they would have loaded for what we never ask of them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def spared(name: str) -> Iterator[None]:
    """Within, *name* cannot be imported, unless it has been before; for who can do without it.

    Source:  the language's reference, "The module cache": None stands for one that is not there.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(ModuleType, None)
    try:
        yield
    finally:
        del sys.modules[name]
