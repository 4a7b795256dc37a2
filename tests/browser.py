"""A headless Chromium for tests, where there is one: named by FEDAPP_CHROMIUM, on the PATH, or Playwright's own."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["browser"]

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = ["--no-sandbox", "--no-zygote", "--disable-gpu", "--disable-dev-shm-usage"]  # as in a container


@contextmanager
def browser() -> Iterator[Any]:
    """Skips the test where Playwright or a browser is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright and a Chromium")
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        given = os.environ.get("FEDAPP_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
        if given is None and not own.exists():
            pytest.skip("no Chromium: set FEDAPP_CHROMIUM, or `playwright install chromium`")
        # A browser that was unpacked into a folder of its own has its libraries there.
        beside = {"LD_LIBRARY_PATH": f"{Path(given).parent / 'lib'}:{Path(given).parent}"} if given else {}
        opened = playwright.chromium.launch(
            executable_path=given, args=ARGUMENTS, env={**os.environ, **beside}, timeout=60000
        )
        try:
            yield opened
        finally:
            opened.close()
