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
        r"InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|ExpiredToken|403 Forbidden|necessary privileges",
        "The store refuses the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the profile, or the "
        "role of this machine or pod, and that it may read and write here.",
    ),
    (r"No space left on device|os error 28", "The disk is full: free some space there, or move TILTH_LAKE_URI."),
    (r"Permission denied|os error 13", "This user may not write there: correct the folder's owner or TILTH_LAKE_URI."),
    (
        r"error sending request|tcp connect|dns error|timed out",
        "The store cannot be reached: check TILTH_S3_ENDPOINT_URL and the network, then run it again.",
    ),
    (
        r"[Pp]arquet|not found|No such file|thrift|[Cc]orrupt|snappy|[Zz]std|magic bytes",
        "A file of the table is damaged or gone: materialize its partition again, which replaces it, or restore it "
        "from a backup. Other partitions can be read as before.",
    ),
]
_COLOURS = re.compile(r"\x1b\[[0-9;]*m|↳")


class LakeError(RuntimeError):
    """A table cannot be read or written; the message names it, what the store said, and the next step."""


@contextmanager
def explained(path: str, what: str) -> Iterator[None]:
    """Errors of the store as `LakeError`: what failed, where, what the store said and what helps."""
    try:
        yield
    except (OSError, DeltaError, pa.ArrowInvalid) as error:
        said = " ".join(_COLOURS.sub("", str(error)).split())
        remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, said)), "")
        raise LakeError(f"{what} ({path}): {said[:1500]}\n{remedy}".rstrip()) from error
