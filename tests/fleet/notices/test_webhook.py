"""A webhook that is dead, slow, wrong and well again, over real sockets."""

from __future__ import annotations

import datetime as dt
import logging
import socket
import ssl
from pathlib import Path

import pytest

from broker.messages import Notice
from fleet.notices.told import MOST_UNSENT
from fleet.notices.webhook import DROPPED, Post, Webhook, WebhookError
from identity.certificates import issue, new_authority, new_key
from tests.fleet.conftest import Until
from tests.fleet.notices.conftest import Hook

RETRY_S = (0.02, 0.1)
NOTICE = Notice(1.5, "disk", "it is nearly full", device="pi-1")


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def post_to(port: int, timeout_s: float = 10.0) -> Post:
    return Post(f"http://127.0.0.1:{port}/hooks/SECRET?token=SECRET", timeout_s)


def say(text: str) -> Notice:
    return Notice(1.0, "disk", text)


def test_a_notice_arrives_as_json(hook: Hook) -> None:
    Post(f"http://ann:p%40ss@127.0.0.1:{hook.port}/x")("home", NOTICE)
    assert hook.heard == [
        {"fleet": "home", "at": 1.5, "kind": "disk", "text": "it is nearly full", "job": "", "device": "pi-1"}
    ]
    assert hook.headers["Content-Type"] == "application/json"
    assert hook.headers["Authorization"] == "Basic YW5uOnBAc3M="


def test_one_that_is_dead_slow_and_broken_gets_everything_once_it_is_well(
    hook: Hook, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.answers = [500, 503, None, 429, 200]
    webhook = Webhook("home", post_to(hook.port, timeout_s=0.2), retry_s=RETRY_S)
    webhook.start()
    for n in range(3):
        webhook.post(say(f"{n}"))
    until(lambda: len(hook.heard) >= 3)
    assert hook.texts == ["0", "1", "2"]
    until(lambda: not webhook.unsent())
    webhook.stop()
    assert [record.levelname for record in caplog.records if "webhook" in record.msg].count("WARNING") == 1
    assert "SECRET" not in caplog.text


def test_a_dead_one_holds_nobody_up_and_what_it_missed_is_counted(
    hook: Hook, dead_port: int, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Webhook("home", post_to(dead_port), retry_s=RETRY_S)
    dead.start()
    for n in range(MOST_UNSENT + 7):
        dead.post(say(f"{n}"))
    until(lambda: "took nothing" in caplog.text)
    dead.stop()
    assert (len(dead.unsent()), dead.dropped) == (MOST_UNSENT, 7)
    well = Webhook("home", post_to(hook.port), dead.unsent(), dead.dropped, retry_s=RETRY_S)
    well.start()
    until(lambda: len(hook.heard) > MOST_UNSENT)
    well.stop()
    assert (hook.heard[0]["kind"], hook.texts[0]) == (DROPPED, "7 earlier notices could not be posted and are lost")
    assert hook.texts[1:] == [f"{n}" for n in range(7, MOST_UNSENT + 7)]
    assert well.dropped == 0
    assert "SECRET" not in caplog.text


def test_one_that_never_answers_does_not_keep_it_from_ending(hook: Hook) -> None:
    hook.answers = [None]
    webhook = Webhook("home", post_to(hook.port))
    webhook.start()
    webhook.post(say("it"))
    assert hook.silent.wait(20)
    webhook.stop()
    assert [notice.text for notice in webhook.unsent()] == ["it"]


def test_a_notice_that_will_never_be_taken_does_not_hold_the_others_up(hook: Hook, until: Until) -> None:
    hook.answers = [400, 200]
    webhook = Webhook("home", post_to(hook.port), [say("bad"), say("good")])
    webhook.start()
    until(lambda: bool(hook.heard))
    webhook.stop()
    assert hook.texts == ["good"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", ["file:///etc/passwd", "ftp://127.0.0.1/x", "same"])
def test_no_redirection_is_followed(hook: Hook, code: int, elsewhere: str) -> None:
    hook.answers = [code, 200]
    hook.location = f"http://127.0.0.1:{hook.port}/SECRET" if elsewhere == "same" else elsewhere
    with pytest.raises(WebhookError, match=f"^it answers {code}: give the address that it redirects to$"):
        post_to(hook.port)("home", NOTICE)
    assert not hook.heard


def test_a_server_whose_certificate_nobody_vouches_for_is_not_spoken_to(hook: Hook, tmp_path: Path) -> None:
    key, now = new_key(), dt.datetime.now(dt.UTC)
    made = issue(new_authority(key, "a", "home", 9, now), key, own := new_key(), "h", 9, now, server=["127.0.0.1"])
    (tmp_path / "server.pem").write_bytes(own + made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    hook.server.socket = context.wrap_socket(hook.server.socket, server_side=True)
    with pytest.raises(WebhookError, match=r"^its certificate is not believed: "):
        Post(f"https://127.0.0.1:{hook.port}/SECRET", timeout_s=5)("home", NOTICE)
    assert not hook.heard


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://host/x", "http://", "https:///x", "http://h:99999/"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        Post(address)


@pytest.mark.parametrize(
    "address", ["http://h\x01st/SECRET", "http://127.0.0.1/é/SECRET", "http://SECRET@h:1:2/", "http://h:SECRET/"]
)
def test_an_address_that_cannot_be_used_is_not_repeated(address: str) -> None:
    with pytest.raises((ValueError, WebhookError)) as raised:
        Post(address, timeout_s=5)("home", NOTICE)
    assert "SECRET" not in str(raised.value)
