"""What a device's operator decides, and what a device says of data that does not fit."""

from pathlib import Path
from typing import Any

import pytest
from deployed import Deployed, call
from in_process import InProcessGrid
from table_form import FORM

from fedapp.client.build import build_site
from fedapp.common.errors import ConfigError, DataError
from fedapp.config import compose
from fedapp.deploy.check_data import check_site
from fedapp.privacy.limits import own_limits
from fedapp.server.exchange import Exchange
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import preflight

HEADER = "age,sex,ill\n"
ROWS = "".join(f"{30 + i},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
TASK = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes]"
    " model=logistic_regression"
)
FAULTS = {
    "a missing column": (HEADER.replace("age", "years") + ROWS, "no column 'age'"),
    "other classes": (HEADER + ROWS.replace("yes", "perhaps"), "perhaps"),
    "no rows": (HEADER, "no row follows"),
}


def node(path: Path, name: str, client: int, **more: Any) -> dict[str, Any]:
    return {"data-path": str(path), "partition-id": client, "site-name": name, **more}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "good.csv").write_text(HEADER + ROWS)
    return tmp_path / "good.csv"


@pytest.mark.parametrize("kind", FAULTS)
def test_the_preflight_names_the_site_whose_data_does_not_fit(
    kind: str, good: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it is stays in that site's log."""
    table, words = FAULTS[kind]
    (tmp_path / "bad.csv").write_text(table)
    nodes = [node(good, "site-A", 0), node(tmp_path / "bad.csv", "site-B", 1), node(good, "site-C", 2)]
    grid = InProcessGrid(TASK, node_configs=nodes)
    rules = AdmissionRules(num_clients=20, min_clients=2, min_supernodes=3, wait_timeout=1, reply_timeout=1)
    found = preflight(Exchange(grid), rules)
    assert set(found.nodes) == {0, 2}
    assert found.faults == {"client 1 (site-B)": "its data does not fit the task (see the client's log)"}
    assert words in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("privacy", ["", " privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false"])
def test_the_device_says_so_before_it_connects(kind: str, privacy: str, good: Path, tmp_path: Path) -> None:
    """Under differential privacy, too, where the server is not told."""
    private = f"{privacy} data.scaling=none {FORM}" if privacy else ""
    table, words = FAULTS[kind]
    (tmp_path / "bad.csv").write_text(table)
    with pytest.raises(DataError, match=words):
        check_site(node(tmp_path / "bad.csv", "site-B", 1), TASK + private)
    assert check_site(node(good, "site-A", 0), TASK + private).startswith("data checked")


@pytest.mark.slow
def test_the_command_refuses_such_data(good: Path, tmp_path: Path) -> None:
    federation = Deployed(tmp_path / "federation", "site-A")
    (tmp_path / "bad.csv").write_text(FAULTS["a missing column"][0])
    arguments = ["--folder", str(federation.root / "site-A"), "--data", str(tmp_path / "bad.csv")]
    done = call("supernode", *arguments, "--task", TASK)
    assert done.code == 2
    assert "bad.csv: no column 'age'" in done.output
    assert "Traceback" not in done.output
    assert not (federation.root / "site-A" / "state").exists()
    done = call("supernode", *arguments[:2], "--data", str(tmp_path / "none.csv"))
    assert (done.code, "none.csv: no such file" in done.output) == (2, True)
    done = call("supernode", *arguments, "--max-epsilon", "-1")
    assert (done.code, "max-epsilon=-1.0" in done.output) == (2, True)


@pytest.mark.parametrize(("server", "own", "expected"), [(None, 3, 3), (5, 3, 3), (2, 3, 2), (5, None, 5)])
def test_the_shorter_time_counts(server: float | None, own: float | None, expected: float, good: Path) -> None:
    limits = own_limits(node(good, "site-A", 0, **({} if own is None else {"max-seconds": own})))
    config = compose([*TASK.split(), f"train.max_seconds={'null' if server is None else server}"])
    site = build_site(config, good, limits)
    assert site.protection.training.max_seconds == expected  # type: ignore[attr-defined]


def test_a_bound_on_time_is_refused_where_it_would_tell_of_the_data(good: Path) -> None:
    private = f"privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false data.scaling=none {FORM}"
    with pytest.raises(ConfigError, match="max-seconds=3"):
        build_site(
            compose([*TASK.split(), *private.split()]), good, own_limits(node(good, "A", 0, **{"max-seconds": 3}))
        )


@pytest.mark.parametrize("value", [0, -1, "soon", float("inf")])
def test_a_bound_that_is_none_is_refused(value: float | str, good: Path) -> None:
    with pytest.raises(ConfigError, match="max-seconds"):
        own_limits(node(good, "A", 0, **{"max-seconds": value}))
