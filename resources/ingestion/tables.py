"""A table that feeds land as files, declared once: its schema, its days, its limits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow

from resources.ingestion.limits import Limits
from tilth.versioning.code import declaration_version

if TYPE_CHECKING:  # pandera takes a second to import: for the processes that read files
    import pandera.pandas as pa

_USUAL = Limits()


@dataclass(frozen=True, eq=False)
class LandedTable:
    """A table that lands by day, as `<name>/2013-01-31.csv.gz`, or whole, as `<name>/<name>.csv`.

    Lines that keep to the schema are rows of `<warehouse_schema>.<name>`, the others of
    `<warehouse_schema>_rejected.<name>`.

    Attributes:
        schema: where the pandera schema is declared, as `module:name`; it is imported only where files are read.
        by: the days that it lands by; None for a table that lands whole.
        day: of a table by day, the column that holds the day of the file's name.
        dated_by: columns of the file that say the day too: one of dates, or those of year, month and day. A file that
            holds another day's lines is refused.
        limits: how much of a file may be turned away or missing before a person is asked.
    """

    name: str
    schema: str
    description: str
    by: dg.DailyPartitionsDefinition | None = None
    day: str = ""
    dated_by: Sequence[str] = ()
    limits: Limits = _USUAL
    warehouse_schema: str = "raw"

    def __post_init__(self) -> None:
        if (self.by is None) == bool(self.day):
            raise ValueError(f"{self.name}: a table by day takes both, `by` and `day`, the column that holds the day.")
        if len(self.dated_by) not in (0, 1, 3):
            raise ValueError(
                f"{self.name} is dated by {', '.join(self.dated_by)}: name one column of dates, or those of year, "
                "month and day."
            )

    @property
    def key(self) -> dg.AssetKey:
        """The asset of its rows."""
        return dg.AssetKey([self.warehouse_schema, self.name])

    @property
    def accepted(self) -> str:
        """The warehouse table of the lines that keep to the schema."""
        return f"{self.warehouse_schema}.{self.name}"

    @property
    def rejected(self) -> str:
        """The warehouse table of the lines that do not."""
        return f"{self.warehouse_schema}_rejected.{self.name}"

    @property
    def partitions(self) -> set[str | None]:
        """The days of which files are read; None stands for the one of a table that lands whole."""
        return set(self.by.get_partition_keys()) if self.by else {None}

    def pandera_schema(self) -> "pa.DataFrameSchema":
        """Its declared schema."""
        return resolve_name(self.schema)

    def arrow_schema(self) -> pyarrow.Schema:
        """The declared columns in order, with their Arrow types."""
        columns = self.pandera_schema().columns
        return pyarrow.schema([(name, column.dtype.type.pyarrow_dtype) for name, column in columns.items()])

    def code_version(self) -> str:
        """A hash of what this declaration says, and of the schema with all that it mentions of its project.

        Raises:
            LookupError: the schema is not where `schema` says. Its module is not imported.
        """
        module, _, name = self.schema.partition(":")
        try:
            declared = [self.name, self.day, *self.dated_by, self.limits, declaration_version(module, name)]
        except LookupError as error:
            raise LookupError(
                f"{self.name}: its schema is not at {self.schema!r}; name it as <module>:<name>."
            ) from error
        return hashlib.sha256(repr(declared).encode()).hexdigest()[:16]
