"""What a step of `@dbt_assets` selects of its dbt project, and Dagster's events of what dbt did.

docs/upgrading.md names what of dagster-dbt and Dagster here is not public.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import dagster as dg
from dagster._utils.interrupts import raise_interrupts_as
from dagster_dbt import DagsterDbtTranslator
from dagster_dbt.asset_utils import DbtCliInvocationPartialParams, get_updated_cli_invocation_params_for_context
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

DbtEvent: TypeAlias = (
    dg.Output[object] | dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckResult | dg.AssetCheckEvaluation
)
"""What a step yields of a model or a test."""
DbtMessage: TypeAlias = Mapping[str, Mapping[str, object]]
"""An event of dbt's as it logs it in JSON: `info` and `data`."""


@dataclass(frozen=True)
class DbtStep:
    """A step of `@dbt_assets`."""

    context: dg.AssetExecutionContext
    _parameters: DbtCliInvocationPartialParams

    @property
    def arguments(self) -> list[str]:
        """Of a dbt command, what selects the step's models and tests."""
        how = self._parameters.indirect_selection
        return [*self._parameters.selection_args, *(["--indirect-selection", how] if how else [])]

    @property
    def project_dir(self) -> Path | None:
        """Where dbt is to look for the project; None where the assets' own folder serves."""
        project = self._parameters.dbt_project
        return project.project_dir if project else None

    def events(self, message: DbtMessage, target_path: Path) -> Iterator[DbtEvent]:
        """What a message of dbt's tells of models and tests; `target_path` is where dbt compiled them."""
        found = self._parameters
        yield from DbtCoreCliEventMessage(dict(message), {}).to_default_asset_events(
            found.manifest, found.dagster_dbt_translator, self.context, target_path, found.dbt_project
        )


def dbt_step(context: dg.AssetExecutionContext) -> DbtStep:
    """What `DbtCliResource.cli` asks of its context too: manifest, translator and selection of assets and checks."""
    return DbtStep(context, get_updated_cli_invocation_params_for_context(context, {}, DagsterDbtTranslator()))


def as_text(message: DbtMessage) -> str:
    """The message as dagster-dbt writes it into a step's output."""
    return str(DbtCoreCliEventMessage(dict(message), {}))


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Within it, what tells the step to end is Python's own KeyboardInterrupt, and Dagster's error when it is left.

    Raises:
        DagsterExecutionInterruptedError: the step was told to end.
    """
    try:
        with raise_interrupts_as(KeyboardInterrupt):
            yield
    except KeyboardInterrupt:
        raise dg.DagsterExecutionInterruptedError from None
