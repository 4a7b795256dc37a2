"""Changes to lines that hold a promise of docs/security.md, each with a test that must fail then.

A module of this package is a list `MUTANTS`; a new one is found by itself.
"""

from importlib import import_module
from pkgutil import iter_modules

from mutants.mutant import Mutant

__all__ = ["Mutant", "every_mutant"]


def every_mutant() -> dict[str, list[Mutant]]:
    """By module of this package, its mutants."""
    names = sorted(module.name for module in iter_modules(__path__) if module.name not in ("mutant", "trial"))
    return {name: list(import_module(f"mutants.{name}").MUTANTS) for name in names}
