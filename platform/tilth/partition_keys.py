"""Partition keys of several dimensions: the one place that takes them apart and puts them together.

Dagster writes such a key as `EWR|2013-01`, its parts in the order of the names of its dimensions; no part holds a `|`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa

_BETWEEN = "|"


def by_dimension(key: str, partitions: dg.MultiPartitionsDefinition) -> Mapping[str, str]:
    """The parts of a key by the names of their dimensions."""
    return partitions.get_partition_key_from_str(key).keys_by_dimension


def parts(key: str) -> list[str]:
    """The parts of a key of several dimensions, in their order."""
    return key.split(_BETWEEN)


def joined(*parts: str) -> str:
    """The key that has these parts, in the order of its dimensions."""
    return _BETWEEN.join(parts)


def row_keys(rows: "pa.Table", columns: Sequence[str]) -> "pa.ChunkedArray":
    """Of each row the key of its partition as text, whose parts these columns hold in the order of its dimensions."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [rows[column].cast(pa.string()) for column in columns]
    return texts[0] if len(texts) == 1 else pc.call_function("binary_join_element_wise", [*texts, pa.scalar(_BETWEEN)])
