"""The chart, rendered: what it refuses, what Kubernetes and Dagster make of it, and that every pod is restricted.

Needs the program helm; tests/kubernetes installs the chart for real.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._serdes import class_from_code_pointer
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient
from pydantic import TypeAdapter

from tilth.execution.compute import GPU_RESOURCE, Request, step_config
from tilth.settings import Deployment, NodePool

CHART = Path(__file__).parents[2] / "helm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
HELM = shutil.which("helm") or shutil.which("helm", path=str(CACHE / "kubernetes-test-cluster" / "bin"))
EXAMPLES = ["values.yaml", "values-trial.yaml", "values-production.yaml"]
OLDEST, CURRENT = "1.20.2", "1.31.0"
HELM_TIMEOUT_SECONDS = 300  # what `helm upgrade` gives a hook, unless --timeout says otherwise
# The location of the chart's own values.
LOCATION, MODULE = yaml.safe_load((CHART / "values.yaml").read_text())["codeLocations"][0].values()
EVERYTHING = {
    "dagsterWebserver": {"enableReadOnly": True, "replicaCount": 2},
    "codeLocations": [
        {"name": LOCATION, "module": MODULE, "replicas": 2},
        {
            "name": "orders",
            "module": "assets.orders.definitions",
            "image": {"tag": "7", "pullPolicy": "Always"},
            "envSecrets": ["orders-keys"],
            "resources": {"requests": {"cpu": 2}},
        },
    ],
    "imagePullSecrets": ["registry"],
    "env": {"TILTH_MODELS_PER_RUN": "4", "OMP_NUM_THREADS": "1"},
    "envSecrets": ["object-store"],
    "podLabels": {"azure.workload.identity/use": "true"},
    "podAnnotations": {"prometheus.io/scrape": "false"},
    "ingress": {"enabled": True, "host": "tilth.example.com"},
    "oauth2Proxy": {
        "enabled": True,
        "existingSecret": "login",
        "oidcIssuerUrl": "https://login.example.com",
        "emailDomains": ["*"],
    },
    "networkPolicy": {"ingressFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    "mlflow": {"enabled": True, "image": "mlflow:3", "artifactsUri": "s3://bucket/mlflow"},
    "resourceQuota": {"pods": "50"},
    "limitRange": [{"type": "Container", "max": {"memory": "8Gi"}}],
    "nodePools": {
        "general": {"default": True, "selector": {"pool": "general"}, "tolerations": [{"operator": "Exists"}]},
        "l4": {
            "gpuType": "l4",
            "selector": {"pool": "l4"},
            "tolerations": [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}],
        },
        "spot": {"spot": True},
    },
}

pytestmark = pytest.mark.skipif(HELM is None, reason="the program helm is not on PATH")


def helm(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(HELM), *arguments], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


class _EachKeyOnce(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, as it is for Kubernetes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice among {keys}"
        return super().construct_mapping(node, deep)


def rendered(*arguments: str, version: str = CURRENT) -> list[dict[str, Any]]:
    """Every object of the release `t` in the namespace `team`, hooks included."""
    done = helm("template", "t", str(CHART), "--namespace", "team", "--kube-version", version, *arguments)
    return [document for document in yaml.load_all(done.stdout, _EachKeyOnce) if document]


def example(name: str) -> list[str]:
    return ["--values", str(CHART / name)]


@pytest.fixture
def everything(tmp_path: Path) -> list[str]:
    """Values with all that can be switched on."""
    path = tmp_path / "everything.yaml"
    path.write_text(yaml.safe_dump(EVERYTHING))
    return ["--values", str(path)]


@pytest.fixture(params=[*EXAMPLES, "everything"])
def values(request: pytest.FixtureRequest, everything: list[str]) -> list[str]:
    return everything if request.param == "everything" else example(request.param)


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(found for found in objects if found["kind"] == kind and found["metadata"]["name"] == name)


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod templates of all workloads, by name."""
    for found in objects:
        if "template" in found.get("spec", {}):
            yield f"{found['kind']} {found['metadata']['name']}", found["spec"]["template"]


def dagster_yaml(objects: list[dict[str, Any]], name: str = "t-instance") -> str:
    return named(objects, "ConfigMap", name)["data"]["dagster.yaml"]


@pytest.fixture
def instance_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Dagster's reading of a rendered dagster.yaml."""
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")

    def read(text: str) -> InstanceRef:
        (tmp_path / "dagster.yaml").write_text(text)
        return InstanceRef.from_dir(str(tmp_path))

    return read


def server_of(objects: list[dict[str, Any]], location: str) -> dict[str, Any]:
    """The container of the location's server, its variables as a mapping."""
    (found,) = dict(pods(objects))[f"Deployment t-location-{location}"]["spec"]["containers"]
    return {**found, "env": {variable["name"]: variable.get("value", "") for variable in found["env"]}}


def launched(
    ref: InstanceRef,
    config: Mapping[str, Any] | None = None,
    *,
    server: Mapping[str, Any] | None = None,
    tag: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The pod template of the Job that Dagster makes of a run, or of a step with this `dagster-k8s/config`; of the
    location with this server, and with this tag `dagster-k8s/config` on the run.
    """
    with patch("dagster_k8s.launcher.load_kubernetes_config"):
        launcher: Any = ref.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    variables = server["env"] if server else {"DAGSTER_CURRENT_IMAGE": "tilth:1", "DAGSTER_CONTAINER_CONTEXT": "{}"}
    image = variables["DAGSTER_CURRENT_IMAGE"]
    location = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("module", "defs"),
        container_image=image,
        container_context=json.loads(variables["DAGSTER_CONTAINER_CONTEXT"]),
    )
    run = dg.DagsterRun(
        job_name="job",
        run_id="2f0f0a3e",
        tags={} if tag is None else {"dagster-k8s/config": json.dumps(tag)},
        job_code_origin=JobPythonOrigin("job", location),
    )
    # A step: as tilth/_dagster/kubernetes.py does.
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=config is None)
    if config is not None:
        context = context.merge(K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(config)))
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(image, launcher), ["true"], "job", context.run_k8s_config, component="run_worker"
    )
    return ApiClient().sanitize_for_serialization(job)["spec"]["template"]


def assert_restricted(name: str, pod: Mapping[str, Any]) -> None:
    """The restricted Pod Security Standard, and beyond it a root filesystem that is read-only, and sizes."""
    spec = pod["spec"]
    of_pod = spec["securityContext"]
    assert of_pod["runAsNonRoot"] is True, name
    assert of_pod["runAsUser"] > 0, name
    assert of_pod["seccompProfile"]["type"] == "RuntimeDefault", name
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
    kinds = {kind for volume in spec.get("volumes") or [] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}, name
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert "privileged" not in security, name
        assert not any("hostPort" in port for port in container.get("ports") or []), name
        sizes = container["resources"]
        assert sizes["requests"]["cpu"], name
        assert sizes["requests"]["memory"] == sizes["limits"]["memory"], name


class TestValues:
    @pytest.mark.parametrize("name", EXAMPLES)
    def test_each_file_passes_the_strict_lint(self, name: str) -> None:
        helm("lint", "--strict", str(CHART), *example(name))

    def test_the_chart_renders_as_it_is(self) -> None:
        assert rendered()

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ("dagsterWebserver.replicas=2", "dagsterWebserver: Additional property replicas"),
            ("dagsterDeamon.resources=null", "Additional property dagsterDeamon"),
            ("runLauncher.resources.limits.memory=lots", "runLauncher.resources.limits.memory"),
            ("runCoordinator.maxConcurrentRuns=many", "runCoordinator.maxConcurrentRuns: Invalid type"),
            ("steps.memoryCeiling=64GB", "steps.memoryCeiling"),
            ("nodePools.gpu.gpu_type=l4", "nodePools.gpu: Additional property gpu_type"),
            ("nodePools.gpu.tolerations[0].efect=NoSchedule", "nodePools.gpu.tolerations.0: Additional property efect"),
            ("storage.lakeUri=bucket/lake", "storage.lakeUri"),
            ("storage.modelsUri=http://models", "storage.modelsUri"),
            ("codeLocations[0].name=Orders", "codeLocations.0.name"),
        ],
    )
    def test_a_wrong_value_is_refused_by_its_key(self, wrong: str, said: str) -> None:
        done = helm("template", "t", str(CHART), "--set", wrong, check=False)

        assert done.returncode != 0
        assert said in done.stderr

    @pytest.mark.parametrize(
        ("missing", "said"),
        [
            (["postgresql.enabled=false"], "postgresql.postgresqlHost"),
            (["postgresql.enabled=false", "postgresql.postgresqlHost=db"], "postgresql.existingSecret"),
            (
                ["postgresql.enabled=false", "postgresql.postgresqlHost=db", "postgresql.existingSecret=db"],
                "warehouse.existingSecret",
            ),
            (["storage.persistentVolumeClaim.enabled=false"], "storage.lakeUri"),
            (["ingress.enabled=true"], "ingress.host"),
            (["ingress.enabled=true", "ingress.host=tilth.example.com"], "networkPolicy.ingressFrom"),
            (["oauth2Proxy.enabled=true"], "ingress.enabled"),
            (["mlflow.enabled=true"], "mlflow.image"),
            (["nodePools.a.default=true", "nodePools.b.default=true"], "nodePools: a, b"),
        ],
    )
    def test_what_is_missing_is_named_with_what_to_set(self, missing: list[str], said: str) -> None:
        settings = [argument for value in missing for argument in ("--set", value)]

        done = helm("template", "t", str(CHART), *settings, check=False)

        assert done.returncode != 0
        assert said in done.stderr

    def test_every_default_is_known_to_the_schema(self) -> None:
        schema = json.loads((CHART / "values.schema.json").read_text())

        assert set(yaml.safe_load((CHART / "values.yaml").read_text())) == set(schema["properties"])


class TestKubernetes:
    @pytest.mark.parametrize("version", [OLDEST, CURRENT])
    def test_every_pod_is_restricted(self, values: list[str], version: str) -> None:
        found = dict(pods(rendered(*values, version=version)))

        assert {"Deployment t-webserver", "Deployment t-daemon", "Job t-migrate"} <= found.keys()
        for name, pod in found.items():
            assert_restricted(name, pod)

    def test_apis_are_those_that_the_cluster_has(self, everything: list[str]) -> None:
        old, new = rendered(*everything, version=OLDEST), rendered(*everything, version=CURRENT)

        assert named(old, "PodDisruptionBudget", "t-webserver")["apiVersion"] == "policy/v1beta1"
        assert named(new, "PodDisruptionBudget", "t-webserver")["apiVersion"] == "policy/v1"
        server = f"Deployment t-location-{LOCATION}"
        assert "exec" in dict(pods(old))[server]["spec"]["containers"][0]["startupProbe"]
        assert dict(pods(new))[server]["spec"]["containers"][0]["readinessProbe"]["grpc"]["service"] == "DagsterApi"

    @pytest.mark.parametrize("version", ["1.25", "the newest"])
    def test_kubernetes_knows_every_field(self, values: list[str], version: str) -> None:
        kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
        newest = kubernetes_validate.latest_version()  # whose fields the installed package knows
        version = newest if version == "the newest" else f"{version}.0"

        for found in rendered(*values, version=version):
            assert kubernetes_validate.validate(found, version, strict=True) == version.rpartition(".")[0]

    def test_every_object_is_in_the_namespace_of_the_release(self, everything: list[str]) -> None:
        kinds = {found["kind"] for found in rendered(*everything)}

        assert not {kind for kind in kinds if kind.startswith("Cluster")}

    def test_every_service_and_policy_finds_its_pods(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        labels = [pod["metadata"]["labels"] for _, pod in pods(objects)]
        selectors = {
            (found["kind"], found["metadata"]["name"]): found["spec"]["selector"]
            if found["kind"] == "Service"
            else (found["spec"].get("podSelector") or found["spec"]["selector"])["matchLabels"]
            for found in objects
            if found["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget")
        }

        lost = [
            name for name, selector in selectors.items() if not any(selector.items() <= of.items() for of in labels)
        ]
        assert not lost

    def test_everything_that_a_pod_mentions_is_there(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        brought = {(found["kind"], found["metadata"]["name"]) for found in objects}
        users_own = {("Secret", name) for name in ("login", "object-store", "orders-keys")}

        for name, pod in pods(objects):
            needed = set()
            spec = pod["spec"]
            for volume in spec.get("volumes", []):
                if "configMap" in volume:
                    needed.add(("ConfigMap", volume["configMap"]["name"]))
                if "persistentVolumeClaim" in volume:
                    needed.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
            for container in [*spec["containers"], *spec.get("initContainers", [])]:
                for entry in container.get("envFrom", []):
                    needed |= {(kind[0].upper() + kind[1:-3], ref["name"]) for kind, ref in entry.items()}
                for variable in container.get("env", []):
                    if "valueFrom" in variable:
                        needed.add(("Secret", variable["valueFrom"]["secretKeyRef"]["name"]))
            if "serviceAccountName" in spec:
                needed.add(("ServiceAccount", spec["serviceAccountName"]))
            assert needed <= brought | users_own, name

    def test_what_a_hook_before_an_upgrade_needs_is_of_the_hook_itself(self, everything: list[str]) -> None:
        hooks = [f for f in rendered(*everything) if "pre-upgrade" in str(f["metadata"].get("annotations"))]

        assert [found["kind"] for found in hooks] == ["ConfigMap", "Job"]
        job = hooks[1]["spec"]["template"]["spec"]
        mounted = [v["configMap"]["name"] for v in job["volumes"] if "configMap" in v]
        assert mounted == [hooks[0]["metadata"]["name"]]
        assert "serviceAccountName" not in job

    def test_the_migration_has_ended_before_helm_gives_up(self) -> None:
        def seconds(*arguments: str) -> int:
            return named(rendered(*arguments), "Job", "t-migrate")["spec"]["activeDeadlineSeconds"]

        assert seconds() + 30 < HELM_TIMEOUT_SECONDS  # its pods have half a minute to end
        assert seconds("--set", "migrate.timeoutSeconds=3600") == 3600

    def test_the_migration_does_not_wait_for_ever_for_a_database(self) -> None:
        found = dict(pods(rendered()))
        (job,), (server,) = (
            found[name]["spec"]["initContainers"] for name in ("Job t-migrate", "Deployment t-webserver")
        )
        waits, serves = (
            {variable["name"]: variable.get("value", "") for variable in container["env"]}
            for container in (job, server)
        )
        tries = named(rendered(), "Job", "t-migrate")["spec"]["backoffLimit"] + 1

        assert float(waits["WAIT_SECONDS"]) * tries < HELM_TIMEOUT_SECONDS / 2  # the rest is for the migration
        assert serves["WAIT_SECONDS"] == "inf"  # it serves as soon as there is one
        nowhere = {**os.environ, **waits, "PGHOST": "127.0.0.1", "PGPORT": "1", "WAIT_SECONDS": "0"}
        command = [sys.executable, *job["args"][1:]]
        done = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=20)
        assert done.returncode == 1
        assert "Connection refused" in done.stdout

    def test_a_database_password_that_is_given_is_the_same_however_often_the_chart_is_rendered(self) -> None:
        given = ("--set", "postgresql.postgresqlPassword=as-it-is_5")
        first, again = (named(rendered(*given), "Secret", "t-postgresql")["stringData"] for _ in range(2))
        assert first == again
        assert first["postgresql-password"] == "as-it-is_5"
        assert first["warehouse-uri"] == "postgresql://dagster:as-it-is_5@t-postgresql:5432/warehouse"
        made = [named(rendered(), "Secret", "t-postgresql")["stringData"]["postgresql-password"] for _ in range(2)]
        assert made[0] != made[1]

    def test_no_password_is_in_a_config_map(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        secrets = [value for f in objects if f["kind"] == "Secret" for value in f["stringData"].values()]
        elsewhere = json.dumps([found for found in objects if found["kind"] != "Secret"])

        assert len(secrets) == 3
        assert not [value for value in secrets if value in elsewhere]

    @pytest.mark.parametrize(
        ("change", "restarted"),
        [
            ("modelsPerRun=7", {f"location-{LOCATION}"}),
            ("runCoordinator.maxConcurrentRuns=3", {f"location-{LOCATION}", "webserver", "daemon"}),
            ("networkPolicy.enabled=false", set()),
        ],
    )
    def test_pods_begin_anew_when_what_they_read_changes(self, change: str, restarted: set[str]) -> None:
        before, after = (
            {name: pod["metadata"] for name, pod in pods(rendered(*arguments)) if name.startswith("Deployment")}
            for arguments in ([], ["--set", change])
        )

        changed = {name.removeprefix("Deployment t-") for name in before if before[name] != after[name]}
        assert changed == restarted

    def test_only_what_starts_pods_may_do_something_in_the_cluster(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        accounts = {
            name.removeprefix("Deployment t-"): pod["spec"].get("serviceAccountName", "default")
            for name, pod in pods(objects)
            if pod["spec"].get("automountServiceAccountToken", True)
        }
        subjects = named(objects, "RoleBinding", "t-launcher")["subjects"]

        assert {subject["name"] for subject in subjects} == {"t-dagster", "t-run"}
        assert [found["metadata"]["name"] for found in objects if "Binding" in found["kind"]] == ["t-launcher"]
        # The read-only one reads its token to name the launcher, and may do nothing by it.
        assert accounts == {
            "webserver": "t-dagster",
            "daemon": "t-dagster",
            "webserver-read-only": "t-webserver-read-only",
        }

    def test_a_location_keeps_the_sizes_that_it_does_not_set(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        (pools,) = dict(pods(objects))["Job t-pools-orders"]["spec"]["containers"]

        for container in (server_of(objects, "orders"), pools):
            assert container["resources"] == {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
        assert server_of(objects, LOCATION)["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}

    def test_the_ui_is_reached_through_the_login_only(self, everything: list[str]) -> None:
        objects = rendered(*everything)

        backend = named(objects, "Ingress", "t")["spec"]["rules"][0]["http"]["paths"][0]["backend"]
        assert backend["service"]["name"] == "t-oauth2-proxy"
        (source,) = named(objects, "NetworkPolicy", "t-webserver")["spec"]["ingress"][0]["from"]
        assert source["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "oauth2-proxy"


class TestDagster:
    def test_accepts_dagster_yaml(self, values: list[str], instance_of: Any) -> None:
        ref = instance_of(dagster_yaml(rendered(*values)))

        for data in (ref.run_launcher_data, ref.run_coordinator_data, ref.compute_logs_data, ref.storage_data):
            kind: Any = class_from_code_pointer(data.module_name, data.class_name)
            config = process_config(resolve_to_config_type(kind.config_type()), data.config_dict)
            assert config.success, config.errors
        # A plain postgresql:// is psycopg 3 for SQLAlchemy 2.1, which the image does not have.
        assert ref.storage_data.config_dict["postgres_db"]["scheme"] == "postgresql+psycopg2"
        # Else a run whose connection is lost on its way waits for two minutes, and fails.
        assert ref.storage_data.config_dict["postgres_db"]["params"]["connect_timeout"] == "5"
        assert ref.settings["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}

    def test_accepts_that_of_the_migration(self, values: list[str], instance_of: Any) -> None:
        ref = instance_of(dagster_yaml(rendered(*values), "t-migrate"))

        # Loading the run launcher needs a cluster's token, which the Job does not have.
        assert ref.run_launcher_data.class_name == "DefaultRunLauncher"

    def test_settings_agree_with_platform_dagster_yaml(self) -> None:
        here = yaml.safe_load(dagster_yaml(rendered()))
        laptop = yaml.safe_load((CHART.parent / "platform" / "dagster.yaml").read_text())

        for section in ("telemetry", "nux", "run_retries", "freshness", "python_logs", "sensors", "run_coordinator"):
            assert here[section] == laptop[section], section

    def test_runs_and_steps_are_restricted(self, values: list[str], instance_of: Any) -> None:
        ref = instance_of(dagster_yaml(rendered(*values)))
        gpu = step_config(Request(cpu=1, memory="2Gi", gpu=1), {})

        run = launched(ref)
        variables = [found["name"] for found in run["spec"]["containers"][0]["env"]]
        assert len(variables) == len(set(variables))
        assert_restricted("a run", run)
        assert_restricted("a step", launched(ref, gpu))

    @pytest.mark.parametrize(
        "tag",
        [
            {"container_config": {"securityContext": {"privileged": True}}},
            {"container_config": {"image": "mine:1"}},
            {"container_config": {"command": ["sh"]}},
            {"container_config": {"env": [{"name": "PYTHONPATH", "value": "/mine"}]}},
            {"container_config": {"env_from": [{"secret_ref": {"name": "login"}}]}},
            {"container_config": {"volume_mounts": [{"name": "host", "mount_path": "/host"}]}},
            {"pod_spec_config": {"volumes": [{"name": "host", "host_path": {"path": "/"}}]}},
            {"pod_spec_config": {"service_account_name": "default"}},
            {"pod_spec_config": {"host_network": True}},
            {"pod_spec_config": {"security_context": {"run_as_user": 0}}},
            {"pod_spec_config": {"containers": [{"name": "other", "image": "mine:1"}]}},
            {"pod_template_spec_metadata": {"annotations": {"iam.amazonaws.com/role": "admin"}}},
            {"job_config": {"metadata": {"name": "mine"}}},
        ],
        ids=str,
    )
    def test_a_runs_tag_cannot_give_it_rights(self, tag: dict[str, Any], instance_of: Any) -> None:
        objects = rendered()
        ref = instance_of(dagster_yaml(objects))

        (kind,) = tag
        with pytest.raises(Exception, match=rf"violated the allowed list: {kind}\."):
            launched(ref, server=server_of(objects, LOCATION), tag=tag)

    def test_what_a_runs_pod_runs_does_dagsters_command(self, instance_of: Any) -> None:
        (container,) = launched(instance_of(dagster_yaml(rendered())))["spec"]["containers"]
        init, end, python, *program = container["command"]
        assert (init, end, python) == ("tini", "--", "python")
        version = subprocess.run([sys.executable, *program, "dagster", "--version"], capture_output=True, text=True)
        assert version.stdout.startswith("dagster, version "), version.stderr

    def test_a_runs_tag_says_its_size_and_place(self, everything: list[str], instance_of: Any) -> None:
        objects = rendered(*everything)
        request = Request(cpu=1, memory="2Gi", gpu=1, gpu_type="l4", timeout="1h")
        tag = step_config(request, self.settings(objects).node_pools)

        run = launched(instance_of(dagster_yaml(objects)), server=server_of(objects, "orders"), tag=tag)

        assert run["spec"]["nodeSelector"] == {"pool": "l4"}
        assert run["spec"]["activeDeadlineSeconds"] == 3600
        assert run["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
        assert_restricted("a run with a tag", run)

    def test_a_step_may_have_an_image_of_its_own(self, everything: list[str], instance_of: Any) -> None:
        objects = rendered(*everything)
        server, config = server_of(objects, "orders"), step_config(Request(image="other:1"), {})

        step = launched(instance_of(dagster_yaml(objects)), config, server=server)

        assert step["spec"]["containers"][0]["image"] == "other:1"

    def test_what_tags_may_set_is_for_the_operator_to_say(self, instance_of: Any) -> None:
        settings = ["runLauncher.tagsMaySet.container_config.image=true"]
        settings += ["runLauncher.tagsMaySet.container_config.resources=false"]
        objects = rendered(*(part for setting in settings for part in ("--set", setting)))
        ref, server = instance_of(dagster_yaml(objects)), server_of(objects, LOCATION)

        run = launched(ref, server=server, tag={"container_config": {"image": "mine:1"}})

        assert run["spec"]["containers"][0]["image"] == "mine:1"
        with pytest.raises(Exception, match=r"container_config\.resources"):
            launched(ref, server=server, tag={"container_config": {"resources": {"limits": {"cpu": "64"}}}})

    def test_steps_have_what_runs_have_but_for_size_and_place(self, everything: list[str], instance_of: Any) -> None:
        objects = rendered(*everything)
        pools = self.settings(objects).node_pools
        run, step = (
            launched(instance_of(dagster_yaml(objects)), config)
            for config in (None, step_config(Request(cpu=1, memory="2Gi", gpu=1, gpu_type="l4"), pools))
        )

        for key in ("env", "envFrom", "volumeMounts", "securityContext", "image"):
            assert step["spec"]["containers"][0][key] == run["spec"]["containers"][0][key], key
        for key in ("volumes", "securityContext", "serviceAccountName", "imagePullSecrets"):
            assert step["spec"][key] == run["spec"][key], key
        assert run["spec"]["nodeSelector"] == {"pool": "general"}
        assert step["spec"]["nodeSelector"] == {"pool": "l4"}
        assert [found["key"] for found in step["spec"]["tolerations"]] == [GPU_RESOURCE]

    def test_wherever_dagster_records_it_does_so_in_batches(self, everything: list[str], instance_of: Any) -> None:
        objects = rendered(*everything)
        ref = instance_of(dagster_yaml(objects))
        dagsters = {name: pod for name, pod in pods(objects) if re.search("-(webserver|daemon|location-[a-z]+)$", name)}
        assert len(dagsters) >= 3
        for name, pod in {**dagsters, "run": launched(ref), "step": launched(ref, {})}.items():
            (container,) = pod["spec"]["containers"]
            assert {"name": "DAGSTER_EVENT_BATCH_SIZE", "value": "500"} in container["env"], name

    def test_runs_are_in_the_release(self, everything: list[str], instance_of: Any) -> None:
        ref = instance_of(dagster_yaml(rendered(*everything)))

        run = launched(ref)

        assert ref.run_launcher_data.config_dict["job_namespace"] == "team"
        assert run["spec"]["serviceAccountName"] == "t-run"
        assert (
            run["metadata"]["labels"].items()
            >= {
                "app.kubernetes.io/instance": "t",
                "azure.workload.identity/use": "true",
            }.items()
        )

    def test_a_location_gives_its_runs_and_steps_its_image_and_secrets(
        self, everything: list[str], instance_of: Any
    ) -> None:
        objects = rendered(*everything)
        server, ref = server_of(objects, "orders"), instance_of(dagster_yaml(objects))

        for config in (None, step_config(Request(cpu=1), {})):
            (container,) = launched(ref, config, server=server)["spec"]["containers"]
            assert container["image"] == server["image"] == "tilth:7"
            assert container["imagePullPolicy"] == "Always"
            assert {"secretRef": {"name": "orders-keys"}} in container["envFrom"]

    def test_the_workspace_names_each_location(self, everything: list[str]) -> None:
        objects = rendered(*everything)
        workspace = yaml.safe_load(named(objects, "ConfigMap", "t-workspace")["data"]["workspace.yaml"])

        for entry in workspace["load_from"]:
            service = named(objects, "Service", entry["grpc_server"]["host"])
            assert service["spec"]["ports"][0]["port"] == entry["grpc_server"]["port"]

    def test_the_settings_are_those_that_the_code_reads(self, everything: list[str]) -> None:
        settings = self.settings(rendered(*everything))

        assert settings.executor == "kubernetes"
        assert settings.models_per_run == 4
        assert settings.node_pools["l4"] == NodePool(
            gpu_type="l4", selector={"pool": "l4"}, tolerations=EVERYTHING["nodePools"]["l4"]["tolerations"]
        )
        assert settings.node_pools["general"].default
        assert settings.node_pools["spot"].spot
        data = named(rendered(*everything), "ConfigMap", "t-settings")["data"]
        known = {f"TILTH_{name.upper()}" for name in Deployment.model_fields}
        assert {name for name in data if name.startswith("TILTH_")} <= known

    @staticmethod
    def settings(objects: list[dict[str, Any]]) -> Deployment:
        data = named(objects, "ConfigMap", "t-settings")["data"]
        with patch.dict(os.environ, data):
            return Deployment()


class TestLogs:
    @pytest.mark.parametrize(
        ("settings", "kept_by"),
        [
            ("", "LocalComputeLogManager"),
            ("computeLogs.s3.bucket=logs", "S3ComputeLogManager"),
            (
                "storage.persistentVolumeClaim.enabled=false,storage.lakeUri=gs://b/lake,storage.landingUri=s3://b/in,"
                "storage.modelsUri=/models",
                "NoOpComputeLogManager",
            ),
        ],
    )
    def test_what_steps_print_is_kept_where_there_is_a_place(self, settings: str, kept_by: str) -> None:
        config = yaml.safe_load(dagster_yaml(rendered(*(["--set", settings] if settings else []))))

        assert config["compute_logs"]["class"] == kept_by

    def test_webserver_and_daemon_have_the_volume_only_for_logs(self) -> None:
        def mounts(*arguments: str) -> set[str]:
            spec = dict(pods(rendered(*arguments)))["Deployment t-webserver"]["spec"]
            return {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}

        assert "data" in mounts()
        assert "data" not in mounts("--set", "computeLogs.s3.bucket=logs")


def test_node_pools_of_the_example_are_valid() -> None:
    objects = rendered(*example("values-production.yaml"))
    pools = named(objects, "ConfigMap", "t-settings")["data"]["TILTH_NODE_POOLS"]

    found = TypeAdapter(dict[str, NodePool]).validate_json(pools)

    assert {name for name, pool in found.items() if pool.gpu_type == "l4"} == {"l4", "l4-spot"}


def test_the_quota_of_the_example_has_room_for_the_runs_that_it_lets_be() -> None:
    """Finished Jobs count until they are deleted: of runs of a minute each, one after the other, as many as minutes."""
    values = yaml.safe_load((CHART / "values-production.yaml").read_text())
    ref = yaml.safe_load(dagster_yaml(rendered(*example("values-production.yaml"))))
    kept = ref["run_launcher"]["config"]["run_k8s_config"]["job_spec_config"]["ttlSecondsAfterFinished"]

    jobs = values["runCoordinator"]["maxConcurrentRuns"] * (1 + kept / 60)

    assert int(values["resourceQuota"]["count/jobs.batch"]) > jobs


def test_the_example_trains_models_in_batches() -> None:
    assert TestDagster.settings(rendered(*example("values-production.yaml"))).models_per_run == 12
