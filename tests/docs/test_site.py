"""The documentation builds as a site, without a network and without a warning."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from documentation import ROOT

LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]*\shref=\"?(?:https?:)?//")


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in (tmp_path / "site").glob("*.html")}
    for page in (tmp_path / "site").rglob("*.html"):
        assert LOADED.search(page.read_text(encoding="utf-8")) is None, page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert "url(http" not in sheet.read_text(encoding="utf-8"), sheet


def test_broken_links_and_a_page_outside_the_navigation_fail_the_build(tmp_path: Path) -> None:
    """Each is a warning of its own, and the build fails for warnings alone."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs" / "lost.md").write_text("# Lost\n")
    with (tmp_path / "docs" / "index.md").open("a", encoding="utf-8") as page:
        page.write("\n[gone](gone.md) [gone](settings.md#absent) ![gone](images/missing.png)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    for fault in ("'gone.md'", "settings.md#absent", "images/missing.png"):
        assert sum(fault in line for line in warnings) == 1, done.stderr
    assert len(warnings) == 4
    assert "lost.md" in done.stderr.partition("WARNING")[2]
