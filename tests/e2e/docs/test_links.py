"""Links, anchors and paths in the documents lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.documents import DOCUMENTS, ROOT, without_blocks

_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:service|handlers|tests|docs|examples|\.ci)/[\w./-]*|(?:\w+/)*\w+\.py")
_README_LINES = 200


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    anchors: set[str] = set()
    for match in _HEADING.finditer(without_blocks(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"])
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = sum(1 for anchor in anchors if anchor == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", anchor))
        anchors.add(f"{slug}-{number}" if number else slug)
    return anchors


def problems_of(path: Path, root: Path = ROOT) -> list[str]:
    """The relative links of a document that lead nowhere in `root`."""
    found = []
    for match in _LINK.finditer(without_blocks(path)):
        target, _, anchor = match["target"].partition("#")
        if target.startswith(("https://", "http://")):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or not file.is_relative_to(root):
            found.append(f"{match['target']}: there is no such file")
        elif anchor and anchor not in anchors_of(file):
            found.append(f"{match['target']}: there is no such heading")
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_and_anchors_of_document_exist(path: Path) -> None:
    assert problems_of(path) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_paths_named_in_document_exist(path: Path) -> None:
    named = {code for code in _CODE.findall(without_blocks(path)) if _PATH.fullmatch(code)}
    assert [code for code in sorted(named) if not is_path(code)] == []


def is_path(code: str) -> bool:
    """Return True if `code` is a path in the project, one in `service/`, or the name of a module there."""
    if "/" not in code:
        return any((ROOT / "service").rglob(code))
    return (ROOT / code).exists() or (ROOT / "service" / code).exists()


def test_readme_is_short() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= _README_LINES


def test_every_page_is_linked_from_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")]
    assert [page for page in pages if f"({page}" not in readme] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](absent.md)", "absent.md: there is no such file"),
        ("[a](other.md#absent)", "other.md#absent: there is no such heading"),
        ("[a](#absent)", "#absent: there is no such heading"),
    ],
)
def test_broken_link_is_found(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "other.md").write_text("# Present\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    assert problems_of(page, tmp_path) == [problem]
