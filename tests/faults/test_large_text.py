"""More text in one column than 32 bits count."""

from pathlib import Path

import pandas as pd

from resources.lake import Lake
from tilth.conversion import to_arrow, to_pandas


def test_more_than_two_gibibytes_of_text_in_a_column_are_stored_in_their_order(tmp_path: Path) -> None:
    count, size = 2200, 2**20
    frame = pd.DataFrame({"number": range(count), "text": [chr(97 + n % 26) * size for n in range(count)]})
    lake = Lake(str(tmp_path))
    lake.replace("large", to_arrow(frame))
    del frame
    found = to_pandas(lake.read("large"))
    assert found["number"].tolist() == list(range(count))
    assert (found["text"].str.len() == size).all()
    assert found["text"].str[0].tolist() == [chr(97 + n % 26) for n in range(count)]
