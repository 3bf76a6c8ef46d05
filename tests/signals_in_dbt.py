"""dbt, ended when a test wants it: between a model and its tests, before what it built is committed, or after."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals
from typing import Any

import pytest
from dbt.cli.main import dbtRunner

from resources import dbt_runner
from resources.dbt_transaction import Transaction

BEFORE_COMMIT, AFTER_COMMIT = "before the commit", "after the commit"


@contextmanager
def signal_after(moment: str, signal: Signals) -> Iterator[None]:
    """As long as the block runs, this process gets the signal at that moment of a dbt command.

    Args:
        moment: when dbt says that it made this model, `schema.table`; or before or after the command's commit.
    """

    class Signalling(dbtRunner):
        def __init__(self, manifest: Any, callbacks: list[Any]) -> None:
            super().__init__(manifest, [*callbacks, self.look])

        def look(self, event: Any) -> None:
            if event.info.name == "LogModelResult" and moment in event.info.msg:
                os.kill(os.getpid(), signal)

    class Committing(Transaction):
        def commit(self) -> None:
            if moment == BEFORE_COMMIT:
                os.kill(os.getpid(), signal)
            super().commit()
            if moment == AFTER_COMMIT:
                os.kill(os.getpid(), signal)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dbt_runner, "dbtRunner", Signalling)
        patched.setattr("resources.dbt_transaction.Transaction", Committing)
        yield
