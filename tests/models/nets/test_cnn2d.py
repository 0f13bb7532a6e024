from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import Dataset, DatasetError, fit
from models.job import ModelSpec
from models.nets.table import build
from models.params import n_parameters


def model_of(inputs: int = 28 * 28, hidden: tuple[int, ...] = (), **options: object) -> ModelSpec:
    return ModelSpec("cnn2d", inputs, hidden, 10, options=options)


def test_the_cnn_of_mcmahan_et_al_has_their_number_of_parameters() -> None:
    net = build(model_of(hidden=(512,), channels=[32, 64], kernel=5))
    assert n_parameters(net.spec) == 1_663_370
    assert [t.shape for t in net.spec][::2] == [(32, 1, 5, 5), (64, 32, 5, 5), (512, 7 * 7 * 64), (10, 512)]


def test_an_image_is_square_and_grey_where_nothing_else_is_said() -> None:
    assert build(model_of()).spec[0].shape == (16, 1, 3, 3)
    assert build(model_of(3 * 8 * 6, height=8, width=6)).spec[0].shape == (16, 3, 3, 3)


@pytest.mark.parametrize(
    ("inputs", "options", "why"),
    [
        (48, {}, r"inputs = 48: say options\.height and options\.width of the images, both"),
        (784, {"height": 28}, r"inputs = 784: say options\.height and options\.width of the images, both"),
        (784, {"height": 28, "width": 27}, r"options\.height = 28, options\.width = 27: inputs = 784 is no multiple"),
        (
            60,
            {"height": 20, "width": 3, "kernel": 5},
            r"options\.kernel = 5: convolution 1 is given 20 x 3 places: say 3",
        ),
        (784, {"height": -1}, r"options\.height: "),
        (10**6, {"channels": [1], "kernel": 99}, r"options\.kernel = 99: .* would see .* where it can see 4,194,304"),
        (
            64**2,
            {"channels": [16, 2], "kernel": [1, 64], "pool": 1, "separable": True},
            r"options\.kernel = 64: convolution 2, which is separable, would lay 4,194,304 weights out",
        ),
        (256**2, {"channels": [64], "kernel": 1, "pool": 1, "head": "mean"}, r"units are more than the 2,097,152"),
        (784, {"columns": 28}, r'kind = "cnn2d" has no key "options\.columns"'),
    ],
    ids=str,
)
def test_a_net_that_does_not_fit_its_images_is_refused_with_the_key_and_what_to_say(
    inputs: int, options: dict[str, object], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        model_of(inputs, **options)


def test_images_come_flat_or_with_their_channels_last_and_grey_ones_without() -> None:
    generator = np.random.default_rng(0)
    y = np.zeros(3, np.int64)
    for shape in ((784,), (28, 28), (28, 28, 1)):
        X = generator.normal(size=(3, *shape)).astype(np.float32)
        np.testing.assert_array_equal(fit(Dataset(X, y), model_of()).X, X.reshape(3, 784))
    colour = generator.normal(size=(3, 8, 6, 3)).astype(np.float32)
    model = model_of(144, height=8, width=6)
    np.testing.assert_array_equal(fit(Dataset(colour, y), model).X, colour.reshape(3, 144))
    with pytest.raises(DatasetError, match="an example is 3 x 8 x 6, where the model takes 8 x 6 x 3 "):
        fit(Dataset(np.moveaxis(colour, -1, 1), y), model)
