"""An S3 endpoint of the tests' own, over HTTP on 127.0.0.1."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import boto3
import pytest
from botocore.client import BaseClient

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "only-for-this-test", "AWS_SECRET_ACCESS_KEY": "only-for-this-test"}


@dataclass(frozen=True)
class S3:
    """A running endpoint."""

    endpoint_url: str
    region: str = REGION

    @property
    def client(self) -> BaseClient:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def bucket(self) -> str:
        """A new, empty bucket's name."""
        name = f"tilth-{uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextmanager
def s3_server(environment: dict[str, str] | None = None) -> Iterator[S3]:
    """moto's server in a process of its own; its buckets are gone afterwards."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"moto's server did not start (exit status {server.poll()})")
            time.sleep(0.1)
        yield S3(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A running endpoint, and the credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as environment, s3_server() as server:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        yield server
