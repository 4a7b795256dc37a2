"""What lies in a person's folders, without what systems and editors leave there."""

from fnmatch import fnmatch
from pathlib import Path

from fedapp.common.errors import DataError

__all__ = ["entries", "is_leaving"]

# Hidden files are, too.
LEAVINGS = ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "*~", "~$*", "*.tmp", "*.swp", "*.bak")


def is_leaving(name: str) -> bool:
    """Whether a file or folder is called as what is nobody's data, such as .DS_Store, Thumbs.db or notes.txt~."""
    return name.startswith(".") or any(fnmatch(name.lower(), pattern) for pattern in LEAVINGS)


def entries(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted by name; hidden files such as .DS_Store and other leavings are passed over."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(entry for entry in folder.iterdir() if not is_leaving(entry.name))
