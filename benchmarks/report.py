"""What every benchmark ends with: a table on the screen and benchmarks/results/<name>.json."""

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from operator import ge, le
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
COMPARISONS = {"<=": le, ">=": ge}


def load_average() -> float:
    """The machine's one-minute load average."""
    return round(os.getloadavg()[0], 2)


@dataclass
class Figure:
    """One measured figure against its bar, such as `<= 90`; `load` is the load average when its measuring began."""

    name: str
    figure: float
    unit: str
    bar: str
    load: float
    holds: bool = field(init=False)

    def __post_init__(self) -> None:
        comparison, limit = self.bar.split()
        self.holds = COMPARISONS[comparison](self.figure, float(limit))


def report(benchmark: str, figures: list[Figure]) -> None:
    """Print the figures and write them to benchmarks/results/<benchmark>.json; ends non-zero where a bar is missed."""
    print(f"\n{benchmark}")
    for f in figures:
        verdict = "holds" if f.holds else "DOES NOT HOLD"
        print(f"  {f.name:<60}{f.figure:>9.2f} {f.unit:<5}{f.bar:>9}  {verdict}  (load {f.load})")
    RESULTS.mkdir(exist_ok=True)
    rows = [asdict(f) | {"figure": round(f.figure, 3)} for f in figures]
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(rows, indent=1) + "\n")
    if not all(f.holds for f in figures):
        sys.exit(1)
