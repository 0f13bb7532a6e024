from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.formats import MOST, ZEROS, FormatError, NewerFormatError, check, is_stamped, is_whole, stamped


def test_what_is_read_passes() -> None:
    check("it", 2, 3)
    check("it", 3, 3, oldest=3)


@pytest.mark.parametrize(
    ("found", "oldest", "kind", "why"),
    [
        (4, 1, NewerFormatError, "^it has format 4, of a newer fedge, where this one reads 1 to 3: upgrade this one$"),
        (4, 3, NewerFormatError, "^it has format 4, of a newer fedge, where this one reads 3: upgrade this one$"),
        (2, 3, FormatError, "^it has format 2, of an older fedge, where this one reads 3: use that one again$"),
        (-1, 1, FormatError, "^it has format -1, of an older fedge"),
        (MOST + 1, 1, FormatError, "which no fedge will ever write$"),
    ],
)
def test_what_is_not_read_is_named(found: int, oldest: int, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why) as raised:
        check("it", found, 3, oldest=oldest)
    assert type(raised.value) is kind


@given(st.dictionaries(st.text(), st.text() | st.just(ZEROS)), st.booleans(), st.data())
def test_a_stamp_holds_for_every_byte_of_a_text(tree: dict[str, str], indented: bool, data: st.DataObject) -> None:
    tree.pop("checksum", None)
    text = msgspec.json.encode({"inner": tree | {"checksum": ZEROS}} | {"checksum": ZEROS})
    text = stamped(msgspec.json.format(text) if indented else text)
    assert is_stamped(text)
    assert is_whole(text)
    assert msgspec.json.decode(text)["inner"] == tree | {"checksum": ZEROS}
    at = data.draw(st.integers(0, len(text) - 1))
    other = bytes((data.draw(st.integers(0, 255).filter(lambda byte: byte != text[at])),))
    assert not is_whole(text[:at] + other + text[at + 1 :])


def test_a_text_without_a_stamp_has_none() -> None:
    assert not is_stamped(b'{"checksum":"none"}')
    assert not is_whole(b"{}")
