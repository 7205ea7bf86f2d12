"""Who reaches whom in the cluster, what is scaled and watched, and what an eviction may take."""

from typing import Any

import yaml

from tests.deploy.copies import ALERTS
from tests.deploy.manifests import DEPLOY, containers, one, rendered, serving_pod

POLICIES = {item["metadata"]["name"]: item["spec"] for item in rendered("example") if item["kind"] == "NetworkPolicy"}
SERVING_PODS = {"matchLabels": {"app.kubernetes.io/name": "mixtral"}}


def test_what_no_policy_opens_is_closed_in_both_directions_for_the_build_too() -> None:
    assert POLICIES["closed"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_nothing_of_a_replica_goes_out() -> None:
    opening = [name for name, policy in POLICIES.items() if "egress" in policy]
    assert opening == ["endpoint-picker"]


def opened(name: str) -> tuple[list[Any], list[Any]]:
    """Peers and ports of a policy for the pods that serve."""
    policy = POLICIES[name]
    assert policy["podSelector"] == SERVING_PODS
    (rule,) = policy["ingress"]
    return rule["from"], [port["port"] for port in rule["ports"]]


def test_the_api_is_reached_from_namespaces_that_are_labelled_for_it_from_none_by_default() -> None:
    peers, ports = opened("clients")
    assert peers == [{"namespaceSelector": {"matchLabels": {"mixtral/clients": "allowed"}}}]
    assert ports == ["http"]
    assert "mixtral/clients" not in one("example", "Namespace")["metadata"]["labels"]


def test_prometheus_reaches_both_metrics_and_a_gateway_the_api() -> None:
    assert opened("prometheus")[1] == ["http", "triton-metrics"]
    assert opened("gateway")[1] == ["http"]


def test_inference_has_no_port_that_a_policy_could_open() -> None:
    ports = {port["containerPort"] for pod in containers(serving_pod()).values() for port in pod.get("ports", [])}
    assert ports == {8000, 8002}
    assert "8001" not in str(POLICIES)


def test_services_lead_to_the_ports_of_the_pods() -> None:
    api, metrics = (one("example", "Service", name)["spec"] for name in ("mixtral", "mixtral-metrics"))
    assert {port["targetPort"] for port in api["ports"]} == {"http"}
    assert {port["targetPort"] for port in metrics["ports"]} == {"http", "triton-metrics"}
    assert api["selector"] == metrics["selector"] == SERVING_PODS["matchLabels"]
    assert one("example", "Deployment")["spec"]["template"]["metadata"]["labels"].items() >= api["selector"].items()


def test_one_pod_at_a_time_is_evicted_or_replaced_and_no_second_gpu_is_needed() -> None:
    assert one("example", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    update = one("example", "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert update == {"maxSurge": 0, "maxUnavailable": 1}


def test_the_autoscaler_reads_the_queue_under_the_name_that_the_adapter_gives_it() -> None:
    (metric,) = one("example", "HorizontalPodAutoscaler")["spec"]["metrics"]
    (rule,) = yaml.safe_load((DEPLOY / "components" / "autoscaling" / "adapter-values.yaml").read_text())["rules"][
        "custom"
    ]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"] == "vllm_num_requests_waiting"
    assert rule["seriesQuery"].startswith("vllm:num_requests_waiting{")
    assert "replicas" not in one("example", "Deployment")["spec"], "the autoscaler's alone"


def test_prometheus_scrapes_both_under_the_names_of_the_jobs_in_compose() -> None:
    monitor = one("example", "ServiceMonitor")["spec"]
    labels = one("example", "Service", "mixtral-metrics")["metadata"]["labels"]
    assert labels.items() >= monitor["selector"]["matchLabels"].items()
    jobs = {endpoint["relabelings"][0]["replacement"]: endpoint["port"] for endpoint in monitor["endpoints"]}
    assert jobs == {"frontend": "http", "triton": "triton-metrics"}


def test_the_alerts_are_those_of_compose() -> None:
    assert one("example", "PrometheusRule")["spec"] == yaml.safe_load(ALERTS.read_text())


def test_the_inference_pool_is_of_the_pods_that_serve() -> None:
    pool = one("example", "InferencePool")["spec"]
    assert pool["selector"] == SERVING_PODS
    assert pool["targetPorts"] == [{"number": 8000}]
    (rule,) = one("example", "HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "mixtral"}]
