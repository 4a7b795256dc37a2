"""Runs on data that does not define a metric: said, never compared."""

from pathlib import Path

import pytest
from in_process import run_in_process
from secure_runs import lines, summary

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.server.check_config import check_config

TABLE = "a,b,kind\n" + "".join(f"{i % 7},{i % 5},{'xyz'[i % 3]}\n" for i in range(120))
NO_Z = "a,b,kind\n" + "".join(f"{i % 7},{i % 5},{'xy'[i % 2]}\n" for i in range(30))


@pytest.fixture
def overrides(tmp_path: Path) -> str:
    (tmp_path / "train.csv").write_text(TABLE)
    (tmp_path / "test.csv").write_text(NO_Z)
    return (
        f"data=csv data.path={tmp_path / 'train.csv'} data.test_path={tmp_path / 'test.csv'} data.label=kind"
        " data.numeric=[a,b] data.categorical={} data.classes=[x,y,z] model=logistic_regression partition=iid"
        " federation.num_clients=3 federation.fraction_train=1 task.metrics=[auc,auc_present]"
    )


def test_an_auc_with_a_class_absent_is_said_and_does_not_end_the_run(tmp_path: Path, overrides: str) -> None:
    run = run_in_process(tmp_path / "run", f"{overrides} federation.num_rounds=4 federation.patience=3")
    for line in lines(run, "metrics.jsonl"):
        assert line["test_auc"] is None
        assert line["test_auc_present"] > 0
    assert summary(run)["rounds"] == 4
    said = "test_auc is not defined on the server's test data: no example of class 'z' (in 4 rounds)"
    assert said in summary(run)["warnings"]


def test_patience_on_it_is_refused_before_anything_starts(overrides: str) -> None:
    with pytest.raises(ConfigError, match=r"federation.patience_metric=auc: .*no example of class 'z'.*auc_present"):
        check_config(compose(f"{overrides} federation.patience_metric=auc".split()))
    check_config(compose(f"{overrides} federation.patience_metric=auc_present".split()))


def test_validation_splits_that_define_it_on_no_client_do_not_end_a_run_by_patience(
    tmp_path: Path, overrides: str
) -> None:
    """One class a client, and no data on the server."""
    alone = overrides.replace("partition=iid", "partition=pathological partition.num_classes_per_partition=1")
    alone = alone.replace(f"data.test_path={tmp_path / 'test.csv'}", "data.test_fraction=0")
    run = run_in_process(
        tmp_path / "run", f"{alone} federation.num_rounds=4 federation.patience=2 federation.patience_metric=auc"
    )
    assert summary(run)["rounds"] == 4
    assert summary(run)["best_auc"] is None
    assert (
        "val_auc is not defined on the validation split of any client that replied (in 4 rounds)"
        in (summary(run)["warnings"])
    )
    assert {row["val_auc"] for row in lines(run, "clients.jsonl")} == {None}
