"""What a store's errors mean to whoever reads them, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from deltalake.exceptions import DeltaError

# What the stores say, from the particular to the general, and what helps.
_REMEDIES = [
    (r"NoSuchBucket", "The bucket does not exist: create it, or correct TILTH_LAKE_URI."),
    (
        # Without any, delta-rs asks the address at which a machine in the cloud learns its role.
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|ExpiredToken|403 Forbidden|necessary privileges"
        r"|169\.254\.169\.254",
        "There are no credentials, or the store refuses them: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the "
        "profile, or the role of this machine or pod, and that it may read and write here.",
    ),
    (r"No space left on device|os error 28", "The disk is full: free some space there, or move TILTH_LAKE_URI."),
    (r"Permission denied|os error 13", "This user may not write there: correct the folder's owner or TILTH_LAKE_URI."),
    (
        r"error sending request|tcp connect|dns error|timed out",
        "The store cannot be reached: check TILTH_S3_ENDPOINT_URL and the network, then run it again.",
    ),
    (
        r"URL scheme is not allowed",
        "The endpoint is plain HTTP: name it in TILTH_S3_ENDPOINT_URL, or set AWS_ALLOW_HTTP=true.",
    ),
    (r"no kernel matching", "A filter compares a column with a value of another type."),
    (
        r"Json error|contiguous commit files|File not found: \S*_delta_log",
        "The table's log is damaged: restore its folder _delta_log from a backup; or move the table away and "
        "materialize all of its partitions.",
    ),
    (
        r"(?i)parquet|not found|no such file|thrift|corrupt|snappy|zstd|magic bytes",
        "A file of the table is damaged or gone: materialize its partition again, which replaces it, or restore it "
        "from a backup. Other partitions can be read as before; where no file is named, reading them one by one tells "
        "which it is.",
    ),
]
# Colours, arrows and the addresses of delta-rs' own functions tell a reader nothing.
_NOISE = re.compile(r"\x1b\[[0-9;]*m|↳|\s0: <unknown>.*", re.DOTALL)


class LakeError(RuntimeError):
    """A table cannot be read or written; the message names it, what the store said, and the next step."""


@contextmanager
def explained(path: str, what: str) -> Iterator[None]:
    """Errors of the store as `LakeError`: what failed, where, what the store said and what helps."""
    try:
        yield
    except (OSError, DeltaError, pa.ArrowException) as error:
        said = " ".join(_NOISE.sub("", str(error)).split())
        remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, said)), "")
        raise LakeError(f"{what} ({path}): {said[:1500]}\n{remedy}".rstrip()) from error
