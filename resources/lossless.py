"""Which types hold all values of others, and which columns no store can hold under their names."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

# Whole numbers that every float of so many bits holds: what it is made of is 11, 24 or 53 bits.
_EXACT_DIGITS_OF = {16: 3, 32: 7, 64: 15}


def may_be_cast(came: pa.DataType, stored: pa.DataType) -> bool:
    """Whether values of the type that came may be values of the stored one: numbers of another width. That each one
    is, Arrow's cast checks: it refuses what would lose a digit.
    """
    exact = pa.types.is_integer, pa.types.is_decimal
    if any(test(stored) for test in exact):
        return any(test(came) for test in exact)
    if pa.types.is_floating(stored):
        return pa.types.is_integer(came) or (pa.types.is_floating(came) and came.bit_width <= stored.bit_width)
    return False


def cast(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The values as `kind`, each unchanged.

    Raises:
        pa.ArrowInvalid: a value that `kind` does not hold.
    """
    if pa.types.is_integer(values.type) and pa.types.is_decimal(kind):
        # Arrow asks for room for all integers, not for these.
        values = values.cast(pa.decimal256(20 + max(kind.scale, 0), max(kind.scale, 0)))
    return values if values.type == kind else values.cast(kind)


def holding_both(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that loses no digit of either, to which a stored column can be widened; None where there is none."""
    if one == other:
        return one
    if pa.types.is_floating(one) and pa.types.is_floating(other):
        return max(one, other, key=lambda kind: kind.bit_width)
    if (first := _digits(one)) and (second := _digits(other)):
        before, after = (max(pair) for pair in zip(first, second, strict=True))
        if after == 0 and all(pa.types.is_signed_integer(kind) for kind in (one, other)):
            return max(one, other, key=lambda kind: kind.bit_width)
        # Where that is more than there are: SQL refuses a value that has too many before the point, and rounds none.
        return pa.decimal128(min(before + after, 38), after)
    for number, floating in ((one, other), (other, one)):
        digits = _digits(number)
        if pa.types.is_floating(floating) and digits and digits[1] == 0:
            return floating if digits[0] <= _EXACT_DIGITS_OF[floating.bit_width] else None
    return pa.string() if pa.types.is_string(one) or pa.types.is_string(other) else None


def _digits(kind: pa.DataType) -> tuple[int, int] | None:
    """How many before and after the point a value may have."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, max(kind.scale, 0)
    if pa.types.is_integer(kind):
        return len(str(2**kind.bit_width)), 0
    return None


def refuse_parts(asset: str, field: pa.Field) -> None:
    """Refuse structs, however deep, that no store can write.

    Raises:
        ValueError: a struct without parts, or with two of one name.
    """
    kind = field.type
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise ValueError(
                f"{asset}: column {field.name} holds structs without any part; leave it out or make it text."
            )
        refuse_names(f"{asset}, in column {field.name}", [part.name for part in kind], cases=False)
    if pa.types.is_nested(kind):
        for place in range(kind.num_fields):
            refuse_parts(asset, kind.field(place).with_name(field.name))


def refuse_names(asset: str, came: Sequence[str], stored: Sequence[str] = (), *, cases: bool) -> None:
    """Refuse column names that no store keeps apart or can write.

    Args:
        cases: whether the store tells `a` from `A`.

    Raises:
        ValueError: a name that is empty or holds a control character, or two that are one.
    """
    if wrong := [name for name in came if not name.strip() or not name.isprintable()]:
        raise ValueError(f"{asset}: a column has the name {wrong[0]!r}; give it one of letters that can be seen.")
    names = [*(name for name in stored if name not in came), *came]
    folded = [name if cases else name.lower() for name in names]
    times = Counter(folded)
    if twice := [name for name, fold in zip(names, folded, strict=True) if times[fold] > 1]:
        how = "" if cases else ", upper or lower case"
        raise ValueError(f"{asset}: columns {', '.join(twice)} have one name{how}; rename one of them.")
