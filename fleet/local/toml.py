"""Plain values as TOML, for the configuration files that we write. (The standard library only reads it.)"""

from __future__ import annotations

import json
from collections.abc import Mapping


def written(tree: Mapping[str, object], comments: Mapping[str, str] | None = None, *, table: str = "") -> str:
    """Return plain values as TOML: strings and lists are written as in JSON, and None, which TOML has not, is left out.

    comments: a line to stand above a key or a table, by its dotted name. Tables come after the keys beside them.
    """
    comments = comments or {}
    lines: list[str] = []
    for key, value in tree.items():
        if value is not None and not isinstance(value, Mapping):
            lines += _above(comments, f"{table}{key}")
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one that JSON allows
            lines.append(f"{key} = {text}")
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            holds_tables_alone = all(isinstance(below, Mapping) for below in value.values())
            lines += ["", *_above(comments, f"{table}{key}"), *([] if holds_tables_alone else [f"[{table}{key}]"])]
            lines.append(written(value, comments, table=f"{table}{key}.").strip("\n"))
    return "\n".join(lines) + "\n"


def _above(comments: Mapping[str, str], name: str) -> list[str]:
    return [f"# {comments[name]}"] if name in comments else []
