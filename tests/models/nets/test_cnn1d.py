from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import Dataset, DatasetError, fit
from models.job import ModelSpec
from models.nets.cnn1d import Cnn1dSpec
from models.nets.convolutional import layers
from models.nets.table import build
from models.params import n_parameters


def model_of(inputs: int = 64 * 6, hidden: tuple[int, ...] = (), **options: object) -> ModelSpec:
    return ModelSpec("cnn1d", inputs, hidden, 4, options={"columns": 6, **options})


def test_a_window_goes_through_convolution_pool_and_activation_to_dense_layers() -> None:
    spec = Cnn1dSpec.of(model_of(hidden=(20,), channels=[16, 32], kernel=[5, 3], pool=2))
    made = layers(spec)
    assert [type(layer).__name__ for layer in made] == [
        "Rows",
        *("Conv", "Pool", "Activation", "Conv", "Pool", "Activation"),
        *("Flatten", "Dense", "Activation", "Dense"),
    ]
    assert [layer.shape for layer in made[1:8:2]] == [(64, 16), (32, 16), (16, 32), (16 * 32,)]


def test_the_largest_of_a_pool_is_taken_before_the_activation_only_where_that_is_the_same() -> None:
    def order(**keys: object) -> list[str]:
        model = ModelSpec("cnn1d", 64, (), 4, options={"channels": [4], **keys.pop("options", {})}, **keys)  # type: ignore[arg-type]
        return [type(layer).__name__ for layer in layers(Cnn1dSpec.of(model))][2:4]

    assert order() == order(activation="tanh") == ["Pool", "Activation"]
    assert order(activation="gelu") == order(activation="silu") == ["Activation", "Pool"]  # they fall, below zero
    assert order(options={"pooling": "average"}) == ["Activation", "Pool"]


def test_separable_and_residual_are_of_every_convolution_but_the_first() -> None:
    names = [t.name for t in build(model_of(channels=[8, 8, 16], separable=True, residual=True)).spec]
    assert names == [
        *("1.weight", "1.bias", "4.0.weight", "4.1.weight", "4.1.bias"),
        *("7.0.weight", "7.1.weight", "7.1.bias", "7.projection.weight", "7.projection.bias", "11.weight", "11.bias"),
    ]
    few, many = (n_parameters(build(model_of(channels=[32, 64], separable=key)).spec) for key in (True, False))
    assert many - few == 64 * 32 * 5 - (32 * 5 + 64 * 32)


def test_what_is_left_out_fits_the_shortest_window() -> None:
    assert build(model_of(6)).spec[0].shape == (16, 6, 1)
    assert build(model_of()).spec[0].shape == (16, 6, 5)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"columns": 5}, r"options\.columns = 5: inputs = 384 is no multiple of it"),
        ({"kernel": 65}, r"options\.kernel = 65: convolution 1 is given 64 places: say 64 or less"),
        ({"kernel": [5, 33]}, r"options\.kernel = 33: convolution 2 is given 32 places: say 32 or less, or a smaller"),
        ({"kernel": [5]}, r"options\.kernel = \[5\]: options\.channels has 2 convolutions, so say one number for all"),
        ({"kernel": [5, 0]}, r"options\.kernel\[1\]: "),
        ({"kernel": "5"}, r"options\.kernel: "),
        ({"stride": 65}, r"options\.stride = 65: convolution 1 is given 64 places, .* say 64 or less"),
        ({"channels": []}, r"options\.channels: "),
        ({"channels": [0, 4]}, r"options\.channels\[0\]: "),
        ({"channels": [4] * 7, "pool": 2}, r"options\.pool = 2: convolution 7 gives 1 place, so that nothing"),
        ({"channels": [10_000, 10_000], "kernel": 1}, r"parameters are more than the 25,000,000"),
        ({"norm": "batch"}, r"options\.norm: "),
        ({"norm": "group", "norm_groups": 3}, r"options\.norm_groups = 3 does not divide the 16 of options\.channels"),
        ({"norm_groups": 2}, r'options\.norm_groups = 2 wants options\.norm = "group"'),
        ({"norm": "layer", "channels": [4, 1]}, r"options\.norm is over one number alone"),
        (
            {"norm": "group", "norm_groups": 4, "columns": 384, "channels": [4]},
            r"options\.norm is over one number alone",
        ),
        ({"dropout": 1.0}, r"options\.dropout: "),
        ({"residual": True, "channels": [4]}, r"options\.residual = true is of every convolution but the first"),
        ({"residual": True, "padding": "valid"}, r'options\.residual = true wants options\.padding = "same"'),
        ({"separable": True, "channels": [4]}, r"options\.separable = true is of every convolution but the first"),
        ({"filters": 4}, r'kind = "cnn1d" has no key "options\.filters"'),
        ({"height": 8}, r'kind = "cnn1d" has no key "options\.height"'),
    ],
    ids=str,
)
def test_a_net_that_does_not_fit_its_windows_is_refused_with_the_key_and_what_to_say(
    options: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        model_of(**options)


def test_windows_come_flat_or_with_their_columns_last() -> None:
    X = np.random.default_rng(0).normal(size=(3, 64, 6)).astype(np.float32)
    y = np.zeros(3, np.int64)
    flat = fit(Dataset(X, y), model_of()).X
    assert flat.shape == (3, 384)
    assert fit(Dataset(flat, y), model_of()).X is flat
    with pytest.raises(DatasetError, match="an example is 6 x 64, where the model takes 64 x 6 "):
        fit(Dataset(np.moveaxis(X, -1, 1), y), model_of())
