"""The door: who is answered, under which name, and how much may be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fleet.web import guard
from fleet.web.guard import Guard
from tests.fleet.web.made import Asking


async def inside(scope: Scope, receive: Receive, send: Send) -> None:
    """Say how long the body was."""
    n_bytes, more = 0, True
    while more:
        message = await receive()
        n_bytes += len(message.get("body", b""))
        more = message.get("more_body", False)
    await PlainTextResponse(f"in {n_bytes}")(scope, receive, send)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            ("localhost:8080", 200),
            ("127.0.0.1", 200),
            ("[::1]:8080", 200),
            ("10.1.2.3:80", 200),
            ("Fleet.example", 200),
        ),
        *(("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example:8080", 421)),
        *(("127.0.0.1:@evil.example", 421), ("localhost:/evil", 421), ("[::1", 421), ("[::1]]evil", 421)),
        *(("[::1].evil.example", 421), ("evil.example@localhost", 421), ("localhost:80:80", 421), ("", 421)),
    ],
)
def test_a_name_of_a_stranger_leads_nowhere(host: str, status: int) -> None:
    asking = Asking(Guard(inside, hosts=["fleet.example"]))
    assert asking.get("/", host=host).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_a_page_is_only_read(method: str) -> None:
    asking = Asking(Guard(inside))
    assert asking.ask(method, "/").status_code == 405
    assert asking.ask("HEAD", "/").status_code == 200


def test_forms_are_taken_where_there_are_some_and_are_short() -> None:
    asking = Asking(Guard(inside))
    assert asking.ask("POST", "/actions/pause", body=b"x" * 100).text == "in 100"
    assert asking.ask("POST", "/login", body=b"x" * (guard.MOST_BODY + 1)).status_code == 413
    assert asking.ask("POST", "/actionsx").status_code == 405


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        *(("cross-site", "no-cors", 403), ("same-site", "cors", 403), ("cross-site", "websocket", 403)),
        *(("cross-site", "navigate", 200), ("same-origin", "cors", 200), ("none", "navigate", 200)),
    ],
)
def test_another_sites_page_links_here_and_takes_nothing_from_here(site: str, mode: str, status: int) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode}
    assert Asking(Guard(inside)).get("/jobs/j/model.onnx", **headers).status_code == status


def test_a_long_question_is_refused() -> None:
    asking = Asking(Guard(inside))
    assert asking.get("/?" + "q" * 2001).status_code == 414
    assert asking.get("/" + "q" * 1001).status_code == 414
    assert asking.get("/", cookie="c" * 16_384).status_code == 431


@pytest.mark.parametrize(
    ("client", "status"), [("172.18.0.1", 200), ("127.0.0.1", 200), ("172.18.0.3", 403), ("", 403)]
)
def test_in_a_container_nobody_is_answered_but_its_host_and_itself(client: str, status: int) -> None:
    assert Asking(Guard(inside, gateway="172.18.0.1"), client=client).get("/").status_code == status


def test_the_gateway_is_read_from_the_table_of_routes(tmp_path: Path) -> None:
    table = tmp_path / "route"
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    near = "eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    table.write_text(f"{head}{near}eth0\t00000000\t010012AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", encoding="ascii")
    assert guard.gateway(table) == "172.18.0.1"
    table.write_text(head + near, encoding="ascii")
    assert guard.gateway(table) is None
    assert guard.gateway(tmp_path / "none") is None
