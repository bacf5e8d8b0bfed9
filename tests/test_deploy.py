"""Would what is in ``deploy/`` start? As far as shows without a cluster: schemas, and what must agree with what."""

import json
import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from index.location import MilvusAddress

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KINDS = ("folder", "milvus")
PORT = int(re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)[0])


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yaml").read_text()))


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("service", *KINDS):
        for document in documents(name):
            yield f"{name}-{document['kind']}", document


def deployment(kind: str) -> dict[str, Any]:
    (found,) = documents(kind)
    return found


def pod(kind: str) -> dict[str, Any]:
    return deployment(kind)["spec"]["template"]["spec"]


def container(kind: str) -> dict[str, Any]:
    (found,) = pod(kind)["containers"]
    return found


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents("service") if document["kind"] == kind]
    return found


@pytest.mark.parametrize("manifest", [pytest.param(document, id=name) for name, document in manifests()])
@pytest.mark.parametrize("version", ["1.30", "1.37"])  # the first with preStop's sleep switched on, and the newest
def test_manifests_have_the_shape_that_kubernetes_wants(manifest: dict[str, Any], version: str) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs its schemas: pip install '.[scale]'")
    assert kubernetes.validate(manifest, version, strict=True) == version
    misspelt = deepcopy(manifest) | {"metadta": {}}
    with pytest.raises(kubernetes.ValidationError, match="metadta"):
        kubernetes.validate(misspelt, version, strict=True)


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/compose.yaml"])
def test_compose_files_have_the_shape_that_compose_wants(file: str) -> None:
    pytest.importorskip("check_jsonschema", reason="needs its schema: pip install '.[scale]'")
    from importlib.resources import files

    from jsonschema.validators import validator_for

    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    validator = validator_for(schema)(schema)
    written = yaml.safe_load((ROOT / file).read_text())
    assert [error.message for error in validator.iter_errors(written)] == []
    written["services"]["dse"]["helthcheck"] = {}
    assert "helthcheck" in " ".join(error.message for error in validator.iter_errors(written))


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_such_as_the_service_takes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets stand for a key that is long enough."""
    given = {entry["name"]: entry.get("value", "k" * 32) for entry in container(kind)["env"]}
    assert all(name.removeprefix("DSE_").lower() in Settings.model_fields for name in given)
    settings = read_as_settings(given, monkeypatch)
    assert settings.read_only is (kind == "folder")
    mounts = {mount["name"]: mount for mount in container(kind)["volumeMounts"]}
    if kind == "folder":
        assert mounts["index"] == {"name": "index", "mountPath": str(settings.index), "readOnly": True}
    else:
        assert isinstance(settings.index, MilvusAddress)
        assert "index" not in mounts


@pytest.mark.parametrize("file", ["compose.yaml", "deploy/compose.yaml"])
def test_settings_of_compose_files_too(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = yaml.safe_load((ROOT / file).read_text())["services"]["dse"]["environment"]
    given = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value) for name, value in environment.items()}
    assert all(name.removeprefix("DSE_").lower() in Settings.model_fields for name in given)
    index = read_as_settings(given, monkeypatch).index
    if file.startswith("deploy"):
        assert isinstance(index, MilvusAddress)
        assert index.host in compose()["services"]


def read_as_settings(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize("kind", KINDS)
def test_ports_probes_and_routes_are_the_services_own(kind: str) -> None:
    (port,) = container(kind)["ports"]
    assert port == {"name": of_kind("Service")["spec"]["ports"][0]["targetPort"], "containerPort": PORT}
    routes = set(json.loads((ROOT / "docs/openapi.json").read_text())["paths"])
    probes = {name: container(kind)[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {probe["path"] for probe in probes.values()} <= routes
    assert {probe["port"] for probe in probes.values()} == {port["name"]}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_selects_the_same_pods(kind: str) -> None:
    spec = deployment(kind)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    budget, scaler = of_kind("PodDisruptionBudget")["spec"], of_kind("HorizontalPodAutoscaler")["spec"]
    for selector in (spec["selector"], budget["selector"], spread["labelSelector"]):
        assert selector == {"matchLabels": labels}
    assert of_kind("Service")["spec"]["selector"] == labels
    target = scaler["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (deployment(kind)["apiVersion"], deployment(kind)["kind"])
    assert target["name"] == deployment(kind)["metadata"]["name"]
    assert "replicas" not in spec  # an apply would undo what the autoscaler did
    assert budget["minAvailable"] < scaler["minReplicas"]  # else a node could never be drained
    assert "cpu" in container(kind)["resources"]["requests"]  # which utilisation is a share of


@pytest.mark.parametrize("kind", KINDS)
def test_a_stop_has_the_time_it_needs(kind: str) -> None:
    sleep = container(kind)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = Settings.model_fields["drain"].default
    assert pod(kind)["terminationGracePeriodSeconds"] > sleep + drain
    assert int(compose()["services"]["dse"]["stop_grace_period"].removesuffix("s")) > drain


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_as_the_images_user_and_may_do_nothing_else(kind: str) -> None:
    user, group = map(int, re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[0])
    assert pod(kind)["enableServiceLinks"] is False  # they would set DSE_PORT
    context = pod(kind)["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, user, group)
    assert container(kind)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container(kind)["volumeMounts"]} == {v["name"] for v in pod(kind)["volumes"]}


def test_the_two_deployments_differ_by_where_the_index_is_alone() -> None:
    def common(kind: str) -> dict[str, Any]:
        found = deepcopy(deployment(kind))
        inside = found["spec"]["template"]["spec"]
        inside.pop("initContainers", None)  # which wait for a Milvus
        (only,) = inside["containers"]
        del only["image"]
        only["env"] = [entry for entry in only["env"] if not re.match("DSE_(INDEX|READ_ONLY|MILVUS)", entry["name"])]
        only["volumeMounts"] = [mount for mount in only["volumeMounts"] if mount["name"] != "index"]
        inside["volumes"] = [volume for volume in inside["volumes"] if volume["name"] != "index"]
        return found

    assert common("folder") == common("milvus")


def test_what_waits_for_a_milvus_waits_for_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    (waiting,) = pod("milvus")["initContainers"]
    given = {entry["name"]: entry["value"] for entry in container("milvus")["env"] if "value" in entry}
    index = read_as_settings(given, monkeypatch).index
    assert isinstance(index, MilvusAddress)
    assert f'("{index.host}", {index.port})' in waiting["command"][-1]
    compile(waiting["command"][-1], "the command", "exec")
    assert waiting["image"] == container("milvus")["image"]
    assert waiting["securityContext"] == container("milvus")["securityContext"]


def test_what_compose_mounts_is_there_and_names_services_and_ports_that_are() -> None:
    services = compose()["services"]
    mounted = [line.split(":")[0] for service in services.values() for line in service.get("volumes", [])]
    assert all((DEPLOY / path).is_file() for path in mounted if path.startswith("./"))
    assert {name for name in mounted if not name.startswith("./")} == set(compose()["volumes"])
    used = {config["source"] for service in services.values() for config in service.get("configs", [])}
    assert used == set(compose()["configs"])

    balancer = (DEPLOY / "haproxy.cfg").read_text()
    assert re.findall(r"server-template \w+ \d+ (\S+)", balancer) == [f"dse:{PORT}"]
    (listening,) = re.findall(r"bind :(\d+)", balancer)
    assert services["balancer"]["ports"][0].endswith(f":{listening}")
    assert "GET /readyz" in balancer
    waits = float(re.findall(r"timeout server (\d+)s", balancer)[0])
    assert waits > Settings.model_fields["timeout"].default

    dse, milvus = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert (dse["dns_sd_configs"][0]["names"], dse["dns_sd_configs"][0]["port"]) == (["dse"], PORT)
    key = dse["authorization"]["credentials_file"]
    assert key in [config["target"] for config in services["prometheus"]["configs"]]
    assert milvus["static_configs"] == [{"targets": ["milvus:9091"]}]

    (source,) = yaml.safe_load((DEPLOY / "grafana/datasource.yaml").read_text())["datasources"]
    asked = json.loads((DEPLOY / "grafana.json").read_text())["templating"]["list"][0]["query"]
    assert source["type"] == asked
    assert source["url"].split("//")[1] == f"prometheus:{services['prometheus']['ports'][0].rsplit(':', 1)[1]}"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/dashboards.yaml").read_text())["providers"]
    folders = [line.split(":")[1] for line in services["grafana"]["volumes"] if "grafana.json" in line]
    assert [str(Path(path).parent) for path in folders] == [provider["options"]["path"]]


def test_images_that_need_an_extra_are_built_with_one() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    built = compose()["services"]["dse"]["build"]
    assert set(built["args"]["EXTRAS"].split()) <= set(extras)
    assert "ARG EXTRAS" in DOCKERFILE
    assert (DEPLOY / built["context"]).resolve() == ROOT
    assert not [line for line in extras["milvus"] if line.startswith("dse[")]  # the image reads these lines as they are
