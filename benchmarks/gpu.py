"""The neural candidate's training on a GPU against a CPU: epochs a second, and how much of its time the GPU works.

On the frame of one airport's window (27,000 rows), and on one of a million rows, where a GPU has something to do. A CPU
trains with one thread, as all candidates do. It needs the extra `gpu`; a CUDA row is measured where CUDA is.
"""

import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np

from assets.flights.parameters import NeuralParameters
from benchmarks.report import Figure, load_average, report

WINDOW, LARGE = 27_000, 1_000_000  # rows
CATEGORIES, NUMBERS = [17, 90, 4], 30  # places in each vocabulary; columns, those of what is unknown included
SECONDS = 10.0


def epochs_per_second(device: str, rows: int, parameters: NeuralParameters) -> float:
    """By the median epoch of some seconds, after two that warm it up."""
    import torch

    from assets.flights.network import Rows, Training, reproducibly

    random = np.random.default_rng(0)
    codes = np.column_stack([random.integers(0, size, rows) for size in CATEGORIES])
    with reproducibly():
        shown = Rows.on(torch.device(device), codes, random.normal(size=(rows, NUMBERS)), random.random(rows) < 0.24)
        training = Training(shown, CATEGORIES, parameters)
        taken: list[float] = []
        began = time.monotonic()
        while len(taken) < 5 or time.monotonic() - began < SECONDS:
            started = time.perf_counter()
            training.epoch()
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    return 1 / statistics.median(taken[2:])


@contextmanager
def utilisation() -> Iterator[list[float]]:
    """The share of time, in percent, in which the first GPU ran a kernel, asked for five times a second meanwhile."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    samples: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
        yield samples
        asked.terminate()
        printed = asked.communicate()[0]
    samples += [float(line) for line in printed.splitlines()[5:] if line.strip().isdigit()]


def figures() -> list[Figure]:
    """What this machine can measure."""
    import torch

    of_window, of_large = NeuralParameters(), NeuralParameters(batch_rows=65_536)
    load = load_average()
    cpu = {rows: epochs_per_second("cpu", rows, p) for rows, p in ((WINDOW, of_window), (LARGE, of_large))}
    found = [
        Figure("epochs of one airport's window, CPU", cpu[WINDOW], "1/s", ">= 5", load),
        Figure("epochs of a million rows, CPU", cpu[LARGE], "1/s", ">= 0.2", load),
    ]
    if not torch.cuda.is_available():
        print("no CUDA device here: the rows of a GPU are not measured")
        return found
    print(f"GPU: {torch.cuda.get_device_name(0)}")
    with utilisation() as of_windows:
        window = epochs_per_second("cuda", WINDOW, of_window)
    with utilisation() as of_larges:
        large = epochs_per_second("cuda", LARGE, of_large)
    return [
        *found,
        Figure("epochs of one airport's window, GPU / CPU", window / cpu[WINDOW], "x", ">= 1", load),
        Figure("epochs of a million rows, GPU / CPU", large / cpu[LARGE], "x", ">= 10", load),
        Figure("GPU at work, one airport's window", statistics.mean(of_windows), "%", ">= 20", load),
        Figure("GPU at work, a million rows", statistics.mean(of_larges), "%", ">= 70", load),
    ]


if __name__ == "__main__":
    if find_spec("torch") is None:
        print("gpu: not measured, PyTorch is not installed here: `uv pip install -r requirements/gpu.lock`")
    else:
        report("gpu", figures())
