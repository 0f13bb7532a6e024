from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.agreement import Agreed
from models.contract import ContractSpec, WindowSpec
from models.job import ModelSpec
from models.lattice import initial
from models.nets import normalised as module
from models.nets import table
from models.nets.normalised import normalised
from models.params import Params

STANDARD = ContractSpec(normalise="standard")
N = 3


def agreed() -> Agreed:
    return Agreed(np.array([1e5, -3, 1e9], np.float32), np.array([1e-4, 2, 1e-2], np.float32))


def raw(n: int = 50, seed: int = 0) -> np.ndarray[Any, Any]:
    z = np.random.default_rng(seed).standard_normal((n, N))
    return (z / agreed().scale + agreed().offset).astype(np.float32)


def by_hand(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (X - agreed().offset) * agreed().scale
    return found


def params_of(model: ModelSpec) -> Params:
    spec = table.build(model).spec
    return initial(spec, 3).params(spec)


@pytest.mark.parametrize("framework", ["numpy", "torch"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_raw_rows_are_answered_as_normalised_ones_are(framework: str, loss: str) -> None:
    model = ModelSpec(inputs=N, hidden=(4,), outputs=2, loss=loss)  # type: ignore[arg-type]  # one of two
    net, params, X = table.build(model, framework=framework), params_of(model), raw()
    y = np.arange(50) % 2 if loss == "cross_entropy" else np.zeros((50, 2), np.float32)
    wrapped = normalised(net, STANDARD, agreed())
    np.testing.assert_array_equal(wrapped.predict(params, X), net.predict(params, by_hand(X)))
    assert wrapped.evaluate(params, X, y).loss == pytest.approx(net.evaluate(params, by_hand(X), y).loss, rel=1e-6)
    assert wrapped.evaluate(params, X, y)[1:] == net.evaluate(params, by_hand(X), y)[1:]
    mine, theirs = (
        one.loss_and_gradients(params, rows, y, scale=0.1) for one, rows in ((wrapped, X), (net, by_hand(X)))
    )
    assert mine[0] == theirs[0]
    assert all(np.array_equal(mine[1][name], theirs[1][name]) for name in params)
    assert (wrapped.spec, wrapped.model) == (net.spec, net.model)


def test_rows_beyond_a_block_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelSpec(inputs=N, outputs=2)
    net, params, X, y = table.build(model), params_of(model), raw(), np.arange(50) % 2
    whole = normalised(net, STANDARD, agreed())
    before = whole.evaluate(params, X, y), whole.predict(params, X)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    after = whole.evaluate(params, X, y), whole.predict(params, X)
    assert after[0].loss == pytest.approx(before[0].loss, rel=1e-6)
    assert after[0].accuracy == pytest.approx(before[0].accuracy)
    np.testing.assert_allclose(after[1], before[1], rtol=1e-5)


def test_the_rows_given_are_left_as_they_are() -> None:
    model = ModelSpec(inputs=N, outputs=2)
    X = raw()
    kept = X.copy()
    X.flags.writeable = False
    normalised(table.build(model), STANDARD, agreed()).predict(params_of(model), X)
    np.testing.assert_array_equal(X, kept)


def test_where_there_is_nothing_to_do_it_is_the_net_itself() -> None:
    net = table.build(ModelSpec(inputs=N, outputs=2))
    assert normalised(net, ContractSpec(), None) is net
    assert normalised(net, STANDARD, None) is net  # nobody has agreed yet
    empty = Agreed(np.zeros(0, np.float32), np.zeros(0, np.float32), (3, 4))
    assert normalised(net, ContractSpec(class_weight="balanced"), empty) is net


def test_pixels_need_nobody_to_agree() -> None:
    model = ModelSpec(inputs=N, outputs=2)
    net, params = table.build(model), params_of(model)
    X = np.random.default_rng(0).integers(0, 256, (9, N)).astype(np.float32)
    found = normalised(net, ContractSpec(normalise="pixels"), None).predict(params, X)
    np.testing.assert_allclose(found, net.predict(params, X / np.float32(255)), rtol=1e-6)


def test_every_row_of_a_window_is_normalised_alike() -> None:
    model = ModelSpec(inputs=2 * N, outputs=2)
    net, params, X = table.build(model), params_of(model), raw(40).reshape(20, 2 * N)
    contract = ContractSpec(normalise="standard", window=WindowSpec(length=2))
    found = normalised(net, contract, agreed()).predict(params, X)
    np.testing.assert_array_equal(found, net.predict(params, by_hand(X.reshape(-1, N)).reshape(20, 2 * N)))
