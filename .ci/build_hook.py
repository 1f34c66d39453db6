"""Refuses to build around a contract that is not valid OpenAPI; adds it as JSON, and the version, to the wheel."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from openapi_spec_validator import OpenAPIV30SpecValidator


class ContractHook(BuildHookInterface):
    """Validates `openapi.yaml` before anything is packed; as JSON it is read thirty times as fast."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise if the contract is invalid; `version` is the kind of the wheel."""
        contract = Path(self.root, "openapi.yaml")
        if not contract.exists():  # building a wheel from an sdist that was itself checked
            contract = Path(self.root, "service", "openapi.yaml")
        document = yaml.safe_load(contract.read_text(encoding="utf-8"))
        try:
            faults = [fault.message for fault in OpenAPIV30SpecValidator(document).iter_errors()]
        except Exception as error:  # noqa: BLE001  # a reference into nowhere is raised, not listed
            faults = [str(error)]
        if faults:
            raise SystemExit(f"{contract} is not valid OpenAPI 3.0: {faults[0]}")
        if self.target_name == "wheel":
            self._directory = tempfile.TemporaryDirectory()
            packed = Path(self._directory.name, "openapi.json")
            packed.write_text(json.dumps(document), encoding="utf-8")
            build_data["force_include"][str(packed)] = "service/openapi.json"
        if self.target_name == "wheel" and version == "standard":  # and not an editable one, which has the source's
            module = Path(self._directory.name, "_version.py")
            module.write_text(f'"""The version of this build."""\n\n__version__ = "{self.metadata.version}"\n')
            build_data["force_include"][str(module)] = "service/_version.py"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the temporary file."""
        del version, build_data, artifact_path
        if self.target_name == "wheel":
            self._directory.cleanup()
