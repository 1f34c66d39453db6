"""The workflows of `docs/flows.arazzo.yaml` against a live gateway."""

from __future__ import annotations

import copy
import uuid

import httpx
import pytest
import yaml
from support.arazzo import Workflows
from support.documents import ROOT

from service.api.http.contract import load_contract

DOCUMENT = yaml.safe_load((ROOT / "docs" / "flows.arazzo.yaml").read_text(encoding="utf-8"))


def test_documented_flows_reach_their_ends(client: httpx.Client) -> None:
    workflows = Workflows(DOCUMENT, load_contract())
    inputs = {"question": "hi", "key": f"flows-{uuid.uuid4()}"}
    outputs = {name: workflows.play(name, client, inputs) for name in workflows.names}
    assert outputs["chat"] == {"text": "sunny"}
    assert outputs["run"] == {"state": "ok"}
    exported = [message["content"][0]["text"] for message in outputs["session"]["messages"]]
    assert exported == ["hi"] * 4
    assert len(workflows.played) == sum(len(one["steps"]) for one in DOCUMENT["workflows"])


def test_unmet_criterion_is_found(client: httpx.Client) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["workflows"][1]["steps"][0]["successCriteria"] = [{"condition": "$statusCode == 200"}]
    with pytest.raises(AssertionError, match="start"):
        Workflows(document, load_contract()).play("run", client, {"question": "hi"})
