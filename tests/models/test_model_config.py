import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from fedapp.data.source import Schema
from fedapp.models.fit import check_fits
from fedapp.models.input_layer import InputLayer, assemble

FOLDER = Path(__file__).parents[2] / "conf" / "model"
FILES = sorted(FOLDER.glob("*.yaml"))
DIGITS = Schema((1, 8, 8), tuple("0123456789"))
SERIES = Schema((14,), steps=7)
OF_TEXT = {"lstm", "transformer_lm", "causal_lm", "text_encoder"}  # config/test_groups.py trains them on texts
LARGE = Schema((1, 32, 32), tuple("0123456789"))  # for networks that need larger images


def test_the_models_of_the_readme_are_there():
    assert {"cnn", "logistic_regression", "mlp", "torchvision"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in OF_TEXT], ids=lambda path: path.stem)
def test_defaults_build_a_model_for_digits(path):
    build = instantiate(OmegaConf.load(path), _partial_=True, _convert_="all")
    schema = {"efficientnet_lite0": LARGE, "cnn1d": SERIES}.get(path.stem, DIGITS)
    model = assemble(build(schema), InputLayer(schema))
    check_fits(model, lambda count: torch.zeros(count, *schema.input_shape), (schema.num_outputs,))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_yaml_sets_every_key_of_the_function_and_no_other(path):
    node = yaml.safe_load(path.read_text())
    function = inspect.signature(get_method(node.pop("_target_")))
    keys = {key for key, value in function.parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keys == set(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_yaml_opens_with_its_commands_and_explains_every_key(path):
    lines = path.read_text().splitlines()
    opening = lines[: lines.index("")]
    assert all(line.startswith("#") for line in opening)
    assert any(re.match(rf"#   python scripts/run.py (.* )?model={path.stem}\b", line) for line in opening)
    assert any("flwr run . --stream --run-config 'overrides=" in line for line in opening)
    assert all("  # " in line for line in lines[len(opening) + 1 :])
