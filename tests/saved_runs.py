"""Scripts called in this process, and run directories as a finished run leaves them, without the rounds."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_file
from torch import nn

from fedapp.config import compose, to_yaml
from fedapp.learning.build import build_parts
from fedapp.server.run import settled

__all__ = ["leave", "load_script"]

ROOT = Path(__file__).parents[1]


def load_script(name: str) -> ModuleType:
    """scripts/<name>.py as a module, with its `main`."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = [*sys.path]
    spec.loader.exec_module(module)
    sys.path[:] = before  # the script adds to it
    return module


def leave(directory: Path, overrides: str) -> nn.Module:
    """Only config.yaml and model.safetensors in `directory`, as on a device; gives the whole model.

    Its parameters and statistics are moved, so that they are those of no fresh network.
    """
    config = compose(overrides.split())
    parts = build_parts(config)
    directory.mkdir()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in parts.whole.state_dict().items():
            if value.is_floating_point() and not name.startswith("input."):
                value.mul_(1 + 0.1 * torch.rand(value.shape, generator=random))
    save_file({n: v.clone() for n, v in parts.whole.state_dict().items()}, directory / "model.safetensors")
    (directory / "config.yaml").write_text(to_yaml(settled(config, parts)), encoding="utf-8")
    return parts.whole.eval()
