"""The compose project: which containers reach Triton, and the privileges and limits of each."""

import re

import pytest
import yaml
from opentelemetry.sdk.trace import TracerProvider

from build_engine.tensorrt_llm.commands import IMAGE
from frontend.server.middleware.auth import OPEN_PATHS
from frontend.settings import ENV_PREFIX, Settings
from tests.docker.project import DOCKER, ROOT, SAMPLING, read_compose, services, settings

COMPOSE = read_compose("compose.yaml")
SERVICES = services()
SERVING = sorted(SERVICES.keys() - {"engine"})
TRITONS = ["triton", "triton-cpu"]
FRONTENDS = ["frontend", "frontend-cpu"]
MONITORING = sorted(started for started in SERVICES if SERVICES[started]["profiles"] == ["metrics"])

NOT_IN_ENV_FILE = {
    "engine_dir": "follows from the mount and the model",
    "model": "follows from the profile",
    "triton_url": "the name of the other container",
    "triton_metrics_url": "the same",
    "triton_key": "only the frontend and Prometheus reach Triton",
    "host": "all addresses of the container; LISTEN has the one of this host",
    "port": "that of the container; PORT has the one of this host",
    "api_keys": "secrets are in no environment here; API_KEY_FILE has their hashes",
    "ssl_keyfile_password": "the same; the key's file is readable for its user only",
    "startup_timeout_s": "follows from the time that Triton has to load the engine",
}
"""Settings of the frontend that docker/.env does not have, and why."""


def started_by(*profiles: str) -> set[str]:
    return {name for name, service in SERVICES.items() if set(service["profiles"]) & set(profiles)}


def test_each_profile_starts_its_services() -> None:
    assert settings()["COMPOSE_PROFILES"] == "gpu"
    assert started_by("gpu") == {"triton", "frontend"}
    assert started_by("cpu") == {"triton-cpu", "frontend-cpu"}
    assert started_by("metrics") == {"prometheus", "grafana"}
    assert started_by("engine") == {"engine"}


@pytest.mark.parametrize("name", [*TRITONS, "engine"])
def test_triton_publishes_no_port_and_has_internal_networks_only(name: str) -> None:
    service = SERVICES[name]
    assert not {"ports", "expose", "network_mode", "links"} & service.keys()
    hidden = {"internal": True, "driver_opts": {"com.docker.network.bridge.inhibit_ipv4": "true"}}
    assert all(COMPOSE["networks"][network] == hidden for network in service["networks"])


@pytest.mark.parametrize("name", TRITONS)
def test_triton_has_one_name_for_both_engines(name: str) -> None:
    assert SERVICES[name]["networks"] == {"inference": {"aliases": ["triton"]}}


def test_only_the_api_prometheus_and_grafana_publish_ports() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    api = ["127.0.0.1:8000:8000"]
    monitoring = {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}
    assert published == {"frontend": api, "frontend-cpu": api, **monitoring}


def test_only_the_frontend_and_prometheus_share_a_network_with_triton() -> None:
    neighbours = {name for name, service in SERVICES.items() if "inference" in service["networks"]}
    assert neighbours == {*TRITONS, *FRONTENDS, "prometheus"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_no_capabilities_and_a_read_only_file_system(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert not {"privileged", "cap_add", "pid", "ipc", "userns_mode", "devices", "user"} & service.keys()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_limits_of_memory_processes_and_logs(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"][:-1].isdecimal()
    assert service["mem_limit"][-1] == "g"
    assert 0 < service["pids_limit"] <= 4096
    assert all("size=" in mount for mount in service.get("tmpfs", []))
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVING)
def test_serving_containers_mount_the_model_repository_read_only(name: str) -> None:
    mounts = [mount for mount in SERVICES[name]["volumes"] if "model_repository" in mount]
    assert mounts == ([] if name in MONITORING else ["../model_repository:/model_repository:ro"])
    assert ("./access:/access:ro" in SERVICES[name]["volumes"]) == (name in FRONTENDS)
    writable = [mount for mount in SERVICES[name]["volumes"] if not mount.endswith(":ro")]
    assert writable == (["prometheus:/prometheus"] if name == "prometheus" else [])


@pytest.mark.parametrize("name", SERVING)
def test_serving_containers_have_a_health_check_and_are_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    if name in FRONTENDS:
        assert "HEALTHCHECK" in (DOCKER / "frontend.Dockerfile").read_text()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", TRITONS)
def test_triton_is_healthy_when_its_model_is_ready(name: str) -> None:
    service = SERVICES[name]
    command = service["healthcheck"]["test"]
    model = service["environment"]["MODEL"]
    assert command[1:3] == ["python3", "-c"]
    assert f"http://127.0.0.1:8000/v2/models/{model}/ready" in command[3]
    compile(command[3], "healthcheck", "exec")


@pytest.mark.parametrize(("name", "triton"), [*zip(FRONTENDS, TRITONS, strict=True)])
def test_the_frontend_is_configured_for_its_triton(name: str, triton: str) -> None:
    service = SERVICES[name]
    assert service["depends_on"] == {triton: {"condition": "service_healthy"}}
    environment = {key: str(value) for key, value in service["environment"].items()}
    read = Settings.from_args([], environment)
    assert read.model == SERVICES[triton]["environment"]["MODEL"]
    assert str(read.engine_dir) == f"/model_repository/{read.model}/1/engine"
    assert read.triton_url == "http://triton:8000"
    fields = {ENV_PREFIX + field.upper() for field in Settings.__dataclass_fields__}
    assert environment.keys() <= fields | SAMPLING, "a setting that the frontend does not know would be ignored"


@pytest.mark.parametrize("name", FRONTENDS)
def test_all_requests_are_traced_unless_the_env_file_says_otherwise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SAMPLING:
        monkeypatch.setenv(variable, str(SERVICES[name]["environment"][variable]))
    sampler = TracerProvider().sampler
    assert sampler.get_description().startswith("ParentBased{root:TraceIdRatioBased{1.0}")


@pytest.mark.parametrize("name", FRONTENDS)
def test_the_env_file_reaches_every_setting_of_the_frontend_but_those_that_the_project_decides(name: str) -> None:
    assert name in services()
    text = (DOCKER / "compose.yaml").read_text()
    linked = {setting.lower() for setting in re.findall(rf'{ENV_PREFIX}(\w+): "\$\{{\1\?\}}"$', text, re.MULTILINE)}
    assert linked | NOT_IN_ENV_FILE.keys() == Settings.__dataclass_fields__.keys()
    assert not linked & NOT_IN_ENV_FILE.keys()
    assert {ENV_PREFIX + setting.upper() for setting in linked} <= SERVICES[name]["environment"].keys()
    for setting in NOT_IN_ENV_FILE.keys() & {"triton_key", "host", "port", "api_keys", "ssl_keyfile_password"}:
        assert ENV_PREFIX + setting.upper() not in SERVICES[name]["environment"]


@pytest.mark.parametrize("name", FRONTENDS)
def test_settings_are_empty_by_default_which_leaves_the_defaults_of_the_frontend(name: str) -> None:
    """API_KEY_FILE of .env is FRONTEND_API_KEY_FILE of the frontend, and so on. Empty means not set."""
    environment = SERVICES[name]["environment"]
    access = {setting: value for setting, value in environment.items() if value == ""}
    assert access == dict.fromkeys((ENV_PREFIX + setting for setting, value in settings().items() if value == ""), "")
    given = {key: str(value) for key, value in environment.items() if value != ""}
    assert Settings.from_args([], {**given, **access}) == Settings.from_args([], given)


@pytest.mark.parametrize(("certificate", "scheme"), [("", "http"), ("/access/cert.pem", "https")])
def test_the_health_check_of_the_frontend_uses_the_scheme_it_serves(
    monkeypatch: pytest.MonkeyPatch, certificate: str, scheme: str
) -> None:
    (check,) = re.findall(r'"-c", "(.*)"\]', (DOCKER / "frontend.Dockerfile").read_text())
    asked: list[str] = []
    monkeypatch.setenv("FRONTEND_SSL_CERTFILE", certificate)
    monkeypatch.setattr("urllib.request.urlopen", lambda url, context: asked.append(url))
    exec(check)
    assert asked == [f"{scheme}://127.0.0.1:8000/health"]
    assert "/health" in OPEN_PATHS


def test_the_stop_grace_period_is_longer_than_drain_and_shutdown_together() -> None:
    grace = {int(SERVICES[name]["stop_grace_period"].removesuffix("s")) for name in [*TRITONS, *FRONTENDS]}
    defaults = Settings(engine_dir=ROOT)
    assert min(grace) >= defaults.drain_seconds + defaults.shutdown_timeout_s + 5
    assert min(grace) > 30, "--exit-timeout-secs of the entry point"


@pytest.mark.parametrize("name", ["engine", "triton"])
def test_gpu_containers_have_gpus_and_shared_memory_for_nccl(name: str) -> None:
    service = SERVICES[name]
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert int(service["shm_size"].removesuffix("g")) >= 2
    assert service["ulimits"]["memlock"] == -1


def test_engines_are_built_and_served_in_one_image() -> None:
    assert SERVICES["engine"]["image"] == SERVICES["triton"]["image"]
    assert settings()["TRITON_IMAGE"] == IMAGE


@pytest.mark.parametrize(
    "file", ["compose.yaml", "compose.perf.yaml", "prometheus/prometheus.yml", ".env", "triton-entrypoint.sh"]
)
def test_no_secret_is_in_a_command_or_an_environment(file: str) -> None:
    """API keys are in a mounted file, as hashes. These files contain no token, key or password."""
    text = (DOCKER / file).read_text().lower()
    assert not [word for word in ("token=", "password", "api_keys", "apikey", "secret:", "hf_token") if word in text]


def test_prometheus_scrapes_triton_and_the_frontend_by_their_network_names() -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"] for job in jobs}
    assert targets == {"triton": [{"targets": ["triton:8002"]}], "frontend": [{"targets": ["frontend:8000"]}]}


@pytest.mark.parametrize("name", FRONTENDS)
def test_the_frontend_has_one_name_for_both_engines_and_the_url_of_tritons_metrics(name: str) -> None:
    assert SERVICES[name]["networks"] == {"inference": {"aliases": ["frontend"]}, "edge": {}}
    assert SERVICES[name]["environment"]["FRONTEND_TRITON_METRICS_URL"] == "http://triton:8002/metrics"


def test_make_perf_opens_grpc_on_the_internal_network_only() -> None:
    overlay = read_compose("compose.perf.yaml")["services"]
    for name in TRITONS:
        assert overlay[name] == {"command": ["--allow-grpc=true", "--grpc-address=0.0.0.0", "--grpc-port=8001"]}
    perf = overlay["perf"]
    assert perf["networks"] == ["inference"]
    assert "ports" not in perf
    assert perf["entrypoint"] == ["perf_analyzer"]
    # `make perf` passes paths relative to the checkout; the container has the same paths.
    (mount,) = perf["volumes"]
    assert mount == f"../.cache/perf:{perf['working_dir']}/.cache/perf"
