from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from fleet.world.patches import patching, silence


def test_everything_is_put_back_the_last_change_first() -> None:
    thing = SimpleNamespace(a=1, b=2)
    with patching() as patches:
        patches.set(thing, "a", 10)
        patches.set(thing, "a", 20)
        patches.set(thing, "b", 30)
        assert (thing.a, thing.b) == (20, 30)
    assert (thing.a, thing.b) == (1, 2)


def test_a_patch_of_what_is_not_there_is_a_mistake() -> None:
    with pytest.raises(AttributeError), patching() as patches:
        patches.set(SimpleNamespace(), "missing", 1)


def test_loggers_are_silent_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("one.of.a.test")
    with silence("one.of.a.test"):
        logger.critical("not heard")
    logger.critical("heard")
    assert [record.message for record in caplog.records] == ["heard"]
