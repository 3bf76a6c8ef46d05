"""What all tests share."""

from collections.abc import Iterator

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import settings

from tests.s3 import s3 as s3

pytest_plugins = ["tests.example"]

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="session", autouse=True)
def revisions_read_once() -> Iterator[None]:
    """Alembic reads all revisions of a storage when one is opened, a tenth of what a test of a new instance takes."""
    read: dict[str | None, ScriptDirectory] = {}

    def of_config(config: Config) -> ScriptDirectory:
        where = config.get_main_option("script_location")
        if where not in read:
            read[where] = from_config(config)
        return read[where]

    from_config = ScriptDirectory.from_config
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ScriptDirectory, "from_config", of_config)
        yield
