"""One release of the chart for all tests, in a namespace of its own, on the cluster that KUBECONFIG names."""

import json
import os
import subprocess
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kubernetes.cluster import LOCATION, Platform, namespace, program

# The least that a run works with: as many as the tests launch at once find room on a small node.
RUN = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The release, installed once; its namespace and volumes go with the session."""
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("KUBECONFIG is not set: these tests need a cluster, and name none by themselves.", pytrace=False)
    with namespace([LOCATION, "trial"]) as platform, watched(platform):
        # Clusters that have Pod Security admission (1.25) refuse what is not restricted from now on.
        platform.kubectl("label", "namespace", platform.namespace, "pod-security.kubernetes.io/enforce=restricted")
        platform.values["runLauncher"] = {"resources": RUN}
        try:
            platform.install()
        except AssertionError as error:
            pytest.fail(f"{error}\n{platform.described()}", pytrace=False)
        yield platform


@contextmanager
def watched(platform: Platform) -> Iterator[None]:
    """Meanwhile each pod that there ever is, is kept in `platform.seen`, as it was last."""
    watch = subprocess.Popen(
        [program("kubectl"), "--namespace", platform.namespace, "get", "pods", "--watch", "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )

    def keep() -> None:
        lines: list[str] = []
        for line in watch.stdout or ():
            lines.append(line)
            if line == "}\n":  # of a pod, kubectl indents all but the braces around it
                pod: dict[str, Any] = json.loads("".join(lines))
                platform.seen[pod["metadata"]["name"]] = pod
                lines = []

    threading.Thread(target=keep, daemon=True).start()
    try:
        yield
    finally:
        watch.terminate()
        watch.wait()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails says how the platform was at that moment."""
    report = yield
    platform = getattr(item, "funcargs", {}).get("platform")
    if report.failed and isinstance(platform, Platform):
        report.sections.append(("the platform", platform.described()))
    return report
