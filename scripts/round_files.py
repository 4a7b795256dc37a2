#!/usr/bin/env python3
"""Count the files that one plain round takes, from the list in docs/architecture.md.

python scripts/round_files.py          a line for each file, and the sum
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"


def round_files() -> list[Path]:
    """The files listed between the page's marks `round-files`, in reading order."""
    block = PAGE.read_text(encoding="utf-8").split("<!-- round-files -->")[1].split("<!-- /round-files -->")[0]
    return [Path(name) for name in re.findall(r"`?(fedapp/[\w/]+\.py)`?", block)]


def main() -> int:
    counts = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in round_files()}
    for file, lines in counts.items():
        print(f"{lines:5}  {file}")
    print(f"{sum(counts.values()):5}  lines in {len(counts)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
