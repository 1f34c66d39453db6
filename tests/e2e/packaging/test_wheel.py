"""The wheel as it is built from the checkout: what is in it, what is not, and which contract it refuses to carry."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PathDistribution
from pathlib import Path

import orjson
import pytest
import yaml

from service.storage.database.schema import HEAD

CHECKOUT = Path(__file__).parents[3]
PACKAGES = ("service", "handlers")
PAGES = [CHECKOUT / "service" / "api" / name for name in ("control_ui", "docs_page")]


def build(source: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Build the wheel of `source` into `directory`, with the back end that pyproject.toml names and no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    directory = tmp_path_factory.mktemp("wheel")
    run = build(CHECKOUT, directory)
    assert run.returncode == 0, run.stdout + run.stderr
    [path] = directory.iterdir()
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def dist_info(wheel: zipfile.ZipFile) -> str:
    [name] = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    return name


@pytest.fixture
def distribution(wheel: zipfile.ZipFile, dist_info: str) -> PathDistribution:
    return PathDistribution(zipfile.Path(wheel, f"{dist_info}/"))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of what a build reads, to be changed."""
    copy = tmp_path / "sources"
    for name in (*PACKAGES, ".ci"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "openapi.yaml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    return copy


def test_the_contract_is_inside_once_and_unchanged(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if name.endswith("openapi.yaml")] == ["service/openapi.yaml"]
    contract = wheel.read("service/openapi.yaml")
    assert contract == (CHECKOUT / "openapi.yaml").read_bytes()
    assert orjson.loads(wheel.read("service/openapi.json")) == yaml.safe_load(contract)


def test_every_module_is_inside_and_nothing_else(wheel: zipfile.ZipFile, dist_info: str) -> None:
    modules = {path.relative_to(CHECKOUT).as_posix() for name in PACKAGES for path in (CHECKOUT / name).rglob("*.py")}
    packed = {name for name in wheel.namelist() if not name.startswith(f"{dist_info}/")}
    files = [path for page in PAGES for path in page.rglob("*") if path.suffix not in (".py", ".pyc", "")]
    pages = {path.relative_to(CHECKOUT).as_posix() for path in files}
    others = {"service/openapi.yaml", "service/openapi.json", "service/_version.py", "pytest_openclaw.py"}
    assert packed == modules - {"service/server/pytest_plugin.py"} | pages | others


MIGRATING_PROGRAM = """
import sys
from pathlib import Path
from service.storage.database.open import open_file
open_file(Path(sys.argv[1])).close()
print(sys.modules["service"].__file__)
"""


def test_the_migrations_are_inside_and_found(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", MIGRATING_PROGRAM, str(tmp_path / "made.sqlite")]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).is_relative_to(tmp_path / "installed")
    with closing(sqlite3.connect(tmp_path / "made.sqlite")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_metadata_lists_version_and_requirements(wheel: zipfile.ZipFile, distribution: PathDistribution) -> None:
    metadata = distribution.metadata
    assert metadata["Name"] == "openclaw-gateway"
    assert f'__version__ = "{metadata["Version"]}"' in wheel.read("service/_version.py").decode()
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(requirement.startswith("connexion<3,>=2.15") for requirement in distribution.requires or ())
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_licence_comes_with_its_text(
    wheel: zipfile.ZipFile, distribution: PathDistribution, dist_info: str
) -> None:
    assert distribution.metadata["License-Expression"] == "MIT AND BSD-3-Clause AND Apache-2.0"
    libraries = [path.relative_to(CHECKOUT).as_posix() for path in sorted(PAGES[0].glob("vendor/LICENSE.*"))]
    assert len(libraries) == 3
    assert distribution.metadata.get_all("License-File") == ["LICENSE", *libraries]
    for name in ("LICENSE", *libraries):
        assert wheel.read(f"{dist_info}/licenses/{name}") == (CHECKOUT / name).read_bytes()


def test_the_command_is_openclaw(distribution: PathDistribution) -> None:
    [command] = distribution.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("openclaw", "service.__main__:main")


TEST_OF_A_PROJECT = """
import urllib.request
import handlers
from service.maths import double

def test_mock(openclaw_mock):
    assert double(2) == handlers.FOUR
    headers = {"Authorization": f"Bearer {openclaw_mock.token}"}
    with urllib.request.urlopen(urllib.request.Request(f"{openclaw_mock.base_url}/models", headers=headers)) as answer:
        assert answer.status == 200
"""


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel; what that needs is in the environment of the tests."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    wheel.extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "python"


@pytest.mark.parametrize("options", [["-m"], ["-P", "-m"]], ids=["python -m pytest", "pytest"])
@pytest.mark.parametrize("on_path", [True, False], ids=["PYTHONPATH", "plain"])
def test_plugin_works_in_a_project_with_packages_of_the_same_names(
    installed: Path, tmp_path: Path, options: list[str], *, on_path: bool
) -> None:
    for name, text in (("service", ""), ("handlers", "FOUR = 4")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "service" / "maths.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_maths.py").write_text(TEST_OF_A_PROJECT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path)} if on_path else {}
    command = [str(installed), *options, "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr


def test_invalid_contract_fails_build_with_reason(sources: Path, tmp_path: Path) -> None:
    contract = sources / "openapi.yaml"
    text = contract.read_text(encoding="utf-8")
    assert text.count("operationId: get_health\n") == 1
    contract.write_text(text.replace("operationId: get_health\n", "operationId: [get_health]\n"), encoding="utf-8")
    run = build(sources, tmp_path / "dist")
    assert run.returncode != 0
    assert re.search("get_health.* is not of type .string", run.stderr), run.stderr
    assert list(tmp_path.glob("dist/*.whl")) == []


def test_a_contract_that_refers_to_nothing_is_not_built(sources: Path, tmp_path: Path) -> None:
    contract = sources / "openapi.yaml"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(text.replace('schemas/Readiness"', 'schemas/Absent"'), encoding="utf-8")
    run = build(sources, tmp_path / "dist")
    assert run.returncode != 0
    assert re.search("schemas/Absent.? does not exist", run.stderr), run.stderr


def version_of(root: Path) -> str:
    code = "import sys; sys.path.insert(0, sys.argv[1] + '/.ci'); import version; print(version.read_version())"
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_version_is_that_of_the_tag_the_sdist_or_the_source(sources: Path) -> None:
    def git(*arguments: str) -> None:
        name = ("-c", "user.name=n", "-c", "user.email=n@example.com")
        subprocess.run(["git", *name, *arguments], cwd=sources, capture_output=True, check=True)

    assert version_of(sources) == "0.1.0"
    git("init")
    git("commit", "--allow-empty", "--message", "first")
    assert version_of(sources) == "0.1.0"
    git("tag", "--annotate", "v1.2.3", "--message", "a release")
    assert version_of(sources) == "1.2.3"
    git("commit", "--allow-empty", "--message", "second")
    assert re.fullmatch(r"1\.2\.4\.dev1\+g[0-9a-f]{9}", version_of(sources))
    (sources / "PKG-INFO").write_text("Metadata-Version: 2.4\nVersion: 7.0.0\n")
    assert version_of(sources) == "7.0.0"
