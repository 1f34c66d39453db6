"""The version to build: that of the tag; of an sdist its own; without a tag, the one that the source names.

Hatchling runs `read_version`. A commit after the tag `v1.2.3` is `1.2.4.devN+gHASH`, where N counts the commits since.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_DESCRIBED = re.compile(r"v(?P<release>\d+\.\d+\.)(?P<patch>\d+)-(?P<commits>\d+)-g(?P<commit>[0-9a-f]+)")


def read_version(root: Path = ROOT) -> str:
    """Return the version of the checkout or sdist at `root`."""
    own = root / "PKG-INFO"
    if own.exists():
        return _find(r"^Version: (\S+)$", own)
    described = _git(root, "describe", "--tags", "--long", "--abbrev=9", "--match", "v[0-9]*.[0-9]*.[0-9]*")
    found = _DESCRIBED.fullmatch(described)
    if found is None:
        return _find(r'^    __version__ = "(\S+)"', root / "service" / "__init__.py")
    if not int(found["commits"]):
        return f"{found['release']}{found['patch']}"
    return f"{found['release']}{int(found['patch']) + 1}.dev{found['commits']}+g{found['commit']}"


def _find(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{file} names no version")
    return found[1]


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints about the repository whose top is `root`; nothing if there is none."""
    try:
        top = _run(root, "rev-parse", "--show-toplevel")
        return _run(root, *arguments) if Path(top).resolve() == root else ""
    except (OSError, subprocess.CalledProcessError):
        return ""


def _run(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
