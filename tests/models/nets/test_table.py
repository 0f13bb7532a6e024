from __future__ import annotations

import subprocess
import sys

import pytest

from models.job import ModelSpec
from models.nets import table as nets
from models.nets.mlp import Mlp
from models.nets.net import ModelError
from models.nets.table import build, framework_of
from models.nets.torch_net import TorchNet


def test_the_models_word_goes_before_the_devices_preference() -> None:
    assert framework_of(ModelSpec(), "torch") == "torch"
    assert framework_of(ModelSpec(framework="numpy"), "torch") == "numpy"
    assert framework_of(ModelSpec(framework="torch"), "numpy") == "torch"
    assert framework_of(ModelSpec(kind="a:b"), "numpy") == "torch"


def test_numpy_and_torch_build_nets_of_one_spec() -> None:
    model = ModelSpec(inputs=3, hidden=(4,), outputs=2)
    ours, theirs = build(model), build(model, framework="torch")
    assert isinstance(ours, Mlp)
    assert isinstance(theirs, TorchNet)
    assert ours.spec == theirs.spec


def test_a_factory_that_is_not_allowed_is_not_imported() -> None:
    with pytest.raises(ModelError, match=r"add it to allow in \[models\] of agent\.toml"):
        build(ModelSpec(kind="this_would_fail:make"), allow=("this_would_fail:other",))


def test_missing_torch_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nets, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r'pip install "fedge\[torch\]"'):
        build(ModelSpec(framework="torch"))


def test_building_a_numpy_net_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, models.nets.table, models.nets.mlp, models.training.train\n"
        "from models.job import ModelSpec\n"
        "models.nets.table.build(ModelSpec())\n"
        "sys.exit(' '.join({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
