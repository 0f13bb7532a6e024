"""The example data sets and jobs that come along: what `fedge demo` and `fedge simulate` know by name.

The data sets are scikit-learn's; nothing is downloaded. A fifth of each is the test split, the same one every time.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset
from runtime.settings import SettingsError

JOBS = Path(__file__).parent.parent / "jobs"
SPLIT_SEED = 0


class Split(NamedTuple):
    """Examples to train on, and others to test on. X: float32 (n, features), y: int64 (n,)."""

    train: Dataset
    test: Dataset


def find_job(name: Path) -> Path:
    """Return the file of a job: a path, or the bare name of one that comes along. Raises SettingsError."""
    if name.exists():
        return name
    along = JOBS / f"{name}.toml"
    if len(name.parts) == 1 and along.is_file():
        return along
    names = ", ".join(sorted(path.stem for path in JOBS.glob("*.toml")))
    raise SettingsError(f"{name}: there is no such file, and no job of that name comes along: {names} do")


def load_split(name: str) -> Split:
    """Return a data set by its name. Raises SettingsError where there is none of it, or scikit-learn is missing."""
    if name not in DATA:
        raise SettingsError(f"there is no example data set {name}: there are {', '.join(DATA)}; or name a file, --data")
    if find_spec("sklearn") is None:
        raise SettingsError(f'the data set {name} comes from scikit-learn: pip install "fedge[demo]"')
    X, y = DATA[name]()
    train, test = split_rows(len(y), y, SPLIT_SEED)
    X, y = np.ascontiguousarray(X, np.float32), y.astype(np.int64)
    return Split(Dataset(X[train], y[train], name), Dataset(X[test], y[test], f"{name} (test)"))


def split_rows(n: int, y: npt.NDArray[Any], seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows to train on and a fifth to test on; the latter with every class in its proportion."""
    rng = np.random.default_rng(seed)
    if y.ndim != 1 or y.dtype.kind == "f":
        order = rng.permutation(n)
        return np.sort(order[n // 5 :]), np.sort(order[: n // 5])
    by_class = (rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y))
    test = np.sort(np.concatenate([rows[: round(len(rows) / 5)] for rows in by_class]))
    return np.setdiff1d(np.arange(n), test), test


def _digits() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return 1,797 handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


def _classification() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return 1,000 made-up rows of 20 features, 3 classes."""
    from sklearn.datasets import make_classification

    X, y = make_classification(
        n_samples=1000,
        n_features=20,
        n_informative=2,
        n_redundant=10,
        n_classes=3,
        random_state=42,
        n_clusters_per_class=1,
    )
    return X, y


def _breast_cancer() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return 569 tumours by 30 measures of their cells' nuclei, benign or malignant, the measures standardised."""
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


DATA: dict[str, Callable[[], tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = {
    "digits": _digits,
    "classification": _classification,
    "breast_cancer": _breast_cancer,
}
