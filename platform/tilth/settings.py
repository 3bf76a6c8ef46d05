"""Where this deployment keeps its state: one typed object, read from `TILTH_*` variables.

Every value has an embedded default, so that a laptop needs no configuration; a cluster sets the same variables.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _project_root() -> Path:
    """The nearest folder at or above the working directory that holds workspace.yaml; else the working directory.

    So a notebook in a subfolder finds the same state as a command in the root.
    """
    here = Path.cwd()
    return next((d for d in (here, *here.parents) if (d / "workspace.yaml").is_file()), here)


class NodePool(BaseModel):
    """Nodes of one kind of a cluster: how they are selected, what their pods must tolerate, and what they have.

    `gpu_type` is None for nodes without GPUs; `spot` nodes may be taken away. The `default` pool is where all work goes
    that asks for nothing else: the chart puts its selector on every run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu_type: str | None = None
    spot: bool = False
    default: bool = False
    selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class Deployment(BaseSettings):
    """The settings of one deployment.

    `TILTH_HOME` holds all local state; the four stores below lie in it unless their own variable says otherwise.
    """

    model_config = SettingsConfigDict(env_prefix="TILTH_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: _project_root() / ".tilth")
    # The folder within lake and models. Warehouse and event log have none yet.
    branch: str = "main"
    landing_uri: str = ""
    warehouse_uri: SecretStr = SecretStr("")
    lake_uri: str = ""
    models_uri: str = ""
    # Of a backfill, how many models one run trains; 0 is all of them. On a cluster each run has pods of its own.
    models_per_run: int = Field(default=0, ge=0)
    # Where steps run: "local" in processes of the run's machine; "kubernetes" too, but what asks for a machine in pods.
    executor: Literal["local", "kubernetes"] = "local"
    # A JSON object, name to pool.
    node_pools: dict[str, NodePool] = {}
    # How much a step that ran out of memory is given at most, and how long one may wait for a node.
    memory_ceiling: str = Field(default="64Gi", pattern="^[1-9][0-9]*(Mi|Gi|Ti)$")
    unschedulable_after: str = Field(default="10m", pattern="^[1-9][0-9]*[smh]$")
    # Of an incoming webhook: who knows it can post there.
    alerts_uri: SecretStr = SecretStr("")
    # Credentials come from where AWS' own tools look for them: variables, a profile, the machine's or pod's role.
    s3_endpoint_url: str = Field(default="", pattern="^($|https?://)")
    s3_region: str = ""

    @field_validator("branch")
    @classmethod
    def _is_main(cls, branch: str) -> str:
        if branch != "main":
            raise ValueError(
                f"TILTH_BRANCH is {branch!r}: a branch would overwrite the tables of main in the warehouse, which it "
                "shares with it. Leave TILTH_BRANCH out, and give a trial a TILTH_HOME and stores of its own."
            )
        return branch

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        home = self.home.expanduser().absolute()
        defaults = {
            "home": home,
            "landing_uri": self.landing_uri or str(home / "landing"),
            # A secret, because a PostgreSQL URI may carry a password.
            "warehouse_uri": self.warehouse_uri
            if self.warehouse_uri.get_secret_value()
            else SecretStr(f"duckdb:///{home / 'warehouse.duckdb'}"),
            "lake_uri": self.lake_uri or str(home / "lake"),
            "models_uri": self.models_uri or str(home / "models"),
        }
        for name, value in defaults.items():
            object.__setattr__(self, name, value)
        return self

    @property
    def storage_options(self) -> dict[str, str]:
        """How object stores are reached beyond what the environment says, in the names that delta-rs takes."""
        options = {"aws_endpoint_url": self.s3_endpoint_url, "aws_region": self.s3_region}
        if self.s3_endpoint_url.startswith("http://"):
            options["aws_allow_http"] = "true"
        return {name: value for name, value in options.items() if value}
