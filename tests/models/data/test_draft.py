from __future__ import annotations

import re
import sqlite3
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data import table
from models.data.dataset import Dataset, DatasetError, fit
from models.data.draft import Draft, draft
from models.data.source import DataSource
from models.job import JobSpec
from models.lattice import initial
from models.nets.table import build


def drafted(path: Path, label: str | None = None) -> tuple[Draft, JobSpec]:
    """Return a draft, and the job that it is, read as every job file is."""
    source = DataSource(str(path), label=label or "y")
    opened = table.known(source).open(source, ended=False)
    try:
        found = draft(opened, source, label)
    finally:
        opened.close()
    return found, msgspec.convert(tomllib.loads(found.job), JobSpec)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))
    return path


ROWS = [
    (f"2024-01-01 00:{n:02}:00", n, n % 7 + 0.5, 300 - n * n % 11, n // 10, "x", 5, "ok" if n % 3 else "bad")
    for n in range(60)
]
HEADER = ("when", "n", "Temp (°C)", "vib [g]", "trial", "note", "same", "state")


def test_a_table_becomes_a_job_that_the_loader_accepts_with_what_was_found_as_comments(tmp_path: Path) -> None:
    rows = [list(row) for row in ROWS]
    rows[7][2] = "NA"
    found, job = drafted(write(tmp_path / "pump 7.csv", HEADER, rows))
    assert (job.name, job.model.kind, job.model.inputs, job.model.outputs) == ("pump_7", "mlp", 2, 2)
    contract = job.contract
    assert (contract.features, contract.label, contract.classes) == (("Temp (°C)", "vib [g]"), "state", ("bad", "ok"))
    assert contract.units == {"Temp (°C)": "°C", "vib [g]": "g"}
    assert (contract.normalise, contract.missing) == ("standard", "skip")
    assert {column.name: (column.role, column.why) for column in found.columns} == {
        "when": ("time", "it has times"),
        "n": ("unused", "it counts the rows"),
        "Temp (°C)": ("feature", "0.5 to 6.5"),
        "vib [g]": ("feature", "291 to 300"),
        "trial": ("group", "because of its name"),
        "note": ("unused", "it has words"),
        "same": ("unused", "it is the same in all rows"),
        "state": ("label", "because of its name"),
    }
    for comment in (
        "# A draft for pump 7.csv: 60 rows.",
        "# missing: 1.7% of Temp (°C)",
        "# left out: note: it has words",
        '#   time = "when"',
        '#   group = "trial"',
        '#   label = "state"',
        "# Rows of each: bad: 20, ok: 40",
    ):
        assert comment in found.job.splitlines()


def test_what_to_do_about_a_rare_class_is_in_a_draft_to_be_taken_as_it_stands(tmp_path: Path) -> None:
    rows = [(n * n % 7, "fault" if n % 20 == 0 else "ok") for n in range(200)]
    found, _ = drafted(write(tmp_path / "x.csv", ("a", "state"), rows))
    assert "# fault is 5.0% of the rows, so accuracy says little" in found.job
    advised = found.job.replace('#class_weight = "balanced"', 'class_weight = "balanced"')
    advised = advised.replace("#validation = 0.1", "validation = 0.1").replace('"loss"', '"recall:fault"')
    job = msgspec.convert(tomllib.loads(advised), JobSpec)
    assert (job.contract.class_weight, job.contract.validation) == ("balanced", 0.1)
    assert job.rounds.stop.metric == "recall:fault"
    even, _ = drafted(
        write(tmp_path / "y.csv", ("a", "state"), [(n * n % 7, "fault" if n % 3 else "ok") for n in range(40)])
    )
    assert "class_weight" not in even.job


@pytest.mark.parametrize(
    ("header", "label", "why"),
    [
        (("a", "Class", "b"), "Class", "because of its name"),
        (("a", "y", "target"), "y", "because of its name"),
        (("a", "b", "c"), "c", "the last column"),
    ],
)
def test_the_label_is_guessed_and_why_is_said(tmp_path: Path, header: Sequence[str], label: str, why: str) -> None:
    found, job = drafted(write(tmp_path / "x.csv", header, [(n * n % 7, n % 2, n % 3) for n in range(20)]))
    assert (found.label, found.label_why, job.contract.label) == (label, why, label)
    assert f"# {why.capitalize()}." in found.job.splitlines()
    asked, job = drafted(tmp_path / "x.csv", header[0])
    assert (asked.label, asked.label_why) == (header[0], "as was asked for")


def test_the_only_column_of_words_is_the_label(tmp_path: Path) -> None:
    found, job = drafted(
        write(tmp_path / "x.csv", ("a", "kind", "b"), [(n % 5, "cat" if n % 2 else "dog", n % 7) for n in range(20)])
    )
    assert (found.label, found.label_why, job.contract.classes) == ("kind", "the only column of words", ("cat", "dog"))


@pytest.mark.parametrize(
    ("labels", "classes", "loss", "outputs"),
    [
        (["0", "1", "2"], (), "cross_entropy", 3),
        (["0.0", "1.0"], (), "cross_entropy", 2),
        (["1", "2", "10"], ("1", "2", "10"), "cross_entropy", 3),
        (["-1", "1"], ("-1", "1"), "cross_entropy", 2),
        (["True", "False"], ("False", "True"), "cross_entropy", 2),
        (["True", "FALSE", "TRUE", "false"], ("FALSE", "True"), "cross_entropy", 2),
        (["True", "0", "1.0", "false"], (), "cross_entropy", 2),
        (["1.5", "2.5", "3"], (), "mse", 1),
        ([str(n) for n in range(40)], (), "mse", 1),
    ],
)
def test_classes_and_values_are_told_apart(
    tmp_path: Path, labels: list[str], classes: tuple[str, ...], loss: str, outputs: int
) -> None:
    rows = [(n * n % 7 + 0.5, labels[n % len(labels)]) for n in range(120)]
    _, job = drafted(write(tmp_path / "x.csv", ("a", "y"), rows))
    assert (job.contract.classes, job.model.loss, job.model.outputs) == (classes, loss, outputs)


def test_one_class_alone_is_said(tmp_path: Path) -> None:
    found, job = drafted(write(tmp_path / "x.csv", ("a", "y"), [(n * n % 7, "ok") for n in range(20)]))
    assert (job.model.outputs, job.contract.classes) == (2, ())
    assert "# There is one class alone: a second one was made room for. Do other devices have it?" in found.job


def test_images_are_divided_by_255(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [[*rng.integers(0, 256, 64), n % 10] for n in range(50)]
    _, job = drafted(write(tmp_path / "x.csv", [*(f"p{n}" for n in range(64)), "label"], rows))
    assert (job.contract.normalise, job.model.inputs, job.model.outputs) == ("pixels", 64, 10)
    np.savez(tmp_path / "x.npz", X=rng.integers(0, 256, (50, 8, 8)).astype(np.uint8), y=np.arange(50) % 10)
    _, job = drafted(tmp_path / "x.npz")
    assert (job.contract.normalise, job.model.inputs, job.model.outputs) == ("pixels", 64, 10)
    assert job.contract.features == ()


def npz(path: Path) -> None:
    np.savez(path, a=np.arange(20) % 7, b=np.arange(20) / 3, y=np.array(["ok", "bad"] * 10))


def named(path: Path) -> None:
    np.savez(
        path, X=np.stack([np.arange(20) % 7, np.arange(20) / 3], 1), columns=["a", "b"], y=np.array(["ok", "bad"] * 10)
    )


def jsonl(path: Path) -> None:
    path.write_text("".join(f'{{"a": {n % 7}, "b": {n / 3}, "y": "{("ok", "bad")[n % 2]}"}}\n' for n in range(20)))


def database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE readings (a, b, y)")
    connection.executemany(
        "INSERT INTO readings VALUES (?, ?, ?)", [(n % 7, n / 3, ("ok", "bad")[n % 2]) for n in range(20)]
    )
    connection.commit()
    connection.close()


def german(path: Path) -> None:
    text = "a;b;y\n" + "".join(f"{n % 7};{n / 3:.3f};{('ok', 'bad')[n % 2]}\n".replace(".", ",") for n in range(20))
    path.write_text(text, encoding="utf-16")


@pytest.mark.parametrize(
    ("name", "make"),
    [("x.npz", npz), ("x.npz", named), ("x.jsonl", jsonl), ("x.db", database), ("x.csv", german)],
)
def test_every_format_gives_the_same_job(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    _, job = drafted(tmp_path / name)
    assert (job.name, job.model.inputs, job.model.outputs) == ("x", 2, 2)
    assert (job.contract.features, job.contract.label, job.contract.classes) == (("a", "b"), "y", ("bad", "ok"))


@pytest.mark.parametrize(
    ("shape", "dtype", "labels", "kind"),
    [
        ((28, 28), np.uint8, "classes", "cnn2d"),
        ((32, 24, 3), np.uint8, "classes", "cnn2d"),
        ((3, 32, 32), np.uint8, "classes", "mlp"),
        ((28 * 28,), np.uint8, "classes", "mlp"),
        ((64, 6), np.float32, "classes", "cnn1d"),
        ((24, 3), np.float32, "values", "gru"),
        ((4, 3), np.float32, "classes", "mlp"),
        ((9,), np.float32, "values", "mlp"),
    ],
)
def test_images_and_windows_have_the_net_that_is_usual_for_them(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, labels: str, kind: str
) -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (30, *shape)).astype(dtype)
    y = rng.integers(0, 3, 30) if labels == "classes" else rng.standard_normal(30)
    np.savez(tmp_path / "rows.npz", X=X, y=y)
    _, job = drafted(tmp_path / "rows.npz")
    assert (job.model.kind, job.model.inputs) == (kind, X[0].size)
    net = build(job.model)
    fit(Dataset(X.astype(np.float32), y), job.model)  # rows of this shape are its rows
    assert net.predict(initial(net.spec, 0).params(net.spec), X.reshape(30, -1).astype(np.float32)).shape[0] == 30


def test_arrays_of_values_go_by_position(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=np.ones((20, 3)), y=np.random.default_rng(1).normal(size=(20, 2)))
    _, job = drafted(tmp_path / "x.npz")
    assert (job.model.inputs, job.model.outputs, job.model.loss) == (3, 2, "mse")


@pytest.mark.parametrize(
    ("text", "label", "why"),
    [
        ("a,y\n", None, "no rows yet: a draft needs some"),
        ("a,y\n1,0\n", "z", "--label z: no such column, or more than one: it has a, y"),
        ("a,a,y\n1,2,0\n", "a", "--label a: no such column, or more than one"),
        ("y\n0\n1\n", None, "no column of numbers is left for a feature, beside the label 'y'"),
        ("a,y\n1,\n2,\n", "y", "the label 'y' is empty in all rows"),
        ("a,y\n" + "".join(f"{n},w{n}\n" for n in range(60)), None, "the label 'y' has more than 50 different words"),
    ],
)
def test_a_table_that_gives_no_job_says_why(tmp_path: Path, text: str, label: str | None, why: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"x\.csv: {re.escape(why)}"):
        drafted(tmp_path / "x.csv", label)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(names=st.lists(NAMES, min_size=2, max_size=6, unique=True), words=st.lists(NAMES, min_size=1, max_size=5))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_columns_and_classes_are_called_the_draft_is_a_job(
    tmp_path: Path, names: list[str], words: list[str]
) -> None:
    columns: dict[str, Any] = {name: [(at * at + n) % 9 / 2 for at in range(20)] for n, name in enumerate(names[1:])}
    lines = [
        msgspec.json.encode({name: cells[at] for name, cells in columns.items()} | {names[0]: words[at % len(words)]})
        for at in range(20)
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    try:
        found, job = drafted(tmp_path / "x.jsonl", names[0])
    except DatasetError:
        return
    assert job.contract.label == names[0]
    assert all(line.isprintable() for line in found.job.split("\n")), "it is shown on a terminal"


def test_empty_cells_are_filled_where_too_many_rows_would_be_left_out(tmp_path: Path) -> None:
    rows = [["" if n % 4 == 0 else n % 9, n % 5 + 0.5, n % 2] for n in range(60)]
    found, job = drafted(write(tmp_path / "x.csv", ("a", "b", "y"), rows))
    assert job.contract.missing == "mean"
    assert "# 25% of the rows would be left out: empty cells are filled." in found.job
    few = [["" if n % 8 == 0 else n % 9, n % 5 + 0.5, n % 2] for n in range(60)]
    assert drafted(write(tmp_path / "x.csv", ("a", "b", "y"), few))[1].contract.missing == "skip"


@pytest.mark.parametrize(
    ("scale", "offset", "rate", "remark"),
    [
        (1.0, 0.0, 0.05, ""),
        (100.0, 0.0, 0.001, ""),
        (0.001, 0.0, 0.05, "# Its values are small, about 0.001"),
        (10.0, -1e6, 1e-7, "# Its values vary by about 1e+01 around -1e+06"),
    ],
)
def test_values_have_a_learning_rate_for_their_size_and_what_is_learned_badly_is_remarked_on(
    tmp_path: Path, scale: float, offset: float, rate: float, remark: str
) -> None:
    values = np.random.default_rng(0).normal(size=200) * scale + offset
    rows = [[n % 9, n % 5 + 0.5, f"{value:.6f}"] for n, value in enumerate(values)]
    found, job = drafted(write(tmp_path / "x.csv", ("a", "b", "y"), rows))
    assert (job.model.loss, job.train.learning_rate) == ("mse", rate)
    assert ("# Its values" in found.job) == bool(remark)
    assert remark in found.job
    np.savez(tmp_path / "x.npz", X=np.ones((200, 2)), y=values)
    found, job = drafted(tmp_path / "x.npz")
    assert (job.model.loss, job.train.learning_rate) == ("mse", rate)
    assert remark in found.job


def test_how_a_file_is_read_is_among_the_lines_for_the_devices(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("1;2,5;schön\n2;3;gut\n".encode("cp1252"))
    source = DataSource(str(tmp_path / "x.csv"), encoding="cp1252", delimiter=";", header=("a", "b", "wie"))
    opened = table.known(source).open(source, ended=False)
    try:
        found = draft(opened, source, "wie")
    finally:
        opened.close()
    lines = found.job.splitlines()
    for line in ('#   encoding = "cp1252"', '#   delimiter = ";"', '#   header = ["a", "b", "wie"]'):
        assert line in lines


def test_a_column_of_words_says_how_rows_are_dealt_out_by_it(tmp_path: Path) -> None:
    rows = [[n % 9, ("here", "there")[n % 2], n % 2] for n in range(40)]
    found, _ = drafted(write(tmp_path / "x.csv", ("a", "my site", "y"), rows))
    assert "# left out: my site: it has words (fedge simulate --partition 'column:my site')" in found.job


def test_a_word_that_stands_for_nothing_may_be_a_class_and_is_shown(tmp_path: Path) -> None:
    labels = ["None", "mild", "severe", "", "None"]
    found, job = drafted(write(tmp_path / "x.csv", ("a", "y"), [(n % 7, labels[n % 5]) for n in range(50)]))
    assert job.contract.classes == ("mild", "severe")
    assert found.notes == ["taken for no label, unless classes has them: None (20 rows)"]
    assert "# missing: 60.0% of y" in found.job.splitlines()


@pytest.mark.parametrize("form", ["{}", "{}00", "{}0000", "{}000000"])
def test_dates_in_digits_are_times(tmp_path: Path, form: str) -> None:
    rows = [(form.format(20240101 + n % 31), n * n % 7, n % 2) for n in range(50)]
    found, _ = drafted(write(tmp_path / "x.csv", ("MESS_DATUM", "a", "y"), rows))
    assert found.columns[0].role == "time"


def test_arrays_of_dates_are_times(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    when = np.datetime64("2024-01-01") + np.arange(50) * np.timedelta64(1, "h")
    np.savez(path, when=when, a=np.arange(50) % 7, y=np.arange(50) % 2)
    found, job = drafted(path)
    assert (found.columns[0].role, job.contract.features) == ("time", ("a",))


@pytest.mark.parametrize("row", ["deg C,mm/s,", "-----,---,---", "mean,mean,first"])
def test_a_row_of_units_gives_no_class(tmp_path: Path, row: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"a,b,y\n{row}\n" + "".join(f"{n % 7},{n % 5},{('ok', 'bad')[n % 2]}\n" for n in range(40)))
    assert drafted(path)[1].contract.classes == ("bad", "ok")
