"""The platform on the cluster that KUBECONFIG names, as a person has it: by kubectl, helm and the UI's own API."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
RELEASE = "tilth"
_TOOLS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "kubernetes-test-cluster/bin")


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(_TOOLS))
    if found is None:
        raise RuntimeError(f"{name} is needed for these tests, and is not on the PATH.")
    return found


def until(found: Callable[[], Any], what: str, seconds: float = 180) -> Any:
    """What `found` gives once it gives something; fails when it never does."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(1)
    return value


@dataclass
class Platform:
    """One release of the chart, in a namespace of its own."""

    namespace: str
    values: dict[str, Any]
    service: str = f"{RELEASE}-webserver"
    forward: subprocess.Popen[str] | None = None
    address: str = ""
    runs: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict, repr=False)  # each pod that there ever was, by name
    opening: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def kubectl(self, *arguments: str, check: bool = True, text: str | None = None) -> str:
        done = subprocess.run(
            [program("kubectl"), "--namespace", self.namespace, *arguments],
            capture_output=True, text=True, check=False, input=text,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def get(self, kind: str, *arguments: str) -> list[Any]:
        return json.loads(self.kubectl("get", kind, *arguments, "--output", "json"))["items"]

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program("helm"), "--namespace", self.namespace, *arguments], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"helm {arguments}: {done.stderr}\n{self.kubectl('get', 'pods')}"
        return done

    def install(self, command: str = "install", **more: Any) -> None:
        """`helm install`, or `upgrade`, with the trial's values and these; until all of it is ready."""
        values = json.dumps({**self.values, **more})
        files = ["--values", str(CHART / "values-trial.yaml"), "--values", "/dev/stdin"]
        done = subprocess.run(
            [program("helm"), "-n", self.namespace, command, RELEASE, str(CHART), *files, "--wait", "--timeout", "5m"],
            input=values, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"helm {command}: {done.stderr}\n{self.kubectl('get', 'pods')}"
        self.close()

    def close(self) -> None:
        with self.opening:
            if self.forward is not None:
                self.forward.terminate()
                self.forward.wait()
                self.forward = None

    def graphql(self, query: str, **variables: Any) -> Any:
        """What the UI's API answers; asked again while the webserver, or its database, is being replaced."""
        end = time.monotonic() + 90
        while True:
            try:
                body = {"query": query, "variables": variables}
                answer = requests.post(f"{self._address()}/graphql", json=body, timeout=30).json()
                if answer.get("data") is None:  # its database is away, or the query is wrong
                    raise ConnectionError(answer)
                return answer["data"]
            except OSError as error:
                self.close()
                if time.monotonic() > end:
                    raise AssertionError(f"the webserver did not answer for 90 s: {error}") from error
                time.sleep(1)

    def _address(self) -> str:
        with self.opening:
            if self.forward is None or self.forward.poll() is not None:
                self.forward = subprocess.Popen(
                    [program("kubectl"), "-n", self.namespace, "port-forward", f"service/{self.service}", ":80"],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
                said: Any = self.forward.stdout
                found = re.search(r"127\.0\.0\.1:\d+", said.readline())
                if found is None:
                    raise ConnectionError("kubectl port-forward ended")
                self.address = f"http://{found[0]}"
                # It tells of every connection, and stops when nobody reads that.
                threading.Thread(target=said.read, daemon=True).start()
            return self.address

    def launch(
        self,
        *assets: str,
        partition: str = "",
        tags: dict[str, str] | None = None,
        job: str = "",
        location: str = "trial",
    ) -> str:
        """Materialize assets of the location, or run its job, as the UI does; the run's id."""
        selector: dict[str, Any] = {
            "repositoryLocationName": location,
            "repositoryName": "__repository__",
            "pipelineName": job or "__ASSET_JOB",
        }
        if assets:
            selector["assetSelection"] = [{"path": asset.split("/")} for asset in assets]
            selector["assetCheckSelection"] = []
        tags = {**({"dagster/partition": partition} if partition else {}), **(tags or {})}
        launched = self.graphql(
            """mutation($run: ExecutionParams!) { launchPipelineExecution(executionParams: $run) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            run={
                "selector": selector, "runConfigData": {}, "mode": "default",
                "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
            },
        )["launchPipelineExecution"]  # fmt: skip
        assert "run" in launched, launched
        return launched["run"]["runId"]

    def status(self, run: str) -> str:
        query = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"
        return self.graphql(query, run=run)["runOrError"]["status"]

    def ended(self, run: str, seconds: float = 240) -> str:
        """How the run ended."""
        over = ("SUCCESS", "FAILURE", "CANCELED")
        return until(lambda: (now := self.status(run)) in over and now, f"run {run} ends", seconds)

    def events(self, run: str) -> list[dict[str, Any]]:
        """The run's events: eventType, stepKey, message, timestamp in ms, and of failures and retries error."""
        found = self.graphql(
            """query($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
                 ... on MessageEvent { message stepKey eventType timestamp }
                 ... on ErrorEvent { error { message } } } } } }""",
            run=run,
        )["logsForRun"]["events"]
        return [event for event in found if event.get("eventType")]

    def said(self, run: str, event_type: str) -> list[str]:
        """What the run's events of a type say; of failures and retries, their errors."""
        events = [event for event in self.events(run) if event["eventType"] == event_type]
        return [event["error"]["message"].strip() if event.get("error") else event["message"] for event in events]

    def retry_of(self, run: str, seconds: float = 120) -> str:
        """The run that tries this one again."""
        query = """query($run: String!) { runsOrError(filter: {tags: [{key: "dagster/parent_run_id", value: $run}]}) {
                     ... on Runs { results { runId } } } }"""

        def found() -> str:
            results = self.graphql(query, run=run)["runsOrError"]["results"]
            return results[0]["runId"] if results else ""

        return until(found, f"run {run} is tried again", seconds)

    def cancel(self, run: str) -> None:
        query = """mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""
        assert self.graphql(query, run=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def pods(self, run: str, component: str = "step_worker") -> list[Any]:
        labels = f"dagster/run-id={run},app.kubernetes.io/component={component}"
        return self.get("pods", "--selector", labels)

    def leaves_no_pod(self, run: str) -> None:
        """A pod that was deleted is still listed until its node has ended it."""
        until(lambda: not self.pods(run), f"the pods of run {run} are gone", 60)

    def running_pod(self, run: str, component: str = "step_worker") -> str:
        def found() -> str:
            names = [
                pod["metadata"]["name"] for pod in self.pods(run, component) if pod["status"]["phase"] == "Running"
            ]
            return names[0] if names else ""

        return until(found, f"a {component} of run {run} is running", 90)

    def materializations(self, asset: str) -> list[dict[str, Any]]:
        """Newest first: runId and partition."""
        found = self.graphql(
            """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
                 assetMaterializations(limit: 1000) { runId partition } } } }""",
            key={"path": asset.split("/")},
        )["assetOrError"]
        return found.get("assetMaterializations", [])

    def in_location(self, location: str, *command: str) -> str:
        return self.kubectl(
            "exec", f"deployment/{RELEASE}-location-{location}", "--container", "code-location", "--", *command
        )

    def described(self) -> str:
        """What a person would look at first: pods, warnings, and what the pods that are not well said last."""
        of_warnings = ["--field-selector", "type=Warning", "--sort-by", ".lastTimestamp"]
        said = [self.kubectl("get", "pods", "--output", "wide", check=False)]
        said += self.kubectl("get", "events", *of_warnings, check=False).splitlines()[-20:]
        for pod in self.get("pods"):
            name, containers = pod["metadata"]["name"], pod["status"].get("containerStatuses", [])
            restarted = any(found["restartCount"] for found in containers)
            well = pod["status"]["phase"] == "Succeeded" or all(found["ready"] for found in containers)
            if restarted or not well:
                logs = ["logs", name, "--all-containers", "--tail", "30", "--limit-bytes", "5000"]
                said += [f"--- {name}", self.kubectl(*logs, check=False)]
                said += [self.kubectl(*logs, "--previous", check=False)] * restarted
        return "\n".join(said)


# The default pool tolerates the GPUs' taint, so that one node may be all pools.
TAINTED = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
NODE_POOLS = {
    "general": {"default": True, "tolerations": TAINTED},
    # Of a label that each node has: which pool a pod was given is seen on the pod.
    "spot": {"spot": True, "selector": {"kubernetes.io/os": "linux"}, "tolerations": TAINTED},
    "gpu": {"gpuType": "t4", "selector": {"accelerator": "nvidia-test"}, "tolerations": TAINTED},
    "gpu-elsewhere": {"gpuType": "h100", "selector": {"accelerator": "none-here"}, "tolerations": TAINTED},
}
# The location of the chart's own values, and those that are in the test's image alone.
LOCATION, MODULE = yaml.safe_load((CHART / "values.yaml").read_text())["codeLocations"][0].values()
MODULES = {LOCATION: MODULE, "trial": "trial", "stock": "stock", "bare": "bare"}


@contextmanager
def namespace(locations: Sequence[str]) -> Iterator[Platform]:
    """A namespace of its own, deleted in the end, and in it the platform with these locations, not yet installed.

    Images are those that TILTH_IMAGE (the project's with tests/kubernetes/location) and TILTH_POSTGRES_IMAGE name.
    """
    repository, _, tag = os.environ.get("TILTH_IMAGE", "tilth-trial:ci").rpartition(":")
    platform = Platform(
        f"tilth-{uuid4().hex[:8]}",
        {
            "image": {"repository": repository, "tag": tag},
            "postgresql": {"image": os.environ.get("TILTH_POSTGRES_IMAGE", "tilth-postgres:ci")},
            "codeLocations": [{"name": name, "module": MODULES[name]} for name in locations],
            "steps": {"memoryCeiling": "2Gi", "unschedulableAfter": "45s"},
            "nodePools": NODE_POOLS,
            "runCoordinator": {"maxConcurrentRuns": 6},
        },
    )
    platform.kubectl("create", "namespace", platform.namespace)
    try:
        yield platform
    finally:
        platform.close()
        platform.kubectl("delete", "namespace", platform.namespace, "--timeout", "120s", check=False)


def restricted(pod: Any) -> Sequence[str]:
    """What of the restricted Pod Security Standard a live pod does not keep to."""
    spec, problems = pod["spec"], []
    context = spec.get("securityContext", {})
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        problems.append("it shares a namespace of its node")
    allowed = {
        "configMap",
        "downwardAPI",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "csi",
        "ephemeral",
    }
    problems += [f"volume {v['name']}" for v in spec.get("volumes", []) if not (set(v) - {"name"}) <= allowed]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own, name = container.get("securityContext", {}), container["name"]
        if not own.get("runAsNonRoot", context.get("runAsNonRoot")):
            problems.append(f"{name} may run as root")
        if own.get("runAsUser", context.get("runAsUser")) == 0:
            problems.append(f"{name} runs as root")
        if own.get("allowPrivilegeEscalation") is not False:
            problems.append(f"{name} may gain privileges")
        if "ALL" not in own.get("capabilities", {}).get("drop", []):
            problems.append(f"{name} keeps capabilities")
        profile = own.get("seccompProfile", context.get("seccompProfile", {})).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            problems.append(f"{name} has no seccomp profile")
        if not own.get("readOnlyRootFilesystem"):  # ours, beyond the standard
            problems.append(f"{name} can write its root")
    return problems
