"""The same held-out rows in every arm, whoever the sites are, and what is said of odd ones."""

from pathlib import Path

import pytest
import torch

from fedapp.common.errors import DataError
from fedapp.compare.held_out_rows import Sites, sites_of
from fedapp.config import compose
from fedapp.data.source import Examples
from fedapp.server.check_config import check_config

TABLE = "data=csv data.label=y model=logistic_regression data.group=site partition=natural data.test_fraction=0"


def write(path: Path) -> str:
    """Sites: `big` has both classes, `one` a single class, `tiny` two rows, `blind` no value of b."""
    rows = [f"big,{i},{i % 7},{'yes' if i % 3 else 'no'},p{i // 4}" for i in range(80)]
    rows += [f"blind,{i},,{'yes' if i % 2 else 'no'},q{i // 3}" for i in range(30)]
    rows += [f"one,{i},{i % 5},yes,r{i}" for i in range(30)]
    rows += [f"tiny,{i},{i % 5},{'yes' if i % 2 else 'no'},s{i}" for i in range(2)]
    path.write_text("site,a,b,y,patient\n" + "\n".join(rows) + "\n")
    return f"{TABLE} data.path={path} data.missing=mean federation.num_clients=4 train.val_fraction=0.3"


def made(overrides: str) -> Sites:
    checked = check_config(compose(overrides.split()))
    return sites_of(checked.config, checked.parts, checked.test)


def rows(examples: Examples) -> list[tuple[float, ...]]:
    return [tuple(row) for row in examples.inputs.nan_to_num(-1).tolist()]


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return made(f"{write(tmp_path / 't.csv')} data.ignore=[patient]")


def test_all_arms_train_on_the_same_rows(sites: Sites) -> None:
    each = [rows(sites.of(site)) for site in range(4)]
    pool, spans = sites.federated()
    assert [rows(pool.span(start, middle)) for start, middle, _ in spans] == each
    assert [rows(sites.alone(site)[0]) for site in range(4)] == each
    assert rows(sites.pooled()[0]) == [row for own in each for row in own]
    assert [len(own) for own in each] == [one.trained_on for one in sites.judged]


def test_no_arm_has_a_row_that_is_held_out(sites: Sites) -> None:
    """Rows of a site differ in a: what is held out and what is trained on are all of them, each once."""
    for site, one in enumerate(sites.judged):
        kept, held = rows(sites.of(site)), rows(one.examples)
        assert not set(kept) & set(held)
        assert len({*kept, *held}) == {"big": 80, "blind": 30, "one": 30, "tiny": 2}[one.name]
        assert all((row[1] == -1) == (one.name == "blind") for row in [*kept, *held])  # and no row of another site
    for split in (sites.pooled(), sites.federated(), sites.alone(0)):
        assert all(middle == end for _, middle, end in split[1])  # nor a validation split


def test_sites_have_the_names_of_their_column(sites: Sites) -> None:
    assert [one.name for one in sites.judged] == ["big", "blind", "one", "tiny"]
    digits = made("model=logistic_regression partition=iid federation.num_clients=3 train.val_fraction=0.3")
    assert [one.name for one in digits.judged] == ["site 0", "site 1", "site 2"]
    assert digits.test is not None
    assert digits.test.unit == "row"


def test_whatever_is_odd_with_a_site_is_said(sites: Sites) -> None:
    said = {one.name: "; ".join(one.remarks) for one in sites.judged}
    assert said["big"] == ""
    assert said["blind"] == "has no value of b"
    assert said["one"] == "trains on one class only, 'yes'"
    assert "trains on 2 rows only" in said["tiny"]
    assert "is not judged: too few rows to hold one out" in said["tiny"]


def test_the_unit_is_what_no_split_separates(tmp_path: Path) -> None:
    found = made(f"{write(tmp_path / 't.csv')} data.split_by=patient")
    big = next(one for one in found.judged if one.name == "big")
    assert (big.unit, len(big.units)) == ("group", len(big.examples) // 4)
    values = big.examples.inputs[:, 0]
    assert all(len({int(value) // 4 for value in values[unit].tolist()}) == 1 for unit in big.units)
    by_time = made(f"{write(tmp_path / 't.csv')} data.ignore=[patient] data.split_time=a")
    assert {one.unit for one in by_time.judged} == {"row"}  # every row of a site has another time
    latest = next(one for one in by_time.judged if one.name == "one")
    assert latest.units


def test_nothing_to_judge_on_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("site,a,y\n" + "".join(f"{site},{i},{'no' if i else 'yes'}\n" for site in "uv" for i in range(3)))
    with pytest.raises(DataError, match=r"train.val_fraction=0.3: leaves no site a row to be judged on"):
        made(f"{TABLE} data.path={path} federation.num_clients=2 train.val_fraction=0.3")


def test_units_cover_all_held_out_rows_once(sites: Sites) -> None:
    for one in sites.judged:
        rows = torch.cat(list(one.units)) if one.units else torch.tensor([], dtype=torch.int64)
        assert sorted(rows.tolist()) == list(range(len(one.examples)))
