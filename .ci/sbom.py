"""Write the list of what a gateway needs (CycloneDX): the packages of constraints.txt, and the libraries of the page.

`tox -e sbom` and `tox -e release` run it.
"""

import json
import subprocess
import sys
from typing import Any

from version import ROOT, read_version

SBOM = ROOT / "dist" / "openclaw-gateway.cdx.json"
_LIBRARIES = ROOT / "service" / "api" / "control_ui" / "vendor" / "libraries.json"


def write_sbom(version: str) -> None:
    """Write `SBOM` for the gateway's `version`; ends the program if cyclonedx-py fails."""
    SBOM.parent.mkdir(exist_ok=True)
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "--output-file", str(SBOM))
    done = subprocess.run(["cyclonedx-py", "requirements", *options, "constraints.txt"], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit("cyclonedx-py failed")
    found = json.loads(SBOM.read_text(encoding="utf-8"))
    found["metadata"]["component"]["version"] = version
    libraries = [_to_component(one) for one in json.loads(_LIBRARIES.read_text(encoding="utf-8"))]
    found["components"] += libraries
    found["dependencies"] += [{"ref": one["bom-ref"]} for one in libraries]
    SBOM.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _to_component(library: dict[str, str]) -> dict[str, Any]:
    """Describe a library that is in the wheel, as npm has it."""
    name, version = library["name"], library["version"]
    return {
        "bom-ref": f"page-{name}",
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:npm/{name}@{version}",
        "description": "in the wheel, for the page for people",
        "licenses": [{"license": {"id": library["license"]}}],
        "hashes": [{"alg": "SHA-256", "content": library["sha256"]}],
    }


if __name__ == "__main__":
    write_sbom(read_version())
