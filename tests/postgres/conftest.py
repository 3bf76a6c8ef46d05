"""A PostgreSQL server of the tests' own."""

from collections.abc import Iterator

import pytest

from tests.postgres.server import NotInstalledError, postgres_server


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """The address of an empty database on 127.0.0.1; the server and its data are gone afterwards."""
    try:
        # The data need not outlive the machine.
        with postgres_server(["fsync=off"]) as uri:
            yield uri
    except NotInstalledError as error:
        pytest.fail(str(error))
