"""What follows, in words; tables; and the page of docs that shows the committed ones."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from saved_runs import ROOT, load_script

from fedapp.compare.verdict import verdict
from fedapp.report.comparison_page import write_comparison
from fedapp.report.comparison_tables import cost_rows, gain_rows, remarks, site_rows

FOLDER = ROOT / "docs" / "experiments"


def cell(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, **more}


def result() -> dict[str, Any]:
    """Three sites: federated is better at a, worse at b, and nothing can be said at c."""
    sites = [
        {"name": name, "trained_on": 70, "held_out": 30, "units": 30, "unit": "row", "remarks": []} for name in "abc"
    ]
    sites[2]["remarks"] = ["trains on one class only, 'no'"]
    undefined = cell(None, said=["auc is not defined: no example of class 'yes'"])
    figures = {
        arm: {"a": cell(at_a, at_a - 0.1, at_a + 0.1, said=[]), "b": cell(at_b, 0.6, 0.9, said=[]), "c": undefined}
        for arm, at_a, at_b in (("alone", 0.7, 0.8), ("pooled", 0.85, 0.8), ("federated", 0.8, 0.75))
    }
    arms = [
        {
            "name": arm,
            "owner": arm,
            "remarks": {},
            "notes": [],
            "steps": 10,
            "bytes": 2**20,
            "seconds": 1.0,
            "epsilon": None,
        }
        for arm in figures
    ]
    summary = {
        arm: {"mean": cell(0.75, 0.7, 0.8), "worst": {"site": "b", **cell(0.7)}, "variance": 0.0025, "sites": 2}
        for arm in figures
    }
    own = {"a": cell(0.1, 0.02, 0.2, p_holm=0.01), "b": cell(-0.05, -0.1, 0.01, p_holm=0.5)}
    return {
        **{"metric": "auc", "lower_is_better": False, "seeds": [0], "draws": 100, "overrides": ["x=1"]},
        **{"same_work": "as often", "sites": sites, "test": None, "arms": arms, "figures": figures, "summary": summary},
        "gains": {"federated": {"sites": own, "mean": cell(0.025, -0.02, 0.07)}},
        "to_pooled": {"federated": {"sites": {}, "mean": cell(-0.05, -0.1, 0.0)}},
    }


def test_the_sentence() -> None:
    assert verdict(result()) == (
        "By auc, federated beats alone at 1 of 3 sites, 1 of them beyond chance (c cannot be judged); b loses 0.050,"
        " within its interval. On average it gains +0.025 (-0.020 to +0.070) over alone, and is 0.050 worse than all"
        " data pooled (-0.100 to +0.000)."
    )
    lost = result()
    lost["gains"]["federated"]["sites"]["b"] = cell(-0.05, -0.1, -0.01, p_holm=0.01)
    assert "b loses 0.050, beyond its interval" in verdict(lost)
    nothing = result()
    nothing["gains"] = {}
    assert verdict(nothing).startswith("Nothing follows: auc of federated or of being alone is defined at no site")


def test_the_tables() -> None:
    titles, rows = site_rows(result())
    assert titles == ["site", "trained on", "held out", "alone", "pooled", "federated"]
    assert rows[0][3:] == ["0.700 (0.600-0.800)", "0.850 (0.750-0.950)", "0.800 (0.700-0.900)"]
    assert rows[2][3:] == ["-", "-", "-"]
    assert rows[-1] == ["deviation over sites", "", "", "0.050", "0.050", "0.050"]
    _, gains = gain_rows(result())
    assert gains[0] == ["a", "+0.100* (+0.020 to +0.200)"]
    assert gains[1] == ["b", "-0.050 (-0.100 to +0.010)"]
    assert cost_rows(result())[1][0] == ["alone", "10", "1.00 MiB", "1.0 s", "-"]
    more = result()
    more["arms"].append({**more["arms"][2], "name": "privacy=dp_sgd", "steps": 12.0})
    more["figures"]["privacy=dp_sgd"] = more["figures"]["federated"]
    assert remarks(more)[-1] == "privacy=dp_sgd: takes 12 gradient steps, where the federated arm takes 10"
    hidden = {**result(), "arms": [{**arm, "steps": 0} for arm in result()["arms"]]}
    assert cost_rows(hidden)[1][0][1] == "not told"
    assert remarks(result()) == [
        "c: trains on one class only, 'no'",
        "c: auc is not defined: no example of class 'yes'",  # once, for all arms
    ]


def test_the_page_escapes_what_sites_are_called(tmp_path: Path) -> None:
    evil = json.loads(json.dumps(result()).replace('"a"', '"<script>a</script>"'))
    (tmp_path / "comparison.json").write_text(json.dumps({**evil, "verdict": "<b>"}))
    page = write_comparison(tmp_path).read_text()
    assert "<script" not in page
    assert "<b>" not in page
    first = page
    assert write_comparison(tmp_path).read_text() == first


def test_docs_show_the_committed_figures(capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("experiment_tables")
    assert script.main([]) == 0, capsys.readouterr().out
    assert len(list(FOLDER.glob("*.json"))) >= 2


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_figures_are_of_the_experiment(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    name = path.stem.partition("_")[0]
    assert found["overrides"][0] == f"experiment={name}"
    page = FOLDER.with_suffix(".md").read_text("utf-8")
    assert f"python scripts/compare.py {' '.join(found['overrides'])}" in page  # as the reader is told to run it
    assert (ROOT / "conf" / "experiment" / f"{name}.yaml").is_file()
    digests = {site["name"]: [site["examples_sha256"]] for site in found["sites"]}
    for arm in found["arms"]:
        assert {name: arm["held_out_sha256"].get(name) for name in digests} == digests, arm["name"]
    assert found["verdict"] == verdict(found)
    models = {arm["name"]: [run["model_sha256"] for run in arm["runs"]] for arm in found["arms"]}
    assert models["federated"] == models.get("personal=finetune", models["federated"])


def test_differences_are_found() -> None:
    script = load_script("experiment_tables")
    one, other = result(), copy.deepcopy(result())
    assert script.different(one, other) == []
    other["arms"][0]["seconds"] = 99.0
    other["figures"]["alone"]["a"]["value"] += 1e-8
    assert script.different(one, other) == []
    other["figures"]["alone"]["a"]["value"] += 0.01
    assert script.different(one, other) == ["figures.alone.a.value: 0.7 | 0.71000001"]
