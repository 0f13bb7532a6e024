from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from fleet.local.toml import written

plain = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.text(st.characters(blacklist_categories=["Cs"], min_codepoint=32))
)
trees = st.recursive(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), plain | st.lists(plain, max_size=3), max_size=4),
    lambda below: st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), below | plain, max_size=4),
    max_leaves=10,
)


def without_empty(tree: dict[str, object]) -> dict[str, object]:
    """Leave tables out that have nothing in them: they are not written."""
    found = {key: without_empty(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in found.items() if value != {}}


@given(trees)
def test_what_is_written_is_read_as_it_was(tree: dict[str, object]) -> None:
    assert without_empty(tomllib.loads(written(tree))) == without_empty(tree)


def test_a_comment_stands_above_its_key_or_its_table() -> None:
    text = written(
        {"a": None, "b": 1, "t": {"u": {"c": "x"}}, "v": {"d": [1]}}, {"b": "one", "t": "above", "v.d": "deep"}
    )
    assert text == '# one\nb = 1\n\n# above\n[t.u]\nc = "x"\n\n[v]\n# deep\nd = [1]\n'
