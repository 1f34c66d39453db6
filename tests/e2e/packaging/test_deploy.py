"""The files of deploy/ agree with each other and with the gateway, as far as no daemon is needed to see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.documents import ROOT

from service.api.auth import Credentials
from service.cli.shared.weak_setups import list_weak_setups
from service.config.gateway import GatewayConfig
from service.config.loading import check_config_text
from service.config.source import Locations

DEPLOY = ROOT / "deploy"
PORT = 18789
VARIABLES = {"OPENCLAW_GATEWAY_TOKEN": "x" * 43, "OPENCLAW_STATE_URL": "postgresql+psycopg://u:p@h/d"}


def manifests() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def dockerfile() -> list[list[str]]:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_image_has_what_the_package_is_built_from() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert {name for name in sent if not (ROOT / name).exists()} == set()
    assert sent >= {"constraints.txt", "pyproject.toml", "openapi.yaml", "service", "handlers", ".ci/build_hook.py"}


def test_image_serves_as_an_ordinary_user() -> None:
    lines = dockerfile()
    assert [line[1] for line in lines if line[0] == "USER"] == ["10001"]
    assert [line[1] for line in lines if line[0] == "EXPOSE"] == [str(PORT)]
    [check] = [" ".join(line) for line in lines if line[0] == "HEALTHCHECK"]
    assert f"http://127.0.0.1:{PORT}/healthz" in check


def test_compose_file_names_files_that_exist() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    assert services.keys() == {"gateway", "postgres", "nginx"}
    assert services["gateway"]["build"]["dockerfile"] == "deploy/Dockerfile"
    assert services["gateway"]["command"].startswith("gateway --bind lan")
    mounted = {volume.partition(":")[0] for name in ("gateway", "nginx") for volume in services[name]["volumes"]}
    assert {name for name in mounted if not (DEPLOY / name).exists()} == {"./tls"}


def test_kubernetes_objects_refer_to_each_other() -> None:
    objects = manifests()
    assert objects.keys() == {"Secret", "ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert labels == deployment["selector"]["matchLabels"] == service["selector"]
    assert labels == objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    pod = deployment["template"]["spec"]
    [container] = pod["containers"]
    assert container["ports"] == [{"name": service["ports"][0]["targetPort"], "containerPort": PORT}]
    assert container["envFrom"] == [{"secretRef": {"name": objects["Secret"]["metadata"]["name"]}}]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes.keys() == {mount["name"] for mount in container["volumeMounts"]}
    assert volumes["config"]["configMap"] == {"name": objects["ConfigMap"]["metadata"]["name"]}
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_kubernetes_configuration_is_accepted_without_notice() -> None:
    [text] = manifests()["ConfigMap"]["data"].values()
    assert check_config_text(text, "openclaw.json", VARIABLES).notices == ()


def test_kubernetes_volumes_are_not_noted_as_open_to_other_users(tmp_path: Path) -> None:
    [container] = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    config, state = (tmp_path / name for name in ("config", "state"))
    for volume in (config, state):
        volume.mkdir()
        volume.chmod(0o2777)  # as the kubelet makes them with `fsGroup`
    data = config / "..2026_01_01"  # and this is its way to replace all files of a ConfigMap at once
    data.mkdir(mode=0o755)
    (data / "openclaw.json").write_text("{}", encoding="utf-8")
    (config / "..data").symlink_to(data.name)
    (config / "openclaw.json").symlink_to("..data/openclaw.json")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    paths = {one["name"]: Path(one["value"]) for one in container["env"]}
    locations = Locations(
        config / paths["OPENCLAW_CONFIG_PATH"].relative_to(mounts["config"]),
        state / paths["OPENCLAW_STATE_DIR"].relative_to(mounts["state"]),
        dev=False,
    )
    assert locations.config_path.exists()
    locations.state_dir.mkdir(mode=0o700, exist_ok=True)
    credentials = Credentials("token", VARIABLES["OPENCLAW_GATEWAY_TOKEN"])
    assert list_weak_setups(credentials, "127.0.0.1", locations, GatewayConfig()) == ()


def test_unit_is_valid(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "openclaw-gateway.service"
    text = (DEPLOY / unit.name).read_text(encoding="utf-8")
    assert text.count("/opt/openclaw/bin/openclaw ") == 1
    unit.write_text(text.replace("/opt/openclaw/bin/openclaw ", f"{shutil.which('true')} "), encoding="utf-8")
    checked = subprocess.run([program, "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
