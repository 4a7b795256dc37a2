#!/usr/bin/env python3
"""The tables of docs/experiments.md, from the committed docs/experiments/<name>.json of each.

    python scripts/experiment_tables.py                    check that the page shows what the files say
    python scripts/experiment_tables.py --write            write the tables into the page
    python scripts/experiment_tables.py --keep NAME DIR    take DIR/comparison.json as the experiment's, and write
    python scripts/experiment_tables.py --rerun NAME       run the experiment again, and compare all figures

The exit status is 1 where something differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from fedapp.report.comparison_tables import cost_rows, gain_rows, remarks, site_rows

ROOT = Path(__file__).resolve().parents[1]
PAGE, FOLDER = ROOT / "docs" / "experiments.md", ROOT / "docs" / "experiments"
MEASURED = ("seconds",)  # of the machine, not of the experiment
CLOSE = 1e-6  # figures are rounded to six places; another processor may round a step otherwise


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a comparison is committed: all but where it lay and how long its runs took."""
    found: dict[str, Any] = json.loads(json.dumps(result))
    for arm in found["arms"]:
        for run in arm["runs"]:
            run.pop("directory")
            for name in MEASURED:
                run.pop(name)
    return found


def table(result: Mapping[str, Any]) -> str:
    """Markdown."""
    parts = []
    for titles, rows in (site_rows(result), gain_rows(result), cost_rows(result)):
        lines = [titles, ["---"] * len(titles), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append(f"{result['verdict']}")
    if said := remarks(result):
        parts.append("\n".join(f"- {text}" for text in said))
    return "\n\n".join(parts)


def command(result: Mapping[str, Any], output: Path) -> list[str]:
    """What makes the same comparison."""
    plain = ("alone", "pooled", "federated")
    further = [arm["name"].replace("personal=", "federation.personal=") for arm in result["arms"]]
    extra = [part for name in further if name not in plain for part in ("--with", name)]
    seeds = ",".join(map(str, result["seeds"]))
    script = str(ROOT / "scripts" / "compare.py")
    own = [*result["overrides"], *extra, "--seeds", seeds, "--metric", result["metric"]]
    return [sys.executable, script, *own, "--draws", str(result["draws"]), "--output", str(output)]


def page_with(text: str, name: str, content: str) -> str:
    start, end = f"<!-- table {name} -->", f"<!-- /table {name} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE}: has no {start} ... {end}")
    return f"{before}{start}\n\n{content}\n\n{end}{after}"


def different(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two results differ in what follows from the experiment."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted((one.keys() | other.keys()) - set(MEASURED))
        return [line for key in keys for line in different(one.get(key), other.get(key), f"{at}.{key}".lstrip("."))]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [line for i, pair in enumerate(zip(one, other, strict=True)) for line in different(*pair, f"{at}[{i}]")]
    if isinstance(one, float) and isinstance(other, float) and abs(one - other) <= CLOSE:
        return []
    return [] if one == other else [f"{at}: {one} | {other}"]


def repeatable(result: dict[str, Any]) -> dict[str, Any]:
    """Without arms whose noise is drawn anew each time."""
    drawn = {arm["name"] for arm in result["arms"] if arm["epsilon"] is not None}
    found = {**result, "arms": [arm for arm in result["arms"] if arm["name"] not in drawn]}
    for name in ("figures", "summary", "gains", "to_pooled"):
        found[name] = {arm: values for arm, values in result[name].items() if arm not in drawn}
    return found


def rerun(name: str) -> list[str]:
    old = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command(old, Path(folder) / "out"), check=True)
        new = kept(json.loads((Path(folder) / "out" / "comparison.json").read_text("utf-8")))
    return different(repeatable(old), repeatable(new))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into the page")
    parser.add_argument("--keep", nargs=2, metavar=("NAME", "DIR"), help="take a comparison as an experiment's")
    parser.add_argument("--rerun", metavar="NAME", help="run an experiment again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.rerun:
        lines = rerun(options.rerun)
        print("\n".join(lines) or f"{options.rerun}: the same figures")
        return int(bool(lines))
    if options.keep:
        name, directory = options.keep
        FOLDER.mkdir(exist_ok=True)
        result = kept(json.loads((Path(directory) / "comparison.json").read_text("utf-8")))
        (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    text = expected = PAGE.read_text("utf-8")
    for file in sorted(FOLDER.glob("*.json")):
        expected = page_with(expected, file.stem, table(json.loads(file.read_text("utf-8"))))
    if options.write or options.keep:
        PAGE.write_text(expected, "utf-8")
        return 0
    if text != expected:
        print(f"{PAGE}: does not show what {FOLDER} says; python scripts/experiment_tables.py --write")
    return int(text != expected)


if __name__ == "__main__":
    sys.exit(main())
