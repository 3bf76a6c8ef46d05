"""A script's side of 36 models: the same fits and plots by joblib in two processes, from the lake into files."""

import sys
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
from joblib import Parallel, delayed

from assets.flights import partitions as by
from assets.flights.models import TRUSTED_TYPES, train_partition
from assets.flights.parameters import BoostedParameters
from resources.lake import Lake
from resources.registry import ModelRegistry
from tilth.settings import Deployment

WORKERS = 2
ASSET = "models/delay_boosted"


def fit(partition, training_set, folder):
    from assets.flights.estimators import boosted

    parameters = BoostedParameters()
    made = train_partition(
        partition, training_set, asset=ASSET, build=partial(boosted, parameters), parameters=parameters
    )
    ModelRegistry(str(folder), TRUSTED_TYPES, "main").save(dg.AssetKey(ASSET.split("/")), partition, made.value)
    return partition


if __name__ == "__main__":
    rows = Lake.of(Deployment()).read("features/training_set")

    def rows_of(partition):
        month, origin = partition.split("|")
        return rows.filter(pc.and_(pc.equal(rows["month"], month), pc.equal(rows["origin"], origin)))

    made = Parallel(n_jobs=WORKERS)(
        delayed(fit)(partition, rows_of(partition), Path(sys.argv[1])) for partition in by.models.get_partition_keys()
    )
    print(len(made), "models")
