"""The house: two wings that never import each other, layers that look one way, options that nobody asks for by name."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, CONF = ROOT / "fedapp", ROOT / "conf"

# What each part of fedapp may import of fedapp, from the bottom to the top.
LAYERS = {
    "common": set(),
    "flower": {"common"},
    "wire": {"common"},
    "config": {"common"},
    "report": {"common"},
    "data": {"common", "flower"},
    "models": {"common", "data"},
    "learning": {"common", "config", "data", "flower", "models"},
    "inference": {"common", "config", "data", "learning", "models", "vertical"},
    "tracking": {"common", "config", "report"},
    "updates": {"common", "config", "wire"},
    "privacy": {"common", "config", "data", "learning", "models", "updates", "wire"},
    "aggregation": {"common", "config", "flower", "learning", "privacy", "updates", "wire"},
    "vertical": {"aggregation", "common", "config", "data", "learning", "models", "wire"},
    "client": {
        *(
            "vertical",
            "aggregation",
            "common",
            "config",
            "data",
            "flower",
            "inference",
            "learning",
            "models",
            "privacy",
            "updates",
            "wire",
        ),
    },
    "server": {
        *("aggregation", "common", "config", "data", "flower", "learning", "models", "privacy", "report", "tracking"),
        *("updates", "vertical", "wire"),
    },
    "client_app": {"client", "common", "flower"},
    "server_app": {"common", "flower", "server"},
    "launch": {
        *("aggregation", "client", "client_app", "common", "config", "data", "flower", "inference", "learning"),
        *("report", "server"),
    },
    "deploy": {
        *("aggregation", "client", "common", "config", "data", "flower", "launch", "privacy", "report", "server"),
        "vertical",
    },
    "audit": {"common", "config", "data", "learning", "models", "privacy", "updates", "vertical"},
    "compare": {
        *("client", "common", "config", "data", "inference", "launch", "learning", "models", "report", "server"),
        "vertical",
    },
}
# Packages that belong to some parts only.
ONLY_IN = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "opacus": {"privacy"},
    "cryptography": {"aggregation", "common", "deploy", "vertical"},
    "rbcl": {"vertical"},
    "Crypto": {"aggregation"},
    "httpx": {"deploy"},
    "uvicorn": {"deploy", "launch"},
    "starlette": {"launch"},
    "flwr_datasets": {"data", "flower"},
    "matplotlib": {"report"},
    "phe": {"aggregation"},
    "tenseal": {"aggregation"},
    "onnx": {"inference"},
    "onnxruntime": {"inference"},
    "rich": {"launch", "deploy"},
    "mlflow": {"tracking"},
    "wandb": {"tracking"},
    "pickle": set(),
    "marshal": set(),
    "shelve": set(),
}
# Costly to import, and needed by few messages: inside functions only, but for report/, which is imported in functions.
LAZY = {
    *("pandas", "sklearn", "PIL", "datasets", "flwr_datasets", "torchvision", "matplotlib", "tensorboard", "pyarrow"),
    *("onnx", "onnxruntime", "phe", "rbcl", "tenseal", "mlflow", "wandb", "optuna", "IPython"),
}
# What of Flower is its public interface; the rest is its inside, on which only flower/ may lean.
PUBLIC_FLOWER = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}


def modules() -> list[tuple[str, Path, ast.Module]]:
    """The part that a file belongs to, the file, and its syntax tree."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            found.append((parts[0], path, ast.parse(path.read_text())))
    return found


MODULES = modules()


def imports(tree: ast.Module, *, top_level: bool = False) -> set[str]:
    names: set[str] = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_imports_look_one_way() -> None:
    assert {part for part, _, _ in MODULES} == LAYERS.keys()
    wrong = []
    for part, path, tree in MODULES:
        names = imports(tree)
        for name in sorted(names):
            if name.startswith("fedapp.") and name.split(".")[1] not in LAYERS[part] | {part}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if part not in ONLY_IN.get(name.split(".")[0], {part}):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_only_flower_leans_on_the_inside_of_flower() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for part, path, tree in MODULES
        if part != "flower"
        for name in imports(tree)
        if name.split(".")[0] == "flwr" and name not in PUBLIC_FLOWER
    ]
    assert not wrong


def test_only_one_file_leans_on_the_inside_of_opacus() -> None:
    files = {path.name for _, path, tree in MODULES for name in imports(tree) if name.split(".")[0] == "opacus"}
    assert files == {"opacus_internals.py"}


def test_costly_packages_are_imported_where_needed() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name} at its top"
        for part, path, tree in MODULES
        if part != "report"
        for name in imports(tree, top_level=True)
        if name.split(".")[0] in LAZY
    ]
    assert not wrong


def test_the_wings_never_import_each_other() -> None:
    """Nor does anything below them, on whose way one wing could reach the other."""

    def reached(part: str) -> set[str]:
        found: set[str] = set()
        new = {part}
        while new:
            found |= new
            new = set().union(*(LAYERS[name] for name in new)) - found
        return found

    assert "server" not in reached("client")
    assert "client" not in reached("server")
    assert not {"client_app", "client"} & reached("server_app")
    assert not {"server_app", "server"} & reached("client_app")


def test_layers_form_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(LAYERS):
        ready = [part for part in LAYERS if part not in order and LAYERS[part] <= set(order)]
        assert ready, f"a cycle among {LAYERS.keys() - set(order)}"
        order += ready


def options() -> dict[str, set[str]]:
    """By name of an option in conf/, such as dp_sgd or none, the files of fedapp that are its own."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in CONF.rglob("*.yaml"):
        if file.parent == CONF:
            continue
        for line in file.read_text().splitlines():
            if line.strip().startswith("_target_: fedapp."):
                module = line.split("_target_: ")[1].split()[0].rpartition(".")[0]
                path = PACKAGE.parent / Path(*module.split("."))
                found[file.stem].add(str(path.with_suffix(".py").relative_to(ROOT)))
        found[file.stem] |= set()
    return found


def names_asked_for(tree: ast.Module) -> set[str]:
    """Text constants that something is compared with."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found |= {side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)}
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
            found.add(str(node.value.value))
    return found


# Comparisons with a word that an option happens to have, too, and which are about something else.
OTHER_MEANING = {
    ("fedapp/models/cnn.py", "none"),  # model.norm
    ("fedapp/models/transfer.py", "none"),  # model.feature_norm
    ("fedapp/models/transfer.py", "head"),  # model.trainable
    ("fedapp/models/text_encoder.py", "head"),  # model.trainable
    ("fedapp/data/tables/table_options.py", "none"),  # data.scaling
    ("fedapp/privacy/plan.py", "norm"),  # model.norm
    ("fedapp/server/build.py", "uniform"),  # strategy.weighting
    ("fedapp/aggregation/selection/selection.py", "uniform"),  # strategy.weighting
    # The metric that federation.target_accuracy is about, and that the report of a run directory shows as a share.
    ("fedapp/learning/build_task.py", "accuracy"),
    ("fedapp/report/series.py", "accuracy"),
    ("fedapp/report/plots.py", "accuracy"),
    ("fedapp/report/time_plots.py", "accuracy"),
    ("fedapp/report/client_plots.py", "accuracy"),
}


def test_no_module_asks_for_an_option_by_name() -> None:
    known = options()
    known.pop("auto")  # a value of many keys
    assert {"none", "dp_sgd", "secaggplus", "head", "csv", "median"} <= known.keys()
    wrong = []
    for _, path, tree in MODULES:
        file = str(path.relative_to(ROOT))
        for name in names_asked_for(tree) & known.keys():
            if file not in known[name] and (file, name) not in OTHER_MEANING:
                wrong.append(f"{file} compares something with {name!r}")
    assert not wrong


def test_one_name_for_one_thing() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    files: dict[str, list[str]] = defaultdict(list)
    for _, path, tree in MODULES:
        file = str(path.relative_to(ROOT))
        files[path.name].append(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(file)
    assert {name: where for name, where in classes.items() if len(where) > 1} == {}
    # A half or a wing has files for the same purposes as the other.
    paired = {"__init__.py", "__main__.py", "build.py", "client.py", "server.py", "option.py", "preflight.py"}
    # A kind of task, its losses and its metrics.
    paired |= {"classification.py", "multilabel.py", "next_token.py", "regression.py"}
    paired |= {"run.py"}  # the server's run, and the command that starts one
    assert {name: where for name, where in files.items() if len(where) > 1 and name not in paired} == {}


def test_conf_reads_what_the_code_has() -> None:
    groups = {path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()}
    expected = {
        *(
            "cohort",
            "compression",
            "data",
            "experiment",
            "federation",
            "federation/personal",
            "lr_schedule",
            "metric",
            "model",
        ),
        *("federation/client_speed", "rounds"),
        *(
            "optimizer",
            "partition",
            "privacy",
            "secure_aggregation",
            "strategy",
            "task",
            "task/kind",
            "task/loss",
            "tracker",
        ),
        *("vertical", "vertical/fusion", "vertical/label_privacy"),
    }
    assert groups == expected
