"""A script's side of a year: the same parsing, SQL and pandas from landed files to features, without Dagster or dbt.

python -m benchmarks.peers.plain_year <folder of landed files> <dbt's compiled project> <folder for the results>
"""

import json
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from assets.flights.features import build_features
from assets.flights.tables import TABLES
from resources.ingestion.validation import read_files
from resources.landing import LandingZone
from tilth.conversion import to_arrow, to_pandas


def main(landing: LandingZone, compiled: Path, folder: Path) -> None:
    database = duckdb.connect(str(folder / "warehouse.duckdb"))
    database.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw; CREATE SCHEMA raw_rejected")
    for table in TABLES:
        files = landing.files(table.name)
        batch = read_files(table, [(f.name, f.partition, landing.read(f.table, f.name)) for f in files])
        rows, rejected = batch.arrow, batch.rejected  # noqa: F841 (DuckDB finds them by their names)
        database.execute(f"CREATE TABLE {table.accepted} AS FROM rows")
        database.execute(f"CREATE TABLE {table.rejected} AS FROM rejected")

    manifest = json.loads((compiled / "manifest.json").read_text())
    nodes = manifest["nodes"]
    order = TopologicalSorter({name: [n for n in manifest["parent_map"][name] if n in nodes] for name in nodes})
    models = 0
    for node in (nodes[name] for name in order.static_order()):
        query = node["compiled_code"] if node["resource_type"] in ("model", "test") else ""
        if node["resource_type"] == "model":
            models += 1
            database.execute(f"CREATE SCHEMA IF NOT EXISTS {node['schema']}")
            kind = "VIEW" if node["config"]["materialized"] == "view" else "TABLE"
            database.execute(f"CREATE {kind} {node['schema']}.{node['alias']} AS {query}")
        elif query and (failing := len(database.execute(query).fetchall())):
            print(f"{node['name']}: {failing}")

    marts = {
        name: to_pandas(database.sql(f"FROM marts.{name}").to_arrow_table())
        for name in ("departures", "daily_lateness", "aircraft")
    }
    features = to_arrow(build_features(marts["departures"], marts["daily_lateness"], marts["aircraft"]))
    pq.write_table(features, folder / "features.parquet", compression="zstd")
    print(f"{models} models, {features.num_rows} rows of features")


if __name__ == "__main__":
    main(LandingZone(uri=sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
