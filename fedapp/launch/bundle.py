"""The files of this app's bundle by themselves, since `flwr run` looks at every file below the folder it is given.

Among them a virtual environment with its tens of thousands, which costs seconds a run. The bundle, and so its hash and
its signature, are the same.
"""

import shutil
import tomllib
from pathlib import Path

__all__ = ["APP", "stage_app"]

APP = Path(__file__).resolve().parents[2]
ALWAYS = ("pyproject.toml", ".gitignore")  # what Flower makes a bundle from, besides `fab-include`


def stage_app(into: Path, app: Path = APP) -> Path:
    """Copy what goes into the bundle of `app` to the new folder `into`, and return the folder to run.

    That is `app` itself where pyproject.toml names files of any folder: by a pattern without a slash, or by no pattern.
    """
    settings = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    patterns = settings.get("fab-include", [])
    if not patterns or not all("/" in pattern for pattern in patterns):
        return app
    for pattern in (*ALWAYS, *patterns):
        for file in app.glob(pattern.lstrip("/")):
            if file.is_file() and not file.is_symlink():  # Flower takes no links
                copy = into / file.relative_to(app)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    return into
