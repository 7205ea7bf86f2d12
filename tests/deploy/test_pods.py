"""The pods against the compose file: the same images, rights, limits; and the restricted standard."""

import re
from pathlib import Path
from typing import Any

import pytest

from frontend.settings import ENV_PREFIX, Settings
from tests.deploy.copies import COPIES
from tests.deploy.manifests import (
    ROOT,
    Manifest,
    build_pod,
    containers,
    environment,
    one,
    rendered,
    serving_pod,
    volume,
)
from tests.docker.project import DOCKER, SAMPLING, services

SERVICES = services()
SERVING = containers(serving_pod())
BUILDING = containers(build_pod())
PAIRS: dict[str, tuple[Manifest, Manifest, dict[str, Any]]] = {
    "triton": (serving_pod(), SERVING["triton"], SERVICES["triton"]),
    "frontend": (serving_pod(), SERVING["frontend"], SERVICES["frontend"]),
    "engine": (build_pod(), BUILDING["engine"], SERVICES["engine"]),
}
PODS = {"serving": serving_pod(), "build": build_pod()}
ALL = [(pod, container) for pod in PODS.values() for container in containers(pod).values()]


def bytes_of(text: str) -> int:
    """Kubernetes' 64Gi, and Docker's 64g, which means the same."""
    found = re.fullmatch(r"(\d+)([kmg]|[KMG]i)", text)
    assert found is not None, text
    factor: int = 1024 ** (1 + "kmg".index(found[2][0].lower()))
    return int(found[1]) * factor


def image_name(image: str) -> str:
    """Without registry and tag."""
    return image.rpartition("/")[2].partition(":")[0]


@pytest.mark.parametrize("name", PAIRS)
def test_a_container_has_the_image_and_the_memory_of_its_service(name: str) -> None:
    _, container, service = PAIRS[name]
    assert image_name(container["image"]) == service["image"]
    assert bytes_of(container["resources"]["limits"]["memory"]) == bytes_of(service["mem_limit"])


@pytest.mark.parametrize("name", PAIRS)
def test_a_container_has_the_rights_of_its_service(name: str) -> None:
    _, container, service = PAIRS[name]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] is service["read_only"] is True
    assert rights["capabilities"] == {"drop": service["cap_drop"]} == {"drop": ["ALL"]}
    assert rights["allowPrivilegeEscalation"] is False
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("dockerfile", ["triton.Dockerfile", "frontend.Dockerfile"])
def test_pods_run_as_the_user_of_the_images(dockerfile: str) -> None:
    text = (DOCKER / dockerfile).read_text()
    assert re.search(r"^USER (1000:1000|frontend)$", text, re.MULTILINE)
    assert "USER frontend" not in text or "--uid 1000 --no-create-home frontend" in text
    for pod in PODS.values():
        rights = pod["securityContext"]
        assert (rights["runAsUser"], rights["runAsGroup"], rights["runAsNonRoot"]) == (1000, 1000, True)


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_fulfils_the_restricted_standard(pod: Manifest) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/: what a cluster would refuse it for."""
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    kinds = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    for container in containers(pod).values():
        rights = container["securityContext"]
        assert (rights["allowPrivilegeEscalation"], rights["capabilities"]) == (False, {"drop": ["ALL"]})
        assert not {"privileged", "procMount", "runAsUser", "seccompProfile", "windowsOptions"} & rights.keys()
        assert not [port for port in container.get("ports", []) if "hostPort" in port]


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_holds_no_token_of_the_cluster(pod: Manifest) -> None:
    assert pod["serviceAccountName"] == "mixtral"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert one("example", "ServiceAccount")["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", PAIRS)
def test_writable_files_are_in_memory_and_as_large_as_in_compose(name: str) -> None:
    """So no prompt is written to a disk. The build writes into the model repository too."""
    pod, container, service = PAIRS[name]
    (tmpfs,) = service["tmpfs"]
    size = re.search(r"size=(\w+)", tmpfs)
    assert size is not None
    assert bytes_of(volume(pod, container, "/tmp")["emptyDir"]["sizeLimit"]) == bytes_of(size[1])
    assert volume(pod, container, "/tmp")["emptyDir"]["medium"] == "Memory"
    if "shm_size" in service:
        shm = volume(pod, container, "/dev/shm")["emptyDir"]
        assert (shm["medium"], bytes_of(shm["sizeLimit"])) == ("Memory", bytes_of(service["shm_size"]))
    read_only = "../model_repository:/model_repository:ro" in service["volumes"]
    assert volume(pod, container, "/model_repository")["readOnly"] is read_only


def test_gpus_are_limits_of_triton_and_of_the_build_only() -> None:
    gpus = {container["name"]: container["resources"]["limits"].get("nvidia.com/gpu") for _, container in ALL}
    assert gpus == {"triton": "1", "frontend": None, "limits": None, "engine": "1"}


@pytest.mark.parametrize("name", ["triton", "engine"])
def test_a_container_has_the_environment_of_its_service(name: str) -> None:
    _, container, service = PAIRS[name]
    assert environment(container) == service["environment"]


def test_the_frontend_is_configured_for_a_triton_on_loopback_and_otherwise_as_in_compose() -> None:
    given = environment(SERVING["frontend"])
    read = Settings.from_args([], given)
    assert (read.triton_url, read.triton_metrics_url) == ("http://127.0.0.1:8001", "http://127.0.0.1:8002/metrics")
    assert str(read.api_key_file) == "/access/keys"
    in_compose = {name: str(value) for name, value in SERVICES["frontend"]["environment"].items() if value != ""}
    differing = {"FRONTEND_TRITON_URL", "FRONTEND_TRITON_METRICS_URL", "FRONTEND_API_KEY_FILE"}
    differing |= SAMPLING  # compose has OpenTelemetry's defaults, for docker/.env to replace
    assert {name: given[name] for name in given.keys() - differing} == {
        name: in_compose[name] for name in in_compose.keys() - differing
    }
    assert given.keys() <= {ENV_PREFIX + field.upper() for field in Settings.__dataclass_fields__}


def test_triton_listens_on_loopback_for_inference_and_starts_before_the_frontend() -> None:
    triton = SERVING["triton"]
    assert triton["args"] == ["--http-address=127.0.0.1", "--http-port=8001"]
    assert (DOCKER / "triton-entrypoint.sh").read_text().rstrip().endswith('"$@"'), "later options replace earlier ones"
    assert triton["restartPolicy"] == "Always", "a sidecar"
    assert [port["containerPort"] for port in triton["ports"]] == [8002]
    assert [container["name"] for container in serving_pod()["initContainers"]] == ["triton"]


def test_triton_has_the_time_to_load_that_compose_gives_it() -> None:
    probe = SERVING["triton"]["startupProbe"]
    check = SERVICES["triton"]["healthcheck"]
    assert f"{probe['periodSeconds'] * probe['failureThreshold']}s" == check["start_period"]
    assert probe["exec"]["command"] == [part.replace(":8000/", ":8001/") for part in check["test"][1:]]
    assert SERVING["triton"]["livenessProbe"]["exec"] == probe["exec"]


def test_the_frontends_probes_need_no_key() -> None:
    paths = {SERVING["frontend"][f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"/health/live", "/health/ready"}


def test_running_answers_have_as_long_to_end_as_in_compose() -> None:
    grace = int(SERVICES["frontend"]["stop_grace_period"].removesuffix("s"))
    settings = Settings(engine_dir=ROOT)
    both_times = settings.drain_seconds + settings.shutdown_timeout_s
    assert serving_pod()["terminationGracePeriodSeconds"] >= grace > both_times


def test_keys_come_from_a_secret_without_which_no_pod_starts_and_which_is_not_in_the_repository() -> None:
    access = volume(serving_pod(), SERVING["frontend"], "/access")
    assert access["secret"] == {"secretName": "mixtral-api-keys", "defaultMode": 0o440}
    assert access["readOnly"] is True
    assert not [item for item in (*rendered("example"), *rendered("engine")) if item["kind"] == "Secret"]


@pytest.mark.parametrize("file", COPIES, ids=lambda file: file.name)
def test_what_is_made_of_other_files_is_as_they_are(file: Path) -> None:
    assert file.read_text() == COPIES[file](), "python -m tests.deploy.copies writes it"


def test_the_build_reads_the_limits_of_the_model_repository() -> None:
    assert BUILDING["limits"]["command"][-2:] == ["/limits/config.pbtxt", "/model_repository/tensorrt_llm/config.pbtxt"]


def test_the_build_is_that_of_make_engine() -> None:
    engine = BUILDING["engine"]
    assert engine["command"] == SERVICES["engine"]["entrypoint"]
    *command, checkpoint = engine["args"]
    assert command == ["build", "--target", "tensorrt_llm"]
    assert volume(build_pod(), engine, checkpoint)["readOnly"] is True
    assert one("engine", "Job", "mixtral-engine")["spec"]["backoffLimit"] == 0
