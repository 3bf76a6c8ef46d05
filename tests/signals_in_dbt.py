"""dbt, ended when a test wants it: a model's rows are committed and its tests are still to come."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals
from typing import Any

import pytest
from dbt.cli.main import dbtRunner

from resources import dbt_runner


@contextmanager
def signal_after(model: str, signal: Signals) -> Iterator[None]:
    """As long as the block runs, this process gets the signal when dbt says that it made the model, `schema.table`."""

    class Signalling(dbtRunner):
        def __init__(self, manifest: Any, callbacks: list[Any]) -> None:
            super().__init__(manifest, [*callbacks, self.look])

        def look(self, event: Any) -> None:
            if event.info.name == "LogModelResult" and model in event.info.msg:
                os.kill(os.getpid(), signal)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dbt_runner, "dbtRunner", Signalling)
        yield
