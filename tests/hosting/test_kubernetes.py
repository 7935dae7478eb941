"""docs/deployment/kubernetes.yaml, checked without a cluster: its fields, and its command as a process."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ostler.settings.declarations import Settings, defaults
from ostler.settings.sources import Sources
from tests.hosting.container_image import parse
from tests.hosting.docs_examples import DEPLOYMENT, code_block
from tests.live.clients import get
from tests.live.harness import APP, Ostler, free_ports, wait_until
from tests.live.load import Load

TEXT = (DEPLOYMENT / "kubernetes.yaml").read_text(encoding="utf-8")
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all(TEXT))
KINDS = {document["kind"]: document for document in DOCUMENTS}
POD = KINDS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

# The fields that the API server requires, with their types (Kubernetes API reference, v1.32).
REQUIRED: dict[str, tuple[str, dict[str, type]]] = {
    "Deployment": ("apps/v1", {"selector.matchLabels": dict, "template.spec.containers": list}),
    "Service": ("v1", {"ports": list, "selector": dict}),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        {"scaleTargetRef.kind": str, "scaleTargetRef.name": str, "maxReplicas": int, "metrics": list},
    ),
    "PodDisruptionBudget": ("policy/v1", {"selector.matchLabels": dict, "maxUnavailable": int}),
}

# Every field that the pod has, to find misspelled ones, which the API server would drop or refuse.
POD_FIELDS = {
    "enableServiceLinks", "automountServiceAccountToken", "terminationGracePeriodSeconds", "securityContext",
    "topologySpreadConstraints", "containers", "volumes",
}  # fmt: skip
CONTAINER_FIELDS = {
    "name", "image", "command", "env", "ports", "startupProbe", "readinessProbe", "livenessProbe",
    "resources", "securityContext", "volumeMounts",
}  # fmt: skip
PROBE_FIELDS = {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}


def at(document: dict[str, Any], path: str) -> Any:
    """Return the value at a path of names with dots between them."""
    for name in path.split("."):
        document = document[name]
    return document


def settings() -> Settings:
    """Return ostler's settings from the container's command line."""
    app, *words = CONTAINER["command"][1:]
    flags = {
        flag[2:].replace("-", "_"): (value,) for flag, value in zip(words[::2], words[1::2], strict=True)
    }
    return Sources(directory="/nowhere", flags={"app": (app,), **flags}).load().settings


def cpus(quantity: str) -> float:
    """Return a Kubernetes quantity of CPU time, such as "500m", in CPUs."""
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_the_page_shows_the_file() -> None:
    assert code_block("kubernetes.md", "yaml") == TEXT


def test_every_document_has_the_fields_that_its_kind_requires() -> None:
    assert sorted(KINDS) == sorted(REQUIRED)
    assert len(DOCUMENTS) == len(KINDS)
    for kind, (version, fields) in REQUIRED.items():
        document = KINDS[kind]
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        assert document["apiVersion"] == version
        assert document["metadata"]["name"] == "inn"
        for path, expected in fields.items():
            value = at(document["spec"], path)
            assert isinstance(value, expected), f"{kind}: {path}"
            assert value


def test_the_pod_has_only_known_fields() -> None:
    assert set(POD["spec"]) == POD_FIELDS
    assert set(CONTAINER) == CONTAINER_FIELDS
    for probe in PROBES:
        assert set(CONTAINER[probe]) == PROBE_FIELDS
    assert all(isinstance(word, str) for word in CONTAINER["command"])
    assert all(isinstance(variable["value"], str) for variable in CONTAINER["env"])


@pytest.mark.parametrize(
    "selector",
    [
        lambda: at(KINDS["Deployment"], "spec.selector.matchLabels"),
        lambda: at(KINDS["Service"], "spec.selector"),
        lambda: at(KINDS["PodDisruptionBudget"], "spec.selector.matchLabels"),
        lambda: POD["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ],
    ids=["Deployment", "Service", "PodDisruptionBudget", "topologySpreadConstraints"],
)
def test_selectors_match_the_pods_labels(selector: Callable[[], dict[str, str]]) -> None:
    labels = POD["metadata"]["labels"]
    assert selector()
    assert selector().items() <= labels.items()


def test_the_autoscaler_scales_the_deployment_which_sets_no_replicas() -> None:
    target = KINDS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    deployment = KINDS["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    # One pod may always be evicted, so that nodes can be drained, and at least one pod is left.
    fewest = KINDS["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert fewest > KINDS["PodDisruptionBudget"]["spec"]["maxUnavailable"] >= 1
    assert KINDS["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_ports_are_those_of_the_image_and_are_referred_to_by_name() -> None:
    [port] = CONTAINER["ports"]
    [served] = KINDS["Service"]["spec"]["ports"]
    [exposed] = [
        each.text
        for each in parse((DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8"))[-1]
        if each.name == "EXPOSE"
    ]
    assert port["containerPort"] == int(exposed)
    assert served["targetPort"] == port["name"]
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {port["name"]}


def test_probes_ask_for_the_health_path() -> None:
    assert {CONTAINER[probe]["httpGet"]["path"] for probe in PROBES} == {settings().health_path}


def test_the_termination_grace_period_is_drain_delay_graceful_timeout_and_a_small_margin() -> None:
    given = settings()
    needed = given.drain_delay + given.timeout_graceful_shutdown + 3
    assert needed <= POD["spec"]["terminationGracePeriodSeconds"] <= needed + 5


def test_readiness_fails_within_the_drain_delay_and_liveness_waits_for_the_healthcheck() -> None:
    readiness, liveness = CONTAINER["readinessProbe"], CONTAINER["livenessProbe"]
    given = settings()
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < given.drain_delay
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > given.timeout_worker_healthcheck
    assert given.timeout_worker_healthcheck == defaults()["timeout_worker_healthcheck"]


def test_there_is_a_cpu_limit_for_workers_auto_to_count() -> None:
    resources = CONTAINER["resources"]
    assert settings().workers == "auto"
    assert math.ceil(cpus(resources["limits"]["cpu"])) == 2
    assert cpus(resources["requests"]["cpu"]) <= cpus(resources["limits"]["cpu"])
    assert "memory" in resources["limits"]
    assert "memory" in resources["requests"]


def test_the_pod_has_no_privileges_that_it_does_not_need() -> None:
    spec = POD["spec"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 10000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["name"] for mount in CONTAINER["volumeMounts"]] == [
        each["name"] for each in spec["volumes"]
    ]


def test_the_image_has_a_tag_with_a_version() -> None:
    name, _, tag = CONTAINER["image"].rpartition(":")
    assert name
    assert tag not in ("", "latest")


def test_a_service_link_variable_is_a_startup_error_that_names_it(tmp_path: Path) -> None:
    """The reason for `enableServiceLinks: false`."""
    link = {"OSTLER_PORT": "tcp://10.96.0.17:80"}
    with Ostler(tmp_path, *CONTAINER["command"][1:], env=link) as ostler:
        assert ostler.wait() == 2
        ostler.log.wait_for("OSTLER_PORT")


def test_the_containers_command_fails_readiness_then_drains_and_ends_in_time(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    [port] = free_ports(1)
    with Ostler(tmp_path, *CONTAINER["command"][1:], env={"OSTLER_PORT": str(port)}) as ostler:
        ostler.wait_ready(1)
        path = CONTAINER["readinessProbe"]["httpGet"]["path"]
        wait_until(lambda: get(port, path).status_code == 200, "the pod is ready")
        with Load(port) as load:
            ostler.send(signal.SIGTERM)
            wait_until(lambda: get(port, path).status_code == 503, "the pod is not ready any more")
            load.wait_answers(100)
            assert load.failures == {}
        assert ostler.wait(POD["spec"]["terminationGracePeriodSeconds"]) == 0
