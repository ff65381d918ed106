"""The Kubernetes manifests, against Kubernetes's own schemas, and as kustomize puts them together."""

import re
import shutil
import tomllib

import kubernetes_validate
import pytest
import yaml

from dspyq.config.sections import ServeSection
from dspyq.config.settings import load_settings
from tests.support.deployment import DEPLOY, documents, run, tool
from tests.support.processes import REPOSITORY

KUBERNETES = DEPLOY / "kubernetes"
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
#: Oldest and newest that the manifests are written for.
VERSIONS = ("1.31", "1.37")
#: Resources of operators, whose schemas Kubernetes does not have.
OF_OPERATORS = {"ScaledObject", "PodMonitor"}
#: Where there is no KEDA: two that scale the same workers would fight.
IN_PLACE_OF_KEDA = {"HorizontalPodAutoscaler"}


def manifests():
    paths = [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for path in paths for document in documents(path)]


def deployments():
    return {
        document["metadata"]["name"]: document["spec"] for document in manifests() if document["kind"] == "Deployment"
    }


def containers():
    return [
        (container, deployment["template"]["spec"])
        for deployment in deployments().values()
        for container in deployment["template"]["spec"]["containers"]
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_in_kubernetes_schema(version):
    checked = [document for document in manifests() if document["kind"] not in OF_OPERATORS]
    assert len(checked) >= 7
    for document in checked:
        kubernetes_validate.validate(document, version, strict=True)


def kustomized(folder):
    return list(yaml.safe_load_all(run(tool("kubectl", "Kubernetes"), "kustomize", str(folder)).stdout))


def test_kustomize_puts_it_together():
    built = kustomized(KUBERNETES)
    kinds = sorted(document["kind"] for document in built)
    assert kinds == sorted(document["kind"] for document in manifests() if document["kind"] not in IN_PLACE_OF_KEDA)
    assert not [document for document in built if "namespace" in document["metadata"]]
    for document in built:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert pod["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]  # the image holds the rest
            image = "dspyq-serve" if document["metadata"]["name"] == "dspyq-serve" else "dspyq-worker"
            assert pod["containers"][0]["image"].endswith(f"/{image}:{VERSION}")


def test_no_manifest_holds_a_secret():
    assert not [document for document in manifests() if document["kind"] == "Secret"]
    for container, _ in containers():
        for variable in container["env"]:
            assert "valueFrom" in variable or variable["name"] in {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_READ_ONLY"}


def test_containers_can_do_little():
    for container, pod in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_a_worker_is_probed_and_gets_longer_to_end_than_its_predictions_get():
    pod = deployments()["dspyq-worker"]["template"]["spec"]
    (worker,) = pod["containers"]
    paths = {name: worker[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    settings = load_settings(REPOSITORY / "config" / "dspyq.toml")
    assert pod["terminationGracePeriodSeconds"] > settings.delivery.shutdown_grace_seconds + 10
    port = re.search(r"DSPYQ_METRICS__PORT=(\d+)", (REPOSITORY / "Dockerfile").read_text())[1]
    assert worker["ports"] == [{"name": "metrics", "containerPort": int(port)}]


def test_a_door_is_probed_and_gets_longer_to_end_than_it_drains():
    pod = deployments()["dspyq-serve"]["template"]["spec"]
    (door,) = pod["containers"]
    paths = {name: door[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    assert pod["terminationGracePeriodSeconds"] > ServeSection().drain_seconds + 2
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    metrics_port = re.search(r"DSPYQ_SERVE__METRICS_PORT=(\d+)", dockerfile)[1]
    assert door["ports"] == [
        {"name": "http", "containerPort": ServeSection().port},
        {"name": "metrics", "containerPort": int(metrics_port)},
    ]


def test_one_beat_runs_and_never_two_during_a_rollout():
    beat = deployments()["dspyq-beat"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


def test_selectors_find_the_pods_they_mean():
    pods = {name: spec["template"]["metadata"]["labels"] for name, spec in deployments().items()}
    for document in manifests():
        if document["kind"] in {"Service", "PodDisruptionBudget", "PodMonitor"}:
            selector = document["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            found = {name for name, labels in pods.items() if wanted.items() <= labels.items()}
            assert found == {document["metadata"]["name"]}


def test_scaling_goes_by_the_true_backlog_and_by_what_a_worker_can_do():
    scalings = {
        document["metadata"]["name"]: document["spec"] for document in manifests() if document["kind"] == "ScaledObject"
    }
    for scaled in scalings.values():
        assert scaled["scaleTargetRef"]["name"] in deployments()
    scaling = scalings["dspyq-worker"]
    assert not [name for name in scalings if "replicas" in deployments()[name]]  # two would fight over it
    (trigger,) = scaling["triggers"]
    assert "dspy_queue_jobs" in trigger["metadata"]["query"]
    settings = load_settings(REPOSITORY / "config" / "dspyq.toml")
    (worker,) = deployments()["dspyq-worker"]["template"]["spec"]["containers"]
    processes = int(worker["args"][-1].removeprefix("--processes="))
    assert int(trigger["metadata"]["threshold"]) == processes * settings.workers.concurrency
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


def scaling_without_keda():
    (scaling,) = documents(KUBERNETES / "hpa" / "worker-scaling.yaml")
    return scaling["spec"]


def test_scaling_without_keda_has_the_same_bounds_the_same_backlog_and_the_same_slow_end():
    (keda,) = documents(KUBERNETES / "keda" / "worker-scaling.yaml")
    theirs, ours = keda["spec"], scaling_without_keda()
    assert ours["scaleTargetRef"]["name"] == theirs["scaleTargetRef"]["name"]
    assert (ours["minReplicas"], ours["maxReplicas"]) == (theirs["minReplicaCount"], theirs["maxReplicaCount"])
    assert ours["behavior"] == theirs["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (trigger,), (metric,) = theirs["triggers"], ours["metrics"]
    assert metric["external"]["target"]["type"] == trigger["metricType"]
    assert metric["external"]["target"]["averageValue"] == trigger["metadata"]["threshold"]
    (rules,) = documents(DEPLOY / "prometheus" / "scaling.yml")
    (recorded,) = [rule for group in rules["groups"] for rule in group["rules"]]
    assert recorded["record"].replace(":", "_") == metric["external"]["metric"]["name"]
    assert recorded["expr"] == trigger["metadata"]["query"]


def test_kustomize_takes_the_other_scaling_in_place_of_keda(tmp_path):
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    whole = copy / "kustomization.yaml"
    whole.write_text(whole.read_text().replace("  - keda\n", "  - hpa\n"))
    kinds = {document["kind"] for document in kustomized(copy)}
    assert kinds >= IN_PLACE_OF_KEDA
    assert "ScaledObject" not in kinds


def policies():
    return {
        document["metadata"]["name"]: document["spec"]
        for document in manifests()
        if document["kind"] == "NetworkPolicy"
    }


def ports(rules):
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_pods_reach_redis_and_names_and_only_workers_reach_providers():
    of_all, of_workers = policies()["dspyq"], policies()["dspyq-worker"]
    assert ports(of_all["egress"]) == {53, 6379, 26379}
    assert of_workers["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "worker"
    (to_providers,) = of_workers["egress"]
    assert ports([to_providers]) == {443}
    assert "169.254.0.0/16" in to_providers["to"][0]["ipBlock"]["except"]
    assert [name for name, policy in policies().items() if "egress" in policy] == ["dspyq", "dspyq-worker"]


def test_pods_are_reached_at_their_metrics_by_prometheus_and_the_door_at_its_port():
    of_all, of_doors = policies()["dspyq"], policies()["dspyq-serve"]
    assert ports(of_all["ingress"]) == {9464}
    assert ports(of_doors["ingress"]) == {"http"}
    pods = [spec["template"]["metadata"]["labels"] for spec in deployments().values()]
    assert all(of_all["podSelector"]["matchLabels"].items() <= labels.items() for labels in pods)
