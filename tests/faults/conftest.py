"""The services that these tests need."""

from tests.postgres.conftest import postgres_uri as postgres_uri
