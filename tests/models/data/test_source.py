from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.data.dataset import DatasetError
from models.data.source import DataSource, load, read
from models.job import ModelSpec


@pytest.fixture
def csv(tmp_path: Path) -> str:
    path = tmp_path / "x.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,1\n")
    return str(path)


@pytest.fixture
def npz(tmp_path: Path) -> str:
    path = tmp_path / "x.npz"
    np.savez(path, X=np.ones((2, 3)), other=np.zeros((2, 2)), y=np.arange(2))
    return str(path)


def source(**keys: Any) -> DataSource:
    return msgspec.convert(keys, DataSource)


def test_one_column_of_a_csv_may_stand_alone(csv: str) -> None:
    assert load(source(path=csv, features="b")).X.tolist() == [[2], [4]]
    assert load(source(path=csv, features="b")).X.tolist() == load(source(path=csv, features=["b"])).X.tolist()
    with pytest.raises(DatasetError, match="1 features an example where the model has inputs = 2"):
        read(source(path=csv, features="a"), ModelSpec(inputs=2, outputs=2))
    with pytest.raises(DatasetError, match="no column 'c'"):
        load(source(path=csv, features="c"))


def test_all_columns_but_the_label_are_features_where_none_is_named(csv: str) -> None:
    assert load(source(path=csv)).X.tolist() == [[1, 2], [3, 4]]
    assert load(source(path=csv, label="a")).X.tolist() == [[2, 0], [4, 1]]


def test_the_array_of_an_npz_may_stand_in_brackets(npz: str) -> None:
    assert load(source(path=npz)).X.shape == (2, 3)
    assert load(source(path=npz, features="other")).X.shape == (2, 2)
    assert load(source(path=npz, features=["other"])).X.shape == (2, 2)


def test_the_ending_may_be_written_large(tmp_path: Path, csv: str) -> None:
    large = Path(csv).rename(tmp_path / "X.CSV")
    assert load(source(path=str(large), features="b")).X.tolist() == [[2], [4]]


REFUSED: dict[str, dict[str, Any]] = {
    "two arrays of an npz": {"path": "x.npz", "features": ["a", "b"]},
    "two arrays of an npz from elsewhere": {"path": "X.NPZ", "features": ["a", "b"]},
    "the label as a feature": {"path": "x.csv", "features": ["a", "y"]},
    "the label as the only feature": {"path": "x.npz", "features": "y"},
    "no features at all": {"path": "x.csv", "features": []},
    "a feature without a name": {"path": "x.csv", "features": ""},
    "a label without a name": {"path": "x.csv", "label": ""},
    "no path": {"path": ""},
    "a path of two lines": {"path": "a\nb.csv"},
}


@pytest.mark.parametrize("keys", REFUSED.values(), ids=REFUSED)
def test_keys_that_cannot_be_meant_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        source(**keys)


def test_a_source_that_is_no_file_may_name_what_it_likes() -> None:
    assert source(path="device-07", features=["a", "b"]).path == "device-07"
