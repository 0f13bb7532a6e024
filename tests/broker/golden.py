"""Messages and the very bytes that carry them: what fedge of this wire version sends, and what it reads beside."""

from __future__ import annotations

from hashlib import sha256

from broker.messages import (
    BaseAt,
    Beacon,
    Body,
    Candidate,
    Chunk,
    Curve,
    Delete,
    DeltaAt,
    Devices,
    Events,
    Explain,
    Export,
    Failure,
    Head,
    History,
    Job,
    Jobs,
    Message,
    Notice,
    Offer,
    Pause,
    Presence,
    Quarantine,
    Release,
    Reply,
    Resume,
    RollBack,
    Round,
    Show,
    Status,
    Stop,
    Submit,
    Upload,
    Verdict,
    Version,
    Vitals,
    Want,
    along,
    body_name,
)
from broker.transport import Packet

V = Version(1, 3)
D = "00112233445566778899aabbccddeeff"
BODY = b"\x00\n\xff"
BODY_DIGEST = sha256(BODY).hexdigest()[:16]

ROUND_TOPIC, OFFER_TOPIC = "fedge/1/f/round/digits-1f", "fedge/1/f/offer/digits-1f/d1/120"

GOLDEN: list[tuple[Message, Packet]] = [
    (
        Beacon(7, "n0", online=True),
        Packet("fedge/1/f/aggregator", b'{"term":7,"nonce":"n0","online":true}', retain=True),
    ),
    (
        Beacon(7, "n0", online=False, spread_s=0.5),
        Packet("fedge/1/f/aggregator", b'{"term":7,"nonce":"n0","online":false,"spread_s":0.5}', retain=True),
    ),
    (
        Beacon(7, "n0", online=True, roll=3, store="00ff", since=5, claim=1, empty=True),
        Packet(
            "fedge/1/f/aggregator",
            b'{"term":7,"nonce":"n0","online":true,"roll":3,"store":"00ff","since":5,"claim":1,"empty":true}',
            retain=True,
        ),
    ),
    (Candidate("n1", 4), Packet("fedge/1/f/candidate", b'{"nonce":"n1","term":4}')),
    (
        Candidate("n1", 0, claim=2, empty=True),
        Packet("fedge/1/f/candidate", b'{"nonce":"n1","term":0,"claim":2,"empty":true}'),
    ),
    (
        Job("digits-1f", 7, {"name": "digits"}),
        Packet("fedge/1/f/job/digits-1f", b'{"term":7,"spec":{"name":"digits"}}', retain=True),
    ),
    (Job("digits-1f", 7), Packet("fedge/1/f/job/digits-1f", b'{"term":7}', retain=True)),
    (
        Job("digits-1f", 7, {"name": "digits"}, base=BaseAt("0123456789abcdef" * 4, 81_455_592, 100_000)),
        Packet(
            "fedge/1/f/job/digits-1f",
            b'{"term":7,"spec":{"name":"digits"},"base":["' + b"0123456789abcdef" * 4 + b'",81455592,100000]}',
            retain=True,
        ),
    ),
    (
        Head("digits-1f", 7, V, D),
        Packet("fedge/1/f/head/digits-1f", b'{"term":7,"version":[1,3],"sha256":"%s"}' % D.encode(), retain=True),
    ),
    (
        Head(
            "digits-1f",
            7,
            V,
            D,
            state="finished",
            ways=(DeltaAt(2, 3, 3100), DeltaAt(0, 2, 250_000)),
            chunk_bytes=65_536,
        ),
        Packet(
            "fedge/1/f/head/digits-1f",
            b'{"term":7,"version":[1,3],"sha256":"%s","state":"finished","ways":[[2,3,3100],[0,2,250000]],'
            b'"chunk_bytes":65536}' % D.encode(),
            retain=True,
        ),
    ),
    (
        Status("digits-1f", V, "finished", "done", {"loss": 0.5}),
        Packet(
            "fedge/1/f/status/digits-1f",
            b'{"version":[1,3],"state":"finished","reason":"done","metrics":{"loss":0.5}}',
            retain=True,
        ),
    ),
    (
        Job("digits-1f", 7, {"name": "digits"}, V),
        Packet("fedge/1/f/job/digits-1f", b'{"term":7,"spec":{"name":"digits"},"last":[1,3]}', retain=True),
    ),
    (
        Round("digits-1f", 7, V, 59.2),
        Packet(ROUND_TOPIC, b"\x09\x93\x07\x92\x01\x03\xd5\x01\x4a\x17", retain=True, expiry_s=61),
    ),
    (
        Round("digits-1f", 7, V, 59, terms=(6144, 1, -12)),
        Packet(ROUND_TOPIC, b"\x0c\x94\x07\x92\x01\x03\x3b\x93\xcd\x18\x00\x01\xf4", retain=True, expiry_s=60),
    ),
    (
        Round("digits-1f", 7, V, 59.237, terms=(6144, 1, -12), attempt=2, threshold=1234),
        Packet(
            ROUND_TOPIC,
            b"\x18\x96\x07\x92\x01\x03\xcb\x40\x4d\x9e\x56\x04\x18\x93\x75\x93\xcd\x18\x00\x01\xf4\x02\xcd\x04\xd2",
            retain=True,
            expiry_s=61,
        ),
    ),
    (
        Round("digits-1f", 7, V, 59, aliases=(Version(0, 3),)),
        Packet(
            ROUND_TOPIC,
            b"\x18\x97\x07\x92\x01\x03\x3b\x93\x00\x20\x00\x01\xcf\x00\x00\xff\xff\xff\xff\xff\xff\x91\x92\x00\x03",
            retain=True,
            expiry_s=60,
        ),
    ),
    (
        Round("digits-1f", 7, V, 59, settled=("d" * 80, "e" * 80)),
        Packet(
            ROUND_TOPIC,
            b'{"term":7,"base":[1,3],"left_s":59,"settled":["%s","%s"]}' % (b"d" * 80, b"e" * 80),
            retain=True,
            expiry_s=60,
        ),
    ),
    (
        Round("digits-1f", 7, V, 59, along=along(D, BODY)),
        Packet(
            ROUND_TOPIC,
            b"\x06\x93\x07\x92\x01\x03\x3b\x00\x11\x22\x33\x44\x55\x66\x77\x00\n\xff",
            retain=True,
            expiry_s=60,
        ),
    ),
    (
        Body("digits-1f", body_name(V, 0), 2, BODY),
        Packet("fedge/1/f/body/digits-1f/1-3-0/2", BODY, retain=True),
    ),
    (
        Want("d1", "digits-1f", D, "05"),
        Packet("fedge/1/f/want/digits-1f/d1", b'{"digest":"%s","missing":"05"}' % D.encode()),
    ),
    (
        Verdict("d1", "digits-1f", V, D[:8]),
        Packet("fedge/1/f/verdict/digits-1f/d1", b'{"base":[1,3],"digest":"00112233"}'),
    ),
    (
        Verdict("d1", "digits-1f", V, D[:8], refused="stale"),
        Packet("fedge/1/f/verdict/digits-1f/d1", b'{"base":[1,3],"digest":"00112233","refused":"stale"}'),
    ),
    (
        Reply("cli", "r1", ok=True, text="started", data={"x": 1}),
        Packet("fedge/1/f/reply/cli", b'{"request":"r1","ok":true,"text":"started","data":{"x":1}}'),
    ),
    (
        Presence("d1", 4, True, {"site": "north"}, {"digits-1f": 120}, {"x-1": "no data"}, "0.1"),
        Packet(
            "fedge/1/f/device/d1",
            b'{"boot":4,"online":true,"labels":{"site":"north"},"ready":{"digits-1f":120},'
            b'"unready":{"x-1":"no data"},"software":"0.1"}',
            retain=True,
        ),
    ),
    (
        Presence(
            "d1",
            4,
            online=True,
            ready={"digits-1f": 120},
            incarnation="0a0b0c0d",
            nonce="11223344",
            failed={"digits-1f": Failure(V, "it diverged")},
            done={"digits-1f": V},
            trouble={"digits-1f": "no model"},
            term=9,
        ),
        Packet(
            "fedge/1/f/device/d1",
            b'{"boot":4,"online":true,"ready":{"digits-1f":120},"incarnation":"0a0b0c0d","nonce":"11223344",'
            b'"failed":{"digits-1f":[[1,3],"it diverged"]},"done":{"digits-1f":[1,3]},'
            b'"trouble":{"digits-1f":"no model"},"term":9}',
            retain=True,
        ),
    ),
    (
        Presence("d1", 4, online=False),
        Packet("fedge/1/f/device/d1", b'{"boot":4,"online":false}', retain=True),
    ),
    (
        Offer("digits-1f", "d1", V, 120, D[:16], 250_000, loss=0.25),
        Packet(
            OFFER_TOPIC,
            b"\x23\x95\x92\x01\x03\xb0%s\xce\x00\x03\xd0\x90\xce\x00\x01\x86\xa0\xd5\x01\x1f\x55" % D[:16].encode(),
        ),
    ),
    (
        Offer("digits-1f", "d1", V, 120, BODY_DIGEST, 3, loss=0.25, body=BODY),
        Packet(OFFER_TOPIC, b"\x08\x92\x92\x01\x03\xd5\x01\x1f\x55\x00\n\xff"),
    ),
    (
        Offer("digits-1f", "d1", V, 120, BODY_DIGEST, 3, report=(0.5,), body=BODY),
        Packet(OFFER_TOPIC, b"\x0a\x93\x92\x01\x03\xc0\x91\xd5\x01\x3e\x95\x00\n\xff"),
    ),
    (
        Offer("digits-1f", "d1", V, 120, BODY_DIGEST, 3, loss=0.25, report=(0.5, -0.125), body=BODY),
        Packet(OFFER_TOPIC, b"\x11\x93\x92\x01\x03\xd5\x01\x1f\x55\x92\xd5\x01\x3e\x95\xd5\x01\xf0\x75\x00\n\xff"),
    ),
    (Chunk("digits-1f", "d1", D, 1, BODY), Packet(f"fedge/1/f/chunk/digits-1f/d1/{D}/1", BODY)),
    (
        Submit("cli", "r1", {"name": "x"}),
        Packet("fedge/1/f/command/cli", b'{"command":"submit","request":"r1","spec":{"name":"x"}}'),
    ),
    (
        Stop("cli", "r1", "digits"),
        Packet("fedge/1/f/command/cli", b'{"command":"stop","request":"r1","name":"digits"}'),
    ),
    (
        Explain("cli", "r1", "digits", 3),
        Packet("fedge/1/f/command/cli", b'{"command":"explain","request":"r1","name":"digits","number":3}'),
    ),
    (
        Explain("cli", "r1", "digits", 3, "d1", "2:d0"),
        Packet(
            "fedge/1/f/command/cli",
            b'{"command":"explain","request":"r1","name":"digits","number":3,"device":"d1","after":"2:d0"}',
        ),
    ),
    (
        Resume("cli", "r1", "digits"),
        Packet("fedge/1/f/command/cli", b'{"command":"resume","request":"r1","name":"digits"}'),
    ),
    (
        Submit("cli", "r1", {"name": "x"}, start="digits@best"),
        Packet(
            "fedge/1/f/command/cli", b'{"command":"submit","request":"r1","spec":{"name":"x"},"start":"digits@best"}'
        ),
    ),
    (
        Pause("cli", "r1", "digits"),
        Packet("fedge/1/f/command/cli", b'{"command":"pause","request":"r1","name":"digits"}'),
    ),
    (
        RollBack("cli", "r1", "digits", "best"),
        Packet("fedge/1/f/command/cli", b'{"command":"rollback","request":"r1","name":"digits","version":"best"}'),
    ),
    (
        Delete("cli", "r1", "digits-1f"),
        Packet("fedge/1/f/command/cli", b'{"command":"delete","request":"r1","name":"digits-1f"}'),
    ),
    (
        Upload("cli", "r1", D[:16], 3, 0, "AAr/"),
        Packet(
            "fedge/1/f/command/cli",
            b'{"command":"upload","request":"r1","digest":"%s","n_bytes":3,"at":0,"data":"AAr/"}' % D[:16].encode(),
        ),
    ),
    (
        Export("cli", "r1", "digits", "7", "24576:ab"),
        Packet(
            "fedge/1/f/command/cli",
            b'{"command":"export","request":"r1","name":"digits","version":"7","after":"24576:ab"}',
        ),
    ),
    (Jobs("cli", "r1"), Packet("fedge/1/f/command/cli", b'{"command":"jobs","request":"r1"}')),
    (Jobs("cli", "r1", past=True), Packet("fedge/1/f/command/cli", b'{"command":"jobs","request":"r1","past":true}')),
    (
        Show("cli", "r1", "digits", "d7"),
        Packet("fedge/1/f/command/cli", b'{"command":"show","request":"r1","name":"digits","after":"d7"}'),
    ),
    (
        Curve("cli", "r1", "digits"),
        Packet("fedge/1/f/command/cli", b'{"command":"metrics","request":"r1","name":"digits"}'),
    ),
    (
        Curve("cli", "r1", "digits", devices=True, after="3:d7"),
        Packet(
            "fedge/1/f/command/cli",
            b'{"command":"metrics","request":"r1","name":"digits","devices":true,"after":"3:d7"}',
        ),
    ),
    (
        Devices("cli", "r1", after="d7"),
        Packet("fedge/1/f/command/cli", b'{"command":"devices","request":"r1","after":"d7"}'),
    ),
    (
        History("cli", "r1", "d1"),
        Packet("fedge/1/f/command/cli", b'{"command":"history","request":"r1","device":"d1"}'),
    ),
    (
        Events("cli", "r1", since=17, kind="device", job="digits", device="d1"),
        Packet(
            "fedge/1/f/command/cli",
            b'{"command":"events","request":"r1","since":17,"kind":"device","job":"digits","device":"d1"}',
        ),
    ),
    (
        Quarantine("cli", "r1", "d1", "its clock"),
        Packet("fedge/1/f/command/cli", b'{"command":"quarantine","request":"r1","device":"d1","why":"its clock"}'),
    ),
    (
        Release("cli", "r1", "d1"),
        Packet("fedge/1/f/command/cli", b'{"command":"release","request":"r1","device":"d1"}'),
    ),
    (
        Vitals("d1", 4),
        Packet("fedge/1/f/vitals/d1", b'{"boot":4}', retain=True, expiry_s=3 * 86_400),
    ),
    (
        Vitals(
            *("d1", 4, "training", "digits-1f", 0.5, "its data"),
            disk_free=1_000_000,
            heat=51.5,
            load=0.25,
            bytes_today=4096,
            clock=1_700_000_000.0,
            uptime_s=60.0,
            serves={"digits-1f": V},
        ),
        Packet(
            "fedge/1/f/vitals/d1",
            b'{"boot":4,"doing":"training","job":"digits-1f","progress":0.5,"why":"its data","disk_free":1000000,'
            b'"heat":51.5,"load":0.25,"bytes_today":4096,"clock":1700000000.0,"uptime_s":60.0,'
            b'"serves":{"digits-1f":[1,3]}}',
            retain=True,
            expiry_s=3 * 86_400,
        ),
    ),
    (
        Notice(1_700_000_000.0, "device.lost", "pi-1 has been away for an hour", device="pi-1"),
        Packet(
            "fedge/1/f/notice",
            b'{"at":1700000000.0,"kind":"device.lost","text":"pi-1 has been away for an hour","device":"pi-1"}',
        ),
    ),
]

SPELT: list[tuple[Message, Packet]] = [
    (
        Round("digits-1f", 7, V, 59.2, terms=(6144, 1, -12), attempt=2, threshold=1234),
        Packet(ROUND_TOPIC, b'{"term":7,"base":[1,3],"left_s":59.2,"terms":[6144,1,-12],"attempt":2,"threshold":1234}'),
    ),
    (
        Round("digits-1f", 7, V, 59, along=along(D, BODY)),
        Packet(ROUND_TOPIC, b'{"term":7,"base":[1,3],"left_s":59}\n\x00\x11\x22\x33\x44\x55\x66\x77\x00\n\xff'),
    ),
    (
        Offer("digits-1f", "d1", V, 120, D, 250_000, loss=0.25, report=(0.5, -0.125)),
        Packet(
            OFFER_TOPIC,
            b'{"base":[1,3],"digest":"%s","n_bytes":250000,"loss":0.25,"report":[0.5,-0.125]}' % D.encode(),
        ),
    ),
    (
        Offer("digits-1f", "d1", V, 120, BODY_DIGEST, 3, loss=0.25, body=BODY),
        Packet(OFFER_TOPIC, b'{"base":[1,3],"loss":0.25}\n\x00\n\xff'),
    ),
    (Jobs("cli", "r1"), Packet("fedge/1/f/query/cli", b'{"command":"jobs","request":"r1"}')),
    (
        Explain("cli", "r1", "digits", 3, "d1", "2:d0"),
        Packet(
            "fedge/1/f/query/cli",
            b'{"command":"explain","request":"r1","name":"digits","number":3,"device":"d1","after":"2:d0"}',
        ),
    ),
]
