"""The text of a column's fields as typed values: exactly what is meant, or not at all."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes most of its functions when it is imported.

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute as pc

_MISSING = pyarrow.array(["", "NA"])

_DIGITS = "^-?[0-9]{1,18}$"
# As pandas writes a column of whole numbers of which one is missing.
_WITHOUT_FRACTION = r"^(-?[0-9]{1,18})\.0*$"
_WHOLE = re.compile(r"([+-]?)([0-9]{1,40})(?:\.([0-9]{0,40}))?(?:([eE])([+-]?)([0-9]{1,2}))?")

# By type what its text looks like, and what is said of any other.
FORMS = {
    pyarrow.int64(): (_DIGITS, "is not a whole number"),
    pyarrow.float64(): (r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$", "is not a number"),
    pyarrow.date32(): ("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "is not a date like 2013-01-31"),
    pyarrow.timestamp("us", tz="UTC"): (
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        "is not an instant like 2013-01-31T09:00:00Z",
    ),
}


def typed(text: pyarrow.Array, kind: pyarrow.DataType) -> tuple[pyarrow.Array, Iterable[int]]:
    """The values, null where missing or unparsable, and the places of the unparsable ones.

    Raises:
        TypeError: a type that is not read from files.
    """
    text = pc.if_else(pc.is_in(text, _MISSING), None, text)
    if kind == pyarrow.string():
        return text, ()
    if kind not in FORMS:
        known = ", ".join(map(str, [pyarrow.string(), *FORMS]))
        raise TypeError(f"{kind} is not read from files; declare the column as one of {known}.")
    if kind == pyarrow.int64():
        well_formed = _whole_numbers(text)
    else:
        well_formed = pc.if_else(pc.match_substring_regex(text, FORMS[kind][0]), text, None)
    if pyarrow.types.is_temporal(kind):
        # Not pyarrow's strptime, which reads February 30 as March 2; nor its cast, which stops at the first bad one.
        form = "%Y-%m-%d" if kind == pyarrow.date32() else "%Y-%m-%dT%H:%M:%SZ"
        instants = pd.to_datetime(well_formed.to_pandas(), format=form, errors="coerce", utc=True)
        values = pyarrow.array(instants, pyarrow.timestamp("us", tz="UTC"), from_pandas=True).cast(kind)
    else:
        values = well_formed.cast(kind)
    return values, np.flatnonzero(pc.and_(text.is_valid(), values.is_null()).to_numpy(zero_copy_only=False))


def _whole_numbers(text: pyarrow.Array) -> pyarrow.Array:
    """The digits of whole numbers, also of those in another form, such as `17.0`; null for all else."""
    if pc.all(pc.match_substring_regex(text, _DIGITS)).as_py() is not False:
        return text
    text = pc.replace_substring_regex(text, _WITHOUT_FRACTION, r"\1")
    plain = pc.match_substring_regex(text, _DIGITS)
    others = pc.unique(text.filter(pc.invert(plain))).drop_null().to_pylist()
    digits = {other: str(number) for other in others if (number := _whole_number(other)) is not None}
    found = pc.index_in(text, pyarrow.array([*digits], pyarrow.string()))
    return pc.if_else(plain, text, pyarrow.array([*digits.values()], pyarrow.string()).take(found))


def _whole_number(text: str) -> int | None:
    """The whole number of 64 bits that a text such as `17.0`, `1.70e1` or `1e+05` stands for; None where it does not.

    Not by way of a float, which has fifteen digits. A spreadsheet writes 123456789012 as `1.23457E+11`: where an `E+`
    asks for more digits than are there, they are not known.
    """
    if not (form := _WHOLE.fullmatch(text)):
        return None
    sign, digits, fraction, letter, plus, exponent = form.groups("")
    shift = int(f"{plus}{exponent}" or 0) - len(fraction)
    if shift > 0 and letter + plus == "E+":
        return None
    number = int(digits + fraction)
    if shift < 0:
        number, lost = divmod(number, 10**-shift)
        if lost:
            return None
    else:
        number *= 10**shift
    number = -number if sign == "-" else number
    return number if -(2**63) <= number < 2**63 else None
