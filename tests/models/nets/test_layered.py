from __future__ import annotations

import numpy as np

from models.job import ModelSpec
from models.nets.layered import Layered
from models.nets.layers.activation import Activation
from models.nets.layers.dense import Dense
from models.nets.mlp import Mlp
from models.params import Params


def test_a_stack_of_dense_layers_is_the_multilayer_perceptron() -> None:
    model = ModelSpec(inputs=5, hidden=(7,), outputs=3)
    mlp, stack = Mlp(model), Layered(model, (Dense(5, 7), Activation("relu", (7,)), Dense(7, 3)))
    rng = np.random.default_rng(0)
    params: Params = {t.name: rng.normal(size=t.shape).astype(np.float32) for t in mlp.spec}
    X, y = rng.normal(size=(11, 5)).astype(np.float32), rng.integers(0, 3, 11)
    assert stack.spec == mlp.spec
    (ours, gradients), (theirs, others) = stack.loss_and_gradients(params, X, y), mlp.loss_and_gradients(params, X, y)
    assert abs(ours - theirs) < 1e-5
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, others[name], atol=1e-5)
    np.testing.assert_allclose(stack.predict(params, X), mlp.predict(params, X), atol=1e-6)
