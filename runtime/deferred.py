"""Modules that a library imports for what we hardly ever ask of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def deferred(name: str) -> Iterator[None]:
    """Put off importing the module of this name, for what is imported inside, until it is first asked for something.

    name: dotted, of a module in a package ("urllib.request"), which is asked by way of that, as `import urllib.request`
    has it. Everybody else imports as ever, before and after. Where the module is there already nothing happens. Not for
    several threads at once; that the module is asked for may come from any.
    """
    if name in sys.modules:
        yield
        return
    package, _, last = name.rpartition(".")
    stand_in = _StandIn(name)
    parent = importlib.import_module(package)
    sys.modules[name] = stand_in
    setattr(parent, last, stand_in)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


class _StandIn(ModuleType):
    """In the place of a module, until that is imported: which puts it into its package."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what Python itself wants to know of a module that is imported
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
