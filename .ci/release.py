"""Build a release into dist/ and check it: `tox -e release`, on a clean commit with a tag such as v1.2.3.

There are the sdist, the wheel that is built from it, a list of what the gateway needs (CycloneDX) and the changes.
`--rehearse` does the same without a tag.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from sbom import write_sbom
from version import ROOT, read_version

DIST = ROOT / "dist"


def run(*command: str | Path) -> str:
    """Run a program and return what it prints; ends this one with its status if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{command[0]} {' '.join(map(str, command[1:]))} failed")
    return done.stdout


def changes_of(heading: str) -> str:
    """Return the section of the changelog with this heading. Ends the program if it is missing or empty."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    pattern = rf"^## {re.escape(heading)}(?: - \d{{4}}-\d\d-\d\d)?\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        sys.exit(f'CHANGELOG.md has no section "## {heading}", or it is empty')
    return found[1].strip() + "\n"


def check_commit(version: str) -> None:
    """End the program unless the commit is clean and tagged with `version`."""
    if run("git", "status", "--porcelain").strip():
        sys.exit("there are changes that are not committed")
    if f"v{version}" not in run("git", "tag", "--points-at", "HEAD").split():
        sys.exit(f"this commit has no tag such as v1.2.3 (its version would be {version})")


def check_sdist(path: Path) -> None:
    """End the program if a file of the repository that a build reads is missing."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "openapi.yaml", "CHANGELOG.md", "LICENSE", "service/__init__.py", ".ci/build_hook.py"}
    if missing := wanted - names:
        sys.exit(f"{path.name} lacks {', '.join(sorted(missing))}")


def check_wheel(path: Path, version: str) -> None:
    """Install the wheel with the pinned requirements, and ask the program for its version and its configuration."""
    if f'__version__ = "{version}"' not in zipfile.ZipFile(path).read("service/_version.py").decode():
        sys.exit(f"{path.name} says another version than {version}")
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python, openclaw = Path(directory, "bin", "python"), Path(directory, "bin", "openclaw")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "constraints.txt")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", path)
        run(python, "-m", "pip", "check")
        if version not in run(openclaw, "--version"):
            sys.exit("the installed program has another version")
        run(openclaw, "config", "schema")


def main() -> None:
    """Build, check and list what was built."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="do without a tag and a changed heading")
    is_rehearsal = parser.parse_args().rehearse
    version = read_version()
    if not is_rehearsal:
        check_commit(version)
    changes = changes_of("Unreleased" if is_rehearsal else version)
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", DIST)
    [sdist], [wheel] = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    check_sdist(sdist)
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    write_sbom(version)
    check_wheel(wheel, version)
    (DIST / "CHANGES.md").write_text(changes, encoding="utf-8")
    files = sorted(path for path in DIST.iterdir() if path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (DIST / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(f"openclaw-gateway {version}\n{sums}", end="")


if __name__ == "__main__":
    main()
