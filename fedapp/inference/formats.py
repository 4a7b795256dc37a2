"""The file formats of exported models: how a network becomes one, and how it is loaded back to be checked."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fedapp.common.errors import ModelError

__all__ = ["FACTS", "FORMATS", "Format", "Run"]

FACTS = "fedapp.json"  # the extra file of a TorchScript archive
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """`convert` makes a file's content of a network, two examples and facts; `load` makes a function of a file."""

    suffix: str
    packages: tuple[str, ...]
    convert: Callable[[nn.Module, Tensor, Mapping[str, object]], bytes]
    load: Callable[[Path], Run]

    def check_installed(self) -> None:
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise ModelError(f"--format onnx: needs {', '.join(missing)}; install: pip install -e '.[onnx]'")


@contextmanager
def _deprecated() -> Iterator[None]:
    """torch warns that TorchScript will go; as long as it is there, it is what C++ programs load without Python."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield


def _to_torchscript(network: nn.Module, example: Tensor, facts: Mapping[str, object]) -> bytes:
    content = io.BytesIO()
    with torch.no_grad(), _deprecated():
        # Checked later, by what it says; so is what the tracer warns of, branches that it takes for good.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)  # it looks at all attributes
        traced = torch.jit.trace(network, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, content, _extra_files={FACTS: json.dumps(facts)})
    return content.getvalue()


def _run_torchscript(path: Path) -> Run:
    with _deprecated():
        loaded = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = loaded(inputs)
            return outputs

    return run


def _to_onnx(network: nn.Module, example: Tensor, facts: Mapping[str, object]) -> bytes:
    with warnings.catch_warnings():
        # An LSTM gathers its weights in a list of its own when it computes; checked later, by what it says.
        warnings.filterwarnings("ignore", ".*were assigned during export", UserWarning)
        warnings.filterwarnings("ignore", ".*_check_is_size", FutureWarning)  # torch's export uses it itself
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    )
    return bytes(program.model_proto.SerializeToString())


def _run_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])


FORMATS = {
    "torchscript": Format(".torchscript", (), _to_torchscript, _run_torchscript),
    "onnx": Format(".onnx", ("onnx", "onnxruntime", "onnxscript"), _to_onnx, _run_onnx),
}
