"""`fedapp.run(...)`: a simulation from a notebook or a script, with what came of it as tables.

The run happens in a process of its own, as `scripts/run.py` does it: nothing of it stays behind in the caller's, whose
event loop, signal handlers, random numbers and logging are left as they are.
"""

import html
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedapp.common.errors import FedappError, FederationError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    from torch import nn

__all__ = ["RunResult", "run"]

ROOT = Path(__file__).resolve().parents[2]
LAST = "run_dir="  # how the last line begins
PATIENCE = 60.0  # seconds for a run that was interrupted to end
SHOWN = ("status", "stop_reason", "rounds", "test_accuracy", "test_loss", "epsilon_max", "seconds")


@dataclass(frozen=True)
class RunResult:
    """A finished run. In Jupyter it shows its report."""

    directory: Path

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """summary.json (docs/settings.md lists its fields)."""
        from fedapp.report.read import read_run

        return read_run(self.directory).summary

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """metrics.jsonl: a row a round, indexed by it."""
        from fedapp.report.read import read_run

        return _table(read_run(self.directory).rounds).set_index("round")

    @cached_property
    def clients(self) -> "pd.DataFrame":
        """clients.jsonl: a row for each client and round; `phase` is `final` in those of the final evaluation."""
        from fedapp.report.read import read_run

        found = read_run(self.directory)
        return _table((*found.clients, *found.final))

    @cached_property
    def model(self) -> "nn.Module":
        """The run's model in evaluation mode, on the CPU. Raises ModelError for task=vertical, whose parts are the
        parties' own."""
        from fedapp.inference.saved import load_run

        return load_run(self.directory).predictor.model

    @property
    def report(self) -> Path:
        return self.directory / "report.html"

    def _repr_html_(self) -> str:
        """The report in a frame of its own, that may run nothing."""
        page = html.escape(self.report.read_text(encoding="utf-8"), quote=True)
        return f'<iframe sandbox title="report" srcdoc="{page}" style="width:100%;height:36rem;border:0"></iframe>'

    def __repr__(self) -> str:
        said = "  ".join(f"{name}={self.summary[name]}" for name in SHOWN if self.summary.get(name) is not None)
        return f"<fedapp run {self.directory}: {said}>"


def run(*overrides: str, progress: bool = True) -> RunResult:
    """Run a simulation with these overrides, as `python scripts/run.py` takes them, and wait for its end.

    Relative paths are meant from the current folder, below which, in outputs/, the run directory is made unless
    `run.output_dir` names one. With `progress` a line a round is shown, in Jupyter in one place. Raises FedappError
    with what scripts/run.py says where the run is refused or fails; on KeyboardInterrupt the run is ended, too.
    """
    for given in overrides:
        if not isinstance(given, str) or "=" not in given:
            raise FedappError(
                f"run({given!r}): is no override; give key=value, such as run('federation.num_rounds=10')"
            )
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *overrides]
    show = _shown() if progress else (lambda line: None)
    # A session of its own: Ctrl-C reaches it through us alone, once.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1].startswith("round "):
                show(lines[-1])
        process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
    return _result(lines, process.returncode)


def _result(lines: list[str], status: int) -> RunResult:
    last = lines[-1] if lines else ""
    if status or not last.startswith(LAST):
        at = next((index for index, line in enumerate(lines) if line.startswith("error: ")), max(0, len(lines) - 20))
        said = [line for line in lines[at:] if not line.startswith(LAST)]
        raise FederationError("\n".join(said).removeprefix("error: ") or f"the run ended with status {status}")
    return RunResult(Path(last.removeprefix(LAST)))


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    if process.poll() is None:
        process.kill()
        process.wait()


def _shown() -> Callable[[str], None]:
    """Where progress goes: one place of the notebook's output, or the standard output."""
    if "IPython" in sys.modules:
        from IPython import get_ipython
        from IPython.display import display

        shell = get_ipython()
        if shell is not None and hasattr(shell, "kernel"):
            place = display({"text/plain": "starting"}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
            return lambda line: place.update({"text/plain": line}, raw=True)
    return lambda line: print(line, flush=True)


def _table(rows: Any) -> "pd.DataFrame":
    try:
        import pandas
    except ImportError:
        raise FedappError("tables need pandas: install it by `pip install -e .[notebook]`") from None
    return pandas.DataFrame.from_records([dict(row) for row in rows])
