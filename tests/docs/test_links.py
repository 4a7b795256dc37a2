"""Links and paths in the documentation lead somewhere, on a repository's page as on the site."""

import re
from pathlib import Path

import pytest
from documentation import FENCE, PAGES, ROOT, shown_files

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", flags=re.MULTILINE)
# A path in the text, or one that opens a line of a listing.
SPAN = re.compile(r"`((?:fedapp|conf|scripts|tests|docs)/[\w./-]*)`")
LISTED = re.compile(r"^((?:fedapp|conf|scripts|tests)/[\w./-]+)", flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as repository pages make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text)]
    return {heading.strip().replace(" ", "-") for heading in plain}


def wrong_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    wrong = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert wrong_links(page) == []


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[good](#a-heading) [wrong](#another) [gone](gone.md) [far](https://example.org)\n")
    assert wrong_links(page) == ["#another", "gone.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    added = {name for other in PAGES for name in shown_files(other)}
    listings = "".join(block for _, block in FENCE.findall(text))
    found = {*SPAN.findall(text), *LISTED.findall(listings)} - added
    assert {name for name in found if not (ROOT / name).exists()} == set()
