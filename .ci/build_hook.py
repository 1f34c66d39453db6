"""Refuses to build a wheel around a contract that is not valid OpenAPI."""

from pathlib import Path
from typing import Any

import yaml
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from openapi_spec_validator import OpenAPIV30SpecValidator


class ContractHook(BuildHookInterface):
    """Validates `openapi.yaml` before anything is packed."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise if the contract is invalid."""
        del version, build_data
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
