"""Notices of a real store to a real webhook and a real broker, over starts of who tells them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator.looking_on import NotifySettings
from aggregator.store import Store
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker, start_broker
from broker.messages import Notice
from broker.wire import Wire
from fleet.console.observer import Observer, Said, over_mqtt
from fleet.notices.notifier import Notifier
from fleet.notices.told import FILE, read
from fleet.sight.lookout import lookout_on
from fleet.sight.process import Looking, things_on
from fleet.sight.store_readings import StoreSource
from runtime.formats import stamped
from runtime.settings import SettingsError
from tests.fleet.conftest import Until
from tests.fleet.notices.conftest import Hook


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with_events = Store(tmp_path / "state", synced=False)
    yield with_events
    with_events.close()


def happen(store: Store, kind: str, text: str, job: str) -> None:
    store.events.note(kind, text, job=job)  # type: ignore[arg-type]
    store.set_note("last", text)


def where(broker: EmbeddedBroker) -> BrokerSettings:
    return BrokerSettings(port=broker.port, protocol=broker.protocol)


@contextmanager
def telling(broker: EmbeddedBroker, store: Store, hook: Hook) -> Iterator[Notifier]:
    settings = NotifySettings(f"http://127.0.0.1:{hook.port}/", topic=True, disk_free_bytes=0)
    looking = Looking("f", str(store.folder), where(broker), notify=settings)
    with lookout_on(where(broker), Wire("f"), StoreSource(store.folder)) as lookout:
        (notifier,) = things_on(lookout, looking, store.folder, lambda: None)
        assert isinstance(notifier, Notifier)
        notifier.start()
        yield notifier
        notifier.stop()


def heard(observer: Observer) -> str:
    """Return the text of the next notice under the topic."""
    while True:
        match observer.take(20.0):
            case Said(Notice() as notice):
                return notice.text
            case None:
                return ""


def test_what_happens_is_told_once_also_over_a_start_and_nothing_of_before(
    store: Store, mosquitto: EmbeddedBroker, hook: Hook, until: Until
) -> None:
    happen(store, "job.finished", "before", "old-1")
    with over_mqtt("listener", where(mosquitto), Wire("f")) as observer:
        observer.listen("notice")
        assert observer.connect(20) == ""
        with telling(mosquitto, store, hook):
            until(lambda: (store.folder / FILE).exists() and read(store.folder).last is not None)
            happen(store, "job.finished", "now", "new-2")
            until(lambda: bool(hook.heard))
            assert heard(observer) == "now"
            until(lambda: not read(store.folder).unsent)
        happen(store, "job.stopped", "meanwhile", "third-3")
        with telling(mosquitto, store, hook):
            until(lambda: len(hook.heard) > 1)
            assert heard(observer) == "meanwhile"
            happen(store, "job.stopped", "last", "fourth-4")
            until(lambda: len(hook.heard) > 2)
            assert heard(observer) == "last"
    assert hook.texts == ["now", "meanwhile", "last"]
    assert (hook.heard[0]["fleet"], hook.heard[0]["kind"], hook.heard[0]["job"]) == ("f", "job.ended", "new-2")


def test_what_a_dead_webhook_missed_is_told_after_a_start_and_who_may_not_speak_is_named_once(
    store: Store, tmp_path: Path, hook: Hook, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "acl").write_text("topic read #\n", encoding="utf-8")
    rules = [f"acl_file {tmp_path / 'acl'}"]
    hook.answers = [500]
    with start_broker(tmp_path / "broker", prefer="mosquitto", config_lines=rules) as broker:
        with telling(broker, store, hook):
            until(lambda: (store.folder / FILE).exists())
            for n in range(2):
                happen(store, "job.finished", f"{n}", f"job-{n}")
                until(lambda n=n: len(read(store.folder).unsent) == n + 1)  # type: ignore[misc]
            until(lambda: "notices cannot be said under fedge/1/f/notice" in caplog.text)
        assert not hook.heard
        hook.answers = [200]
        with telling(broker, store, hook):
            until(lambda: len(hook.heard) == 2)
    assert hook.texts == ["0", "1"]
    assert caplog.text.count("notices cannot be said") == 1


def test_a_damaged_file_is_begun_anew_and_a_newer_one_is_left_alone(
    store: Store, mosquitto: EmbeddedBroker, caplog: pytest.LogCaptureFixture
) -> None:
    lookout = lookout_on(where(mosquitto), Wire("f"))
    path, settings = store.folder / FILE, NotifySettings(topic=True)
    path.write_bytes(b"{")
    Notifier(lookout, settings, store.folder)
    assert "notices.json: is damaged" in caplog.text
    path.write_bytes(stamped(b'{"told":{},"format":2,"checksum":"00000000"}'))
    with pytest.raises(SettingsError, match="format 2"):
        Notifier(lookout, settings, store.folder)
    path.unlink()
    with pytest.raises(SettingsError, match=r"^\[notify\] webhook: it is no address"):
        Notifier(lookout, NotifySettings("http://h:SECRET/"), store.folder)
