"""tracker=wandb: Weights & Biases, online, or offline into the run directory for `wandb sync`."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fedapp.common.errors import ConfigError
from fedapp.tracking.tracker import AboutRun, Store, Tracker

__all__ = ["WandbTracker"]

SECONDS = 30.0  # to reach the service


@dataclass(frozen=True)
class WandbTracker(Tracker):
    """`mode`: `offline` writes into the run directory's wandb/, which `wandb sync` sends; `online` needs WANDB_API_KEY
    in the server's environment, or `wandb login` before."""

    package: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"
    project: str = "fedapp"
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"

    def check(self) -> None:
        super().check()
        if not self.project.strip():
            raise ConfigError("tracker.project: is empty; give the project a name")

    def open(self, about: AboutRun, identity: str | None) -> Store:
        return WandbStore(self, about, identity or secrets.token_hex(4))


class WandbStore:
    """Neither the terminal's output, nor code, nor the machine's load is sent: the record alone."""

    def __init__(self, tracker: WandbTracker, about: AboutRun, identity: str) -> None:
        import wandb

        self.identity = identity
        self._name = about.name
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            init_timeout=SECONDS,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run: Any = wandb.init(
            project=tracker.project,
            entity=tracker.entity,
            id=identity,
            name=about.name,
            tags=list(about.tags),
            config=dict(about.config),
            dir=str(about.directory),
            mode=tracker.mode,
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, values: Mapping[str, float], files: Sequence[Path], *, failed: bool) -> None:
        import wandb

        self._run.summary.update({f"summary/{name}": value for name, value in values.items()})
        if files:
            artifact = wandb.Artifact(f"run-{self.identity}", type="fedapp-run", description=self._name)
            for file in files:
                artifact.add_file(str(file), policy="immutable")
            self._run.log_artifact(artifact)
        self._end(int(failed))

    def close(self) -> None:
        self._end(1)

    def _end(self, status: int) -> None:
        import wandb

        self._run.finish(exit_code=status)
        wandb.teardown()  # waits for its process, which alone has the end of the run on the disk
