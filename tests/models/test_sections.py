from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import sections
from models.codec import FLOAT32, INT8, CodecError, Coding, Terms, max_body_bytes
from models.job import JobSpec, ModelSpec
from models.nets.table import build
from models.sections import MARK, REGISTRY, SectionError, allowed, join, most_bytes, split

JOB = JobSpec("toy", ModelSpec(inputs=4, hidden=(16,), outputs=2))
SPEC = build(JOB.model).spec
ALL = dict.fromkeys(REGISTRY, 100)
GOLDEN = {
    "ffffffff 01 02 01 03000000 04 02000000 616263 7879": {"delta": b"abc", "statistics": b"xy"},
    "ffffffff 01 01 05 01000000 00": {"masked": b"\0"},
    "ffffffff 01 03 01 04000000 02 01000000 03 02000000 ffffffff 07 0809": {
        "delta": MARK, "control": b"\7", "buffers": b"\x08\x09"
    },
    "616263": {"delta": b"abc"},
    "ffffff": {"delta": b"\xff\xff\xff"},
}  # fmt: skip

contents = st.dictionaries(st.sampled_from(list(REGISTRY)), st.binary(min_size=1, max_size=100), min_size=1).filter(
    lambda some: some.keys() != {"delta"} or not some["delta"].startswith(MARK)
)


@pytest.mark.parametrize(("raw", "named"), GOLDEN.items())
def test_golden_bytes(raw: str, named: dict[str, bytes]) -> None:
    assert join(named).hex() == raw.replace(" ", "")
    assert join(dict(reversed(named.items()))) == join(named), "whoever was there first"
    assert split(bytes.fromhex(raw), ALL) == named


def test_the_names_and_numbers_are_those_of_the_page() -> None:
    assert {name: section.number for name, section in REGISTRY.items()} == {
        "delta": 1, "control": 2, "buffers": 3, "statistics": 4, "masked": 5, "evaluation": 6
    }  # fmt: skip


def test_a_job_wants_the_delta_and_its_limit_is_what_it_was() -> None:
    assert allowed(JOB, SPEC) == {"delta": max_body_bytes(SPEC)}
    assert most_bytes(allowed(JOB, SPEC)) == max_body_bytes(SPEC)


def test_a_delta_alone_is_the_very_bytes() -> None:
    body = bytes(range(256))
    assert join({"delta": body}) is body
    assert split(body, {"delta": 256})["delta"] is body


@pytest.mark.parametrize("terms", [FLOAT32, INT8, Terms(128, 1), Terms(128, 2), Terms(128, 3), Terms(128, 4)])
def test_no_delta_begins_as_several_sections_do(terms: Terms) -> None:
    coding = Coding(SPEC, terms, "5:0")
    rng = np.random.default_rng(5)
    for scale in (0.0, 1e-40, 1.0, 1e30):
        delta = {t.name: (scale * rng.standard_normal(t.shape)).astype(np.float32) for t in SPEC}
        honest = coding.encode(delta, rng)
        assert honest[:4] != MARK
        with pytest.raises(CodecError):
            coding.decode(MARK + honest[4:])


@given(contents)
def test_what_was_joined_is_split_again_and_is_as_long_as_it_may_be(named: dict[str, bytes]) -> None:
    limits = {name: len(content) for name, content in named.items()}
    body = join(named)
    assert split(body, limits) == named
    assert len(body) == most_bytes(limits)


@given(contents, st.data())
def test_a_section_that_is_not_wanted_or_too_long_is_named(named: dict[str, bytes], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(named)))
    with pytest.raises(SectionError, match=f'section "{name}" is not wanted by this job'):
        split(join(named), {other: 100 for other in named if other != name})
    short = data.draw(st.integers(1, 100))
    if len(named[name]) > short:
        with pytest.raises(SectionError, match=f'section "{name}" has {len(named[name])} bytes.*1 to {short}$'):
            split(join(named), {other: short if other == name else 100 for other in named})


def framed(*rows: tuple[int, int], rest: bytes = b"", number: int = 1, n: int | None = None) -> bytes:
    table = b"".join(sections._ROW.pack(*row) for row in rows)
    return MARK + bytes((number, len(rows) if n is None else n)) + table + rest


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", 'section "delta" has 0 bytes'),
        (bytes(101), 'section "delta" has 101 bytes'),
        (MARK, "ends after 4 bytes"),
        (MARK + b"\1", "ends after 5 bytes"),
        (framed(), "no other section than the delta"),
        (framed((1, 3), (4, 2), rest=b"abcxy", number=2), "of format 2, where this fedge reads 1"),
        (framed((1, 3), rest=b"abc", n=255), "the table of its 255 sections is cut off"),
        (framed((1, 3), rest=b"abc"), "no other section than the delta, which stands alone then"),
        (framed((1, 3), (9, 2), rest=b"abcxy"), "section 9 is none that this fedge knows"),
        (framed((1, 3), (0, 2), rest=b"abcxy"), "section 0 is none that this fedge knows"),
        (framed((4, 2), (1, 3), rest=b"xyabc"), 'section "delta" stands behind number 4'),
        (framed((4, 2), (4, 3), rest=b"xyabc"), 'section "statistics" stands behind number 4'),
        (framed((1, 3), (4, 0), rest=b"abc"), 'section "statistics" has 0 bytes'),
        (framed((1, 3), (4, 2**32 - 1), rest=b"abcxy"), 'section "statistics" has 4294967295 bytes'),
        (framed((1, 3), (4, 2), rest=b"abcx"), "its sections have 5 bytes, and it has 4 for them"),
        (framed((1, 3), (4, 2), rest=b"abcxyz"), "its sections have 5 bytes, and it has 6 for them"),
    ],
)
def test_a_hostile_body_is_refused_by_name(body: bytes, why: str) -> None:
    with pytest.raises(SectionError, match=why):
        split(body, ALL)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({}, "one section at least"),
        ({"delta": b""}, 'section "delta" is empty'),
        ({"delta": b"a", "buffers": b""}, 'section "buffers" is empty'),
        ({"delta": b"a", "gossip": b"b"}, 'there is no section "gossip"'),
        ({"delta": MARK + b"a"}, "no codec writes that"),
    ],
)
def test_what_cannot_be_joined_is_named(named: dict[str, bytes], why: str) -> None:
    with pytest.raises(SectionError, match=why):
        join(named)


def fuzzed(reader: Callable[..., Any], n: int = 20_000) -> int:
    """Split bodies that are nearly right; return how many came through."""
    rng = random.Random(12)  # noqa: S311 -- no secret
    whole = [bytes.fromhex(raw) for raw in GOLDEN]
    n_read = 0
    for _ in range(n):
        body = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(body) + 1)
            match rng.randrange(4):
                case 0:
                    body[at : at + 1] = rng.randbytes(1)
                case 1:
                    del body[at:]
                case 2:
                    body[at:at] = rng.randbytes(rng.randrange(9))
                case _:
                    body[at : at + 4] = rng.choice([0, 1, 2, 5, 100, 2**31, 2**32 - 1]).to_bytes(4, "little")
        limits = {name: rng.choice([0, 1, 3, 100]) for name in REGISTRY if rng.random() < 0.9}
        try:
            found = reader(bytes(body), limits)
        except SectionError:
            continue
        n_read += 1
        assert all(0 < len(content) <= limits[name] for name, content in found.items())
        if found.keys() != {"delta"} or not found["delta"].startswith(MARK):
            assert join(found) == bytes(body), "one content has one body"
    return n_read


def test_whatever_the_bytes_are_only_the_one_error_comes_out() -> None:
    assert 1000 < fuzzed(split) < 15_000


def test_the_fuzzer_finds_a_reader_that_believes_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_check", lambda *_: None)
    with pytest.raises((AssertionError, KeyError)):
        fuzzed(split)


def test_the_fuzzer_finds_a_reader_that_lets_another_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_NAMES", {1: "delta"} | dict.fromkeys(range(2, 256), "control"))
    with pytest.raises(AssertionError):
        fuzzed(split)


def test_a_table_is_read_before_anything_is_taken_out() -> None:
    """Nothing is copied of a body that is refused: its sections are slices of it, taken when all of it holds."""

    class Watched(bytes):
        taken = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            if isinstance(found, bytes):
                Watched.taken = max(Watched.taken, len(found))
            return found

    body = Watched(framed((1, 90), (4, 99), rest=bytes(188)))
    with pytest.raises(SectionError, match="its sections have 189 bytes"):
        split(body, ALL)
    assert Watched.taken == 10
