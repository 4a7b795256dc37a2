"""Where in a person's own code an error comes from."""

import sysconfig
import traceback
from pathlib import Path

__all__ = ["raised_at"]

APP = Path(__file__).resolve().parents[2]
LONGEST = 300  # characters of an error's own text


def raised_at(error: BaseException, *, passing: str = "") -> str:
    """Kind, text, file and line of an error, in one line: of the innermost place that is not a library's.

    `passing`: the file of whoever tries the code, which is no such place.
    """
    text = " ".join(str(error).split())[:LONGEST]
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    libraries = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if (
            frame.filename != passing
            and file.is_absolute()
            and not any(file.resolve().is_relative_to(library) for library in libraries)
        ):
            shown = file.relative_to(APP) if file.is_relative_to(APP) else file
            return f"{said} ({shown}, line {frame.lineno}, in {frame.name})"
    return said
