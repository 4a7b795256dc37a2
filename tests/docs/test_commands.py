"""Every command in the documentation: overrides are composed and checked, options parsed; those of README are run."""

import importlib
import importlib.util
import itertools
import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from commands import PATIENCE, Flower, copy_of_this_checkout, run_script
from documentation import PAGES, ROOT, Command, commands, programs, shown_files
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from fedapp.common.errors import ConfigError
from fedapp.compare.compared_arms import arms_of, base_overrides, check_base, variants
from fedapp.config import compose, split_overrides
from fedapp.launch.check import absolute_paths, check
from fedapp.launch.local_superlink import LocalSuperLink
from fedapp.launch.objective import is_sweep, sweeper_direction
from fedapp.server.build import output_directory
from fedapp.server.check_config import check_config
from fedapp.vertical.vertical_options import vertical_options

ALL = [command for page in PAGES for command in commands(page)]
ADDED = {name: text for page in PAGES for name, text in shown_files(page).items()}
# Options in files that a page tells its reader to write, such as two_moons.
ADDED_OPTIONS = [Path(name).stem for name in ADDED if name.startswith("conf/")]


def needs_copy(words: Iterable[str]) -> bool:
    return any(option in word for option in ADDED_OPTIONS for word in words)


# Those with such an option are checked in a process of their own, in a copy of the checkout that has the files.
UNIQUE = [
    pytest.param(command, marks=[pytest.mark.slow] if needs_copy(command.words) else [])
    for command in {command.words: command for command in reversed(ALL)}.values()  # once, however often it is there
]
# Not the app's own, and not looked at.
TOOLS = "cd git jupyter kill ls mkdir mkdocs mlflow mypy pip ray ruff sleep source ssh tail tensorboard wait wandb"
# Data sets that need the network, or minutes: of these the config is only composed.
FAR_OR_LARGE = ("sources.hub.", "sources.hub_text.", "sources.solar.", "sources.shakespeare.", "sources.verse.")
CHECK = """
import sys
from pathlib import Path
from fedapp.config import compose
from fedapp.launch.check import check
check(compose(sys.argv[2:]), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, with a table and images where the documentation has some."""
    folder = tmp_path_factory.mktemp("place")
    make_place(folder)
    return folder


@pytest.fixture
def place(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As it was made, for each command: a check leaves an empty run directory there at most."""
    monkeypatch.chdir(made)
    before = set(made.rglob("*"))
    yield made
    after = set(made.rglob("*"))
    assert before <= after
    for path in sorted(after - before, reverse=True):
        path.rmdir()


def make_place(folder: Path) -> None:
    import pyarrow.parquet as pq
    from pyarrow import csv

    rows = [f"{20 + i % 60},{0.1 * i:.1f},{'fm'[i % 2]},{'ABCDE'[i % 5]},{('no', 'yes')[i % 2]}" for i in range(500)]
    for name, header in (
        ("patients.csv", "age,dose,sex,hospital,outcome"),
        *((f"hospitals/{name}.csv", "age,dose,sex,ward,outcome") for name in "ABC"),
        ("sites/A.csv", "age,dose,sex,hospital,ill"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join([header, *rows]) + "\n")
    pq.write_table(csv.read_csv(folder / "patients.csv"), folder / "patients.parquet")
    days = [f"2024-{1 + i // 28:02d}-{1 + i % 28:02d},{shop},{i % 7}" for i in range(84) for shop in "ABC"]
    for party, title in (("bank", "person,city,card,late"), ("shop", "city,card,spent"), ("phone", "person,calls")):
        cells = {"person": "p{}", "city": "Bern", "card": "c{}", "late": "{:b}", "spent": "{}.5", "calls": "{}"}
        lines = [
            ",".join(cells[name].format(i % 2 if name == "late" else i) for name in title.split(",")) for i in range(60)
        ]
        (folder / f"{party}.csv").write_text("\n".join([title, *lines]) + "\n")
    (folder / "sales.csv").write_text("day,shop,sold\n" + "\n".join(days) + "\n")
    for i in range(90):
        site = ("north", "south", "west")[i % 3]
        image = folder / "clinics" / site / ("ill", "well")[i % 2] / f"patient{i // 9}_{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (i, 100, 0)).save(image)
    letters = [{"user": name, "text": f"dear {name}, the river was wide"} for name in ("anna", "ben", "carol")]
    (folder / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in letters))
    visits = [f"{i % 7},{i % 2},{i % 3 // 2},{i % 5 // 4}" for i in range(60)]
    (folder / "visits.csv").write_text("age,fever,cough,rash\n" + "\n".join(visits) + "\n")
    findings = [f"{i % 7},{('No Finding', 'Mass', 'Mass|Nodule')[i % 3]}" for i in range(60)]
    (folder / "xrays.csv").write_text("age,findings\n" + "\n".join(findings) + "\n")
    grey = {f"{name}_images": np.zeros((1500, 28, 28), dtype=np.uint8) for name in ("train", "test")}
    np.savez(folder / "pneumonia.npz", **grey, train_labels=np.arange(1500) % 2, test_labels=np.arange(1500) % 2)
    for i in range(400):
        image = folder / "photos" / "ab"[i % 2] / f"{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (i % 256, 100, 200 * (i % 2))).save(image)


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout with the files that the documentation tells its reader to write."""
    app = copy_of_this_checkout(tmp_path_factory.mktemp("copy") / "app")
    for name, text in ADDED.items():
        assert not (app / name).exists(), name
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    return app


@pytest.mark.slow
@pytest.mark.parametrize("command", UNIQUE, ids=str)
def test_what_the_documentation_says_works(command: Command, place: Path, copy: Path) -> None:
    check_command(tuple(word.replace("$PWD", str(place)) for word in command.words), place, copy)


def check_command(words: tuple[str, ...], place: Path, copy: Path) -> None:
    """Fails for a command that would not work, and for one of a kind that nobody knows how to check."""
    name, arguments = words[0], list(words[1:])
    if name in TOOLS.split():
        return
    if name == "python":
        check_python(arguments, place, copy)
    elif name == "scripts/quickstart":
        check_run(arguments, place, copy)
    elif name == "scripts/test":
        assert arguments[:1] in ([], ["fast"], ["-k"]), words
    elif name.startswith("scripts/deploy/"):
        check_deploy(name.removeprefix("scripts/deploy/"), arguments, place, copy)
    elif words[:2] == ("flwr", "run"):
        check_flower(arguments[1:], place, copy)
    else:
        pytest.fail(f"a new kind of command: {words}; say here how it is checked")


def check_python(arguments: list[str], place: Path, copy: Path) -> None:
    script = arguments[0]
    parsers: dict[str, Callable[[list[str]], object]] = {
        "scripts/bench.py": parse_bench,
        "scripts/audit.py": lambda given: compose_all(script_module("audit").parse(given, None).overrides),
        "scripts/compare.py": check_comparison,
        "scripts/baselines.py": lambda given: compose_all(script_module("baselines").parse(given).overrides),
        "scripts/experiment_tables.py": lambda given: script_module("experiment_tables").parse(given),
        "scripts/predict.py": lambda given: script_module("predict").parse(given),
        "scripts/runs.py": lambda given: script_module("runs").parse(given),
        "scripts/mutations.py": lambda given: script_module("mutations").parse(given),
        "scripts/export.py": lambda given: script_module("export").parse(given),
    }
    if script == "scripts/run.py":
        check_run(arguments[1:], place, copy)
    elif script in parsers:
        parsers[script](arguments[1:])
    elif script == "scripts/benchmarks/vertical.py":
        given = script_module("benchmarks/vertical").parse(arguments[1:])
        vertical_options(compose(given.overrides or ["task=vertical"]))
    elif script == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None, arguments
    elif script == "-":  # a program of the documentation's own
        assert len(arguments) == 1
    else:
        assert script.startswith("tests/") or script == "scripts/round_files.py", arguments
        assert len(arguments) == 1
        assert (ROOT / script).is_file(), arguments


def script_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_comparison(arguments: list[str]) -> None:
    """Every arm composes; nothing is trained."""
    options = script_module("compare").parse(arguments)
    base = base_overrides(options.overrides)
    base += absolute_paths(compose(base))
    config = compose(base)
    check_base(config)
    for arm in arms_of(base, config, variants(options.variants)):
        check_config(compose(arm.overrides))


def parse_bench(arguments: list[str]) -> None:
    assert script_module("bench").parse("", arguments)


def check_run(arguments: list[str], place: Path, copy: Path) -> None:
    """As scripts/run.py has it: overrides, and Hydra's own flags."""
    if arguments == ["--help"] or arguments[:1] == ["--cfg"]:
        assert arguments in (["--help"], ["--cfg", "job"])
        return
    sweeps = arguments[:1] == ["-m"]
    if "hydra/sweeper=optuna" in arguments:
        fixed = [one for one in arguments[1:] if not one.startswith("hydra") and not is_sweep(one)]
        assert sweeper_direction(arguments, fixed)
        check_overrides(fixed, place, copy)
        return
    arguments = [argument for argument in arguments if argument != "--check"]
    if "--config" in arguments:
        at = arguments.index("--config")
        assert arguments[at + 1].endswith(".yaml")
        arguments = arguments[:at] + arguments[at + 2 :]
    for overrides in expanded(arguments[1:]) if sweeps else [arguments]:
        check_overrides(overrides, place, copy)


def expanded(arguments: Sequence[str]) -> list[list[str]]:
    """The runs of a sweep."""
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    values = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    assert any(len(one) > 1 for one in values), "a sweep over nothing"
    return [list(run) for run in itertools.product(*values)]


def check_overrides(overrides: Sequence[str], place: Path, copy: Path) -> None:
    if needs_copy(overrides):
        done = subprocess.run(
            [sys.executable, "-c", CHECK, str(place / "run"), *overrides],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return
    config = compose(overrides)
    if any(name in config.data["_target_"] for name in FAR_OR_LARGE):
        return
    config = compose([*overrides, *absolute_paths(config)])
    directory = output_directory(config, place / "run")
    check(replace(config, run=replace(config.run, output_dir=str(directory))), directory)


def compose_all(overrides: Sequence[str]) -> None:
    compose(list(overrides))


def check_flower(arguments: list[str], place: Path, copy: Path) -> None:
    """By the parser of Flower's own command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import typer
        from flwr.cli.app import app
        from flwr.cli.config_utils import parse_config_args

        context = typer.main.get_command(app).commands["run"].make_context("run", list(arguments))
    assert str(context.params["app"]) == "."
    given = parse_config_args(context.params["run_config_overrides"])
    check_overrides(split_overrides(str(given["overrides"])), place, copy)


def check_deploy(name: str, arguments: list[str], place: Path, copy: Path) -> None:
    """By the command's own parser; overrides are composed, and a site's --task is."""
    parser = importlib.import_module(f"fedapp.deploy.{name}").parser()
    given = parser.parse_intermixed_args(arguments)
    if hasattr(given, "overrides"):
        compose_all(given.overrides)
    if getattr(given, "task", None):
        compose_all(split_overrides(given.task))


# --- that this finds what is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python scripts/run.py federation.num_round=3", ConfigError),
        ("python scripts/run.py -m optimizer.lr=0.1,none", ConfigError),
        ("scripts/quickstart data=nothing", ConfigError),
        ("python scripts/bench.py simulations", SystemExit),
        ("python scripts/predict.py", SystemExit),
        ("scripts/deploy/run --folders x", SystemExit),
        ("scripts/deploy/nothing", ModuleNotFoundError),
        ("flwr run . --streams", Exception),
        ("flwr run . --run-config 'overrides=\"train.batch_size=many\"'", ConfigError),
        ("python scripts/nothing.py", AssertionError),
        ("podman run fedapp", pytest.fail.Exception),
    ],
)
def test_a_wrong_command_is_found(line: str, error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error):
        check_command(tuple(shlex.split(line)), tmp_path, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_are_python(page: Path) -> None:
    for text in programs(page):
        compile(text, str(page), "exec")


def test_every_page_with_a_command_is_read() -> None:
    found = {command.page for command in ALL}
    assert {page for page in PAGES if "```bash" in page.read_text(encoding="utf-8")} <= found
    kinds = {command.words[:2] for command in ALL if command.words[0] == "python"}
    assert {("python", f"scripts/{name}.py") for name in ("run", "bench", "audit", "predict", "export")} <= kinds


# --- README: its commands are run -------------------------------------------------------------------------------------

NOT_RUN = ("git", "cd", "source", "scripts/test")  # the first three change nothing here; the last one runs this
SHORT = "federation.num_rounds=2"


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    """One after the other, with two rounds each, in a reader's folder."""
    make_place(tmp_path)
    seen = set()
    for command in commands(ROOT / "README.md"):
        words = tuple(word for word in command.words if not word.startswith("federation.num_rounds="))
        words = ("python", "scripts/run.py", *words[1:]) if words[0] == "scripts/quickstart" else words
        if command.fenced and words[0] not in NOT_RUN and words not in seen:
            run_command(words, tmp_path)
            seen.add(words)
    assert len(seen) >= 5


def run_command(words: tuple[str, ...], place: Path) -> None:
    before = set(place.rglob("summary.json"))
    if words[:2] == ("python", "scripts/run.py"):
        finished = run_script(*words[2:], SHORT, cwd=place)
        assert finished.code == 0, finished.output
    elif words[:2] == ("flwr", "run"):
        superlink = LocalSuperLink()
        superlink.start()
        try:
            superlink.wait_until_ready()
            output, status = Flower(superlink).run(f"{SHORT} run.output_dir={place / 'flwr'}")
        finally:
            superlink.stop()
        assert status == "finished:completed", output
    else:
        assert words[0] == "scripts/deploy/local", words
        local = subprocess.run(
            [str(ROOT / words[0]), *words[1:], SHORT], cwd=place, capture_output=True, text=True, timeout=PATIENCE
        )
        assert local.returncode == 0, local.stdout + local.stderr
    assert set(place.rglob("summary.json")) > before, words
