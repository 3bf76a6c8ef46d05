"""Whatever becomes of a step over tables that dbt fills, they hold of its days what was tested and recorded.

dbt commits a model before it runs the model's tests. A step that is killed in between leaves rows that no test has
passed, and its next attempt must not take them for what was there before. So the rows that are about to be replaced are
saved first, in the warehouse itself, in the schema `<schema>_before`; they go when the step ends.

What is right of a day is what was last recorded of it, and every saved day carries the data version recorded then:

- A saved day whose version is still the recorded one was left by an attempt that never ended: the saved rows are right.
- Of any other recorded day the table's own rows are, for the last step that wrote them ended.
- Of a day without a record no rows are right. Nothing is read or saved of it, so a first backfill does none of this.

The rows themselves are not hashed and compared with the record: a column added since, or another version of a library,
would make good rows look like bad ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from resources.warehouse import Transaction, Warehouse
from resources.warehouse_types import quoted
from tilth._dagster.event_log import present_versions

Recorded = dict[dg.AssetKey, dict[str, str]]
"""By table and day, the data version of its latest materialization."""

MARKS = pa.schema([("day", pa.string()), ("data_version", pa.string())])


@contextmanager
def recorded_rows(
    warehouse: Warehouse, instance: dg.DagsterInstance, tables: Mapping[dg.AssetKey, str], days: Sequence[str]
) -> Iterator[Callable[[Sequence[str]], None]]:
    """Around what makes these days of the tables anew: a function that puts back what was recorded of some of them.

    On an error that is done for all days that were not recorded anew. However the block ends, what writes to the tables
    must have ended before.

    Args:
        tables: by asset key, `<schema>/<table>`, the column that holds the day.
    """
    before = _recorded(instance, tables, days)
    rows = _save(warehouse, tables, before)

    def put_back(unmade: Mapping[dg.AssetKey, Sequence[str]]) -> None:
        with warehouse.transaction() as transaction:
            for key, column in tables.items():
                if transaction.exists(name := ".".join(key.path)):
                    had = transaction.read(name, window=(column, [])) if rows[key] is None else rows[key]
                    _replace(transaction, name, _on_days(had, column, unmade[key]), column, unmade[key])

    try:
        yield lambda rejected: put_back(dict.fromkeys(tables, rejected))
    except BaseException:
        now = _recorded(instance, tables, days)
        put_back({key: [d for d in days if now[key].get(d) == before[key].get(d)] for key in tables})
        _forget(warehouse, tables, before)
        raise
    _forget(warehouse, tables, before)


def _recorded(instance: dg.DagsterInstance, tables: Mapping[dg.AssetKey, str], days: Sequence[str]) -> Recorded:
    found: Recorded = {}
    for key in tables:
        versions = present_versions(instance, key)
        found[key] = {day: versions[day] for day in days if day in versions}
    return found


def _save(
    warehouse: Warehouse, tables: Mapping[dg.AssetKey, str], recorded: Recorded
) -> dict[dg.AssetKey, pa.Table | None]:
    """By table, the rows that were recorded of these days, which are saved from now on; None where there are none."""
    rows: dict[dg.AssetKey, pa.Table | None] = dict.fromkeys(tables)
    if not any(recorded.values()):
        return rows
    with warehouse.transaction() as transaction:
        _one_at_a_time(transaction, warehouse.engine)
        for key, column in tables.items():
            if recorded[key] and transaction.exists(".".join(key.path)):
                rows[key] = _save_table(transaction, key, column, recorded[key])
    return rows


def _save_table(transaction: Transaction, key: dg.AssetKey, column: str, recorded: Mapping[str, str]) -> pa.Table:
    saved, marks = _saved(key)
    left: list[str] = []
    if transaction.exists(marks):
        marked = transaction.read(marks, window=("day", [*recorded])).to_pylist()
        left = [mark["day"] for mark in marked if mark["data_version"] == recorded[mark["day"]]]
    ended = [day for day in recorded if day not in left]
    rows = transaction.read(".".join(key.path), window=(column, ended))
    _replace(transaction, saved, rows, column, ended)
    # A day of no rows is saved as well, by its mark.
    versions = pa.table({"day": ended, "data_version": [recorded[day] for day in ended]}, schema=MARKS)
    transaction.replace(marks, versions, "day", ended)
    if not left:
        return rows
    return pa.concat_tables([rows, transaction.read(saved, window=(column, left))], promote_options="default")


def _forget(warehouse: Warehouse, tables: Mapping[dg.AssetKey, str], recorded: Recorded) -> None:
    """Nothing is saved of these days any more."""
    if not any(recorded.values()):
        return
    with warehouse.transaction() as transaction:
        _one_at_a_time(transaction, warehouse.engine)
        for key, column in tables.items():
            saved, marks = _saved(key)
            if not transaction.exists(marks):
                continue
            transaction.replace(saved, transaction.read(saved, window=(column, [])), column, [*recorded[key]])
            transaction.replace(marks, MARKS.empty_table(), "day", [*recorded[key]])
            # Empty, they go: made anew from the table, they will have the columns and types that it has then.
            if transaction.count(marks) == 0:
                for name in (saved, marks):
                    transaction.execute(f"DROP TABLE {'.'.join(map(quoted, name.split('.')))}")


def _saved(key: dg.AssetKey) -> tuple[str, str]:
    """The table of the saved rows, and that of the days they are of."""
    schema, table = key.path
    return f"{schema}_before.{table}", f"{schema}_before.{table}_days"


def _one_at_a_time(transaction: Transaction, engine: str) -> None:
    # Two steps that make the same schema or table at once would fail, however they ask whether it exists.
    if engine == "postgresql":
        transaction.execute("DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('tilth recorded_rows')); END $$")


def _replace(transaction: Transaction, table: str, rows: pa.Table, column: str, days: Sequence[str]) -> None:
    # A column that the table has got since is null in these rows.
    if transaction.exists(table):
        rows = pa.concat_tables([transaction.read(table, window=(column, [])), rows], promote_options="default")
    transaction.replace(table, rows, column, days)


def _on_days(rows: pa.Table, column: str, days: Sequence[str]) -> pa.Table:
    return rows.filter(pc.field(column).cast(pa.string()).isin(pa.array(days, pa.string())))
