"""Layers look one way, and the app bundle holds what it should."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part of fedapp may import of fedapp, and of what is heavy or belongs to one layer only.
LAYERS = {
    "errors": set(),
    "seeding": set(),
    "aggregation": set(),
    "files": set(),
    "fingerprint": set(),
    "shared_state": set(),
    "code_identity": {"errors"},
    "optimizer_step": set(),
    "prompt_delivery": set(),
    "quick_import": set(),
    "data": {"data", "errors", "files", "seeding"},
    "models": {"data", "errors", "models"},
    "metrics": {"errors"},
    "training": {"data", "errors", "optimizer_step", "seeding"},
    "task": {"data", "metrics"},
    "secure": {"errors", "secure"},
    "wire": {"secure", "wire"},
    "report": {"report", "errors"},
    "privacy": {"data", "errors", "files", "optimizer_step", "privacy", "seeding", "training"},
    "federation": {
        *("aggregation", "code_identity", "data", "errors", "federation", "files", "fingerprint", "metrics"),
        *("optimizer_step", "privacy", "prompt_delivery", "report", "secure", "seeding", "shared_state", "task"),
        *("training", "wire"),
    },
    "config": {"config", "errors"},
    "build": {
        *("config", "data", "errors", "fingerprint", "metrics", "models", "optimizer_step", "quick_import", "seeding"),
        *("shared_state", "task"),
    },
    "build_secure": {"build", "config", "errors", "federation", "metrics", "privacy", "secure"},
    "build_private": {"build", "config", "data", "errors", "privacy"},
    "keeping": {"config", "data", "errors", "federation", "files", "privacy"},
    "build_client": {
        *("build", "build_private", "config", "data", "errors", "federation", "keeping", "privacy", "training"),
    },
    "build_server": {
        *("build", "build_secure", "config", "data", "errors", "federation", "metrics", "models", "shared_state"),
    },
    "answer": {
        *(
            "build_client",
            "build_secure",
            "code_identity",
            "config",
            "data",
            "errors",
            "federation",
            "keeping",
            "privacy",
            "wire",
        ),
    },
    "worker": {"answer", "worker"},
    "client_app": {"answer", "prompt_delivery", "quick_import", "worker"},
    "server_app": {"quick_import", "run_federation"},
    "run_federation": {
        "build",
        "build_private",
        "build_secure",
        "build_server",
        "code_identity",
        "config",
        "errors",
        "federation",
        "fingerprint",
        "data",
        "models",
        "prompt_delivery",
        "report",
        "shared_state",
    },
    "audit": {
        *("audit", "build", "build_client", "build_private", "config", "data", "errors"),
        *("privacy", "seeding", "task", "training"),
    },
    "use": {"build", "config", "data", "errors", "files", "fingerprint", "models", "training"},
    "deploy": {
        *("build", "build_client", "build_server", "config", "data", "deploy", "errors", "files", "launch", "privacy"),
        *("secure", "worker"),
    },
    "launch": {
        *(
            "build",
            "build_private",
            "build_secure",
            "build_server",
            "config",
            "errors",
            "federation",
            "files",
            "launch",
            "data",
            "quick_import",
        ),
        "training",
    },
}
ONLY_IN = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "opacus": {"privacy"},
    "flwr": {
        "secure",
        "wire",
        "federation",
        "privacy",
        "build_private",
        "keeping",
        "answer",
        "worker",
        "client_app",
        "run_federation",
        "server_app",
        "deploy",
    },
    "cryptography": {"deploy", "secure"},
    "Crypto": {"secure"},
    "httpx": {"deploy"},
    "uvicorn": {"deploy"},
    "flwr_datasets": {"data"},
    "matplotlib": {"report"},
    "onnx": {"use"},
    "onnxruntime": {"use"},
    "rich": {"launch", "deploy"},
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}
# Costly to import, and needed by few messages: inside functions only.
LAZY = {
    *("pandas", "sklearn", "PIL", "datasets", "flwr_datasets", "torchvision", "matplotlib", "tensorboard", "pyarrow"),
    *("onnx", "onnxruntime"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "fedapp").rglob("*.py")):
        parts = path.relative_to(ROOT / "fedapp").with_suffix("").parts
        if parts != ("__init__",):
            found.append((parts[0], path))
    return found


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    typing_only = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(inner) for node in typing_only for inner in ast.walk(node)}
    names: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if id(node) in skipped and top_level:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_every_part_has_a_layer() -> None:
    assert {part for part, _ in modules()} == LAYERS.keys()


@pytest.mark.parametrize(("part", "path"), modules(), ids=lambda value: getattr(value, "stem", value))
def test_imports_look_one_way(part: str, path: Path) -> None:
    names = imports(path)
    own = {name.split(".")[1] for name in names if name.startswith("fedapp.")}
    assert own <= LAYERS[part] | {part}, f"{path} imports {own - LAYERS[part]}"
    for name in {name.split(".")[0] for name in names} & ONLY_IN.keys():
        assert part in ONLY_IN[name], f"{path} imports {name}"


@pytest.mark.parametrize(
    ("part", "path"), [m for m in modules() if m[0] != "report"], ids=lambda v: getattr(v, "stem", v)
)
def test_heavy_packages_are_imported_where_needed(part: str, path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path, top_level=True)} & LAZY, path


def test_layers_form_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(LAYERS):
        ready = [part for part in LAYERS if part not in order and LAYERS[part] - {part} <= set(order)]
        assert ready, f"a cycle among {LAYERS.keys() - set(order)}"
        order += ready


def test_the_apps_never_import_each_other() -> None:
    assert "fedapp.server_app" not in imports(ROOT / "fedapp" / "client_app.py")
    assert "fedapp.client_app" not in imports(ROOT / "fedapp" / "server_app.py")


def test_conf_reads_what_the_code_has() -> None:
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    expected = "data experiment lr_schedule model optimizer partition privacy secure_aggregation strategy task"
    assert groups == set(expected.split())
