from __future__ import annotations

import msgspec
import pytest

from identity.authority import Authority
from identity.keys import text_of
from identity.mandate import Mandate, MandateError, read_mandate
from tests.identity.conftest import message_key


def test_the_roots_word_on_who_signs_bundles_is_of_one_fleet_one_key_and_one_authority(authority: Authority) -> None:
    root = authority.record.root
    mandate = read_mandate(authority.mandate, "barn", root)
    assert mandate.key == text_of(authority.signer().public)
    for change in ({"fleet": "other"}, {"key": message_key()}, {"authority": "00"}, {"signature": ""}):
        changed = msgspec.json.encode(msgspec.structs.replace(mandate, **change))
        with pytest.raises(MandateError, match="not one of this fleet's root"):
            read_mandate(changed, change.get("fleet", "barn"), root)
    with pytest.raises(MandateError, match="not one of"):
        read_mandate(authority.mandate, "barn", message_key())


@pytest.mark.parametrize("text", [b"", b"[" * 9999, b"{}", msgspec.json.encode(Mandate("f", "k", "a"))])
def test_what_is_no_mandate_is_named(text: bytes) -> None:
    with pytest.raises(MandateError, match="damaged"):
        read_mandate(text, "f", message_key())
