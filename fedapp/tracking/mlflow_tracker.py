"""tracker=mlflow: an MLflow tracking server, or a folder of files."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from fedapp.common.errors import ConfigError
from fedapp.tracking.tracked_run import flat
from fedapp.tracking.tracker import AboutRun, Store, Tracker

__all__ = ["MlflowTracker"]

MOST_METRICS, MOST_PARAMS, LONGEST = (
    1000,
    100,
    500,
)  # of a call, and characters of a value: MLflow's own limits
# A server that is away costs seconds, not the minutes of MLflow's default.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
# A folder of files is asked for by its path: MLflow 3 wants to hear that this is meant.
FILE_STORE = {"MLFLOW_ALLOW_FILE_STORE": "true"}


@dataclass(frozen=True)
class MlflowTracker(Tracker):
    """`uri`: as MLflow takes it: http(s)://..., or file:/absolute/path. null: MLFLOW_TRACKING_URI, or else the folder
    ~/fedapp-runs/mlruns. A user's name and password belong into MLFLOW_TRACKING_USERNAME and _PASSWORD."""

    package: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"
    uri: str | None = None
    experiment: str = "fedapp"

    def check(self) -> None:
        super().check()
        # Overrides go to every client, and into config.yaml.
        if self.uri is not None and urlsplit(self.uri).password is not None:
            raise ConfigError(
                "tracker.uri: holds a password, which every client would be sent; set MLFLOW_TRACKING_USERNAME and"
                " MLFLOW_TRACKING_PASSWORD in the server's environment instead"
            )
        if not self.experiment.strip():
            raise ConfigError("tracker.experiment: is empty; give the experiment a name")

    def open(self, about: AboutRun, identity: str | None) -> Store:
        return MlflowStore(self._place(), self.experiment, about, identity)

    def _place(self) -> str:
        given = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        return given or (Path.home() / "fedapp-runs" / "mlruns").as_uri()


class MlflowStore:
    """By MLflow's client: no run of it becomes the process's own."""

    def __init__(self, uri: str, experiment: str, about: AboutRun, identity: str | None) -> None:
        with _settings():
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=uri)
            if identity is not None:
                self.identity = identity
                self._client.update_run(identity, status="RUNNING")
                return
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
            tags = {"fedapp.run_directory": str(about.directory), **{f"fedapp.tag.{tag}": "true" for tag in about.tags}}
            made = self._client.create_run(number, run_name=about.name, tags=tags)
            self.identity = str(made.info.run_id)
            self._log_params(about.config)

    def log(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _settings():
            metrics = [Metric(_name(name), value, now, step) for name, value in values.items()]
            for start in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(self.identity, metrics=metrics[start : start + MOST_METRICS])

    def finish(self, values: Mapping[str, float], files: Sequence[Path], *, failed: bool) -> None:
        with _settings():
            for name, value in values.items():
                self._client.set_tag(self.identity, f"summary.{_name(name)}", repr(value))
            for file in files:
                self._client.log_artifact(self.identity, str(file))
            self._client.set_terminated(self.identity, "FAILED" if failed else "FINISHED")

    def close(self) -> None:
        with _settings():
            self._client.set_terminated(self.identity, "KILLED")

    def _log_params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(name), str(value)[:LONGEST]) for name, value in flat(config).items()]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self.identity, params=params[start : start + MOST_PARAMS])


def _name(name: str) -> str:
    """As MLflow allows it: of letters, digits, and _ - . / and spaces."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


@contextmanager
def _settings() -> Iterator[None]:
    """MLflow's settings that are those of the environment, unless that has its own."""
    mine = {name: value for name, value in {**PATIENCE, **FILE_STORE}.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)
