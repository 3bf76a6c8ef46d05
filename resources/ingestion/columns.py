"""What a table's schema is made of: columns, and rules that say in words what breaks them."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pandera.pandas as pa
import pyarrow

DATE, STRING, INTEGER, NUMBER = pyarrow.date32(), pyarrow.string(), pyarrow.int64(), pyarrow.float64()
INSTANT = pyarrow.timestamp("us", tz="UTC")


def column(kind: pyarrow.DataType, *checks: pa.Check, optional: bool = False) -> pa.Column:
    """A column of one of the types above; `optional` where a feed may leave values out."""
    return pa.Column(pd.ArrowDtype(kind), list(checks), nullable=optional)


def in_range(low: float, high: float) -> pa.Check:
    """Both ends are allowed."""
    return pa.Check.in_range(low, high, error=f"is not in {low}..{high}")


def one_of(*values: str) -> pa.Check:
    """One of a few texts."""
    return pa.Check.isin(values, error=f"is not one of {', '.join(values)}")


def matches(pattern: str, meaning: str) -> pa.Check:
    """A text that matches as a whole; `meaning` says in words what it should be."""
    return pa.Check.str_matches(f"^{pattern}$", error=f"is not {meaning}")


def agree(columns: Sequence[str], rule: str, holds: Callable[[pd.DataFrame], pd.Series]) -> pa.Check:
    """A check across columns. Its name lists the columns to blame; a row that lacks a value is not judged."""
    return pa.Check(lambda rows: holds(rows).fillna(True), name=", ".join(columns), error=rule)


def table_schema(
    name: str, description: str, key: Sequence[str], columns: Mapping[str, pa.Column], checks: Sequence[pa.Check] = ()
) -> pa.DataFrameSchema:
    """The schema of a table with exactly these columns, of which no two rows have the same `key`."""
    return pa.DataFrameSchema(
        dict(columns),
        checks=list(checks),
        unique=list(key),
        report_duplicates="exclude_first",
        strict=True,
        ordered=True,
        name=name,
        description=description,
    )
