"""What a step used of its process: seconds, CPU seconds and the peak of its memory.

Dagster has no hook at the start of a step. A step's own process is forked for it, and what it used counts from there.
Where steps share a process, a thread notes its use ten times a second, and Dagster's own record of when the step began
says from where on it counts.
"""

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from tilth._dagster.run_stats import step_stats
from tilth._dagster.step_events import step_of
from tilth.execution.compute import requested

_INTERVAL_SECONDS = 0.1
# A process in which no step ends, such as a code server, is looked at less often after a while.
_BUSY_SECONDS, _IDLE_INTERVAL_SECONDS = 60, 5
_KEPT = 24 * 3600 * 10  # a day of samples; of a longer step the beginning is not known
_MEMORY = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Sample:
    at: float
    cpu_seconds: float
    memory_bytes: int
    peak_bytes: int


def _now() -> _Sample:
    times = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    memory = int(_MEMORY.read_text().split()[1]) * _PAGE if _MEMORY.exists() else peak
    # A child process' seconds come when it has ended.
    cpu = times.user + times.system + times.children_user + times.children_system
    return _Sample(time.time(), cpu, memory, peak)


class _Sampler:
    """The process' one thread that samples."""

    def __init__(self) -> None:
        self.samples: deque[_Sample] = deque(maxlen=_KEPT)
        self.used_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self.samples.append(_now())
            self._thread = threading.Thread(target=self._run, name="tilth-usage", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            is_idle = time.monotonic() - self.used_at > _BUSY_SECONDS
            time.sleep(max(_INTERVAL_SECONDS, _IDLE_INTERVAL_SECONDS) if is_idle else _INTERVAL_SECONDS)
            self.samples.append(_now())


_sampler = _Sampler()


def _begin_anew() -> None:
    global _sampler
    _sampler = _Sampler()
    _sampler.samples.append(_now())


os.register_at_fork(after_in_child=_begin_anew)


def watch() -> None:
    """Begin to note this process' use; a second call changes nothing."""
    _sampler.start()


def step_usage(context: dg.OutputContext) -> Mapping[str, float | int | str]:
    """What the step has used so far, for its materializations' metadata.

    Of a step over several partitions all of them carry the same figures: those of the whole step.

    Returns:
        step/seconds (wall clock), step/cpu_seconds (child processes that ended included), step/peak_memory_bytes (of
        the process; what it held before the step included) and step/partitions (1 where there are none). With
        `compute(...)` on the asset also step/requested, as text.
    """
    if not _sampler.samples:
        watch()
    _sampler.used_at = time.monotonic()
    step = step_of(context)
    # Samples of before the process knew of the step would count for the step before it.
    (stats,) = step_stats(step.instance, step.run_id, [step.key])
    began, now = stats.began or time.time(), _now()
    samples = list(_sampler.samples)
    # The next step may begin before the thread looks again, and what this one held is not the next one's.
    _sampler.samples.append(now)
    before = next((sample for sample in reversed(samples) if sample.at <= began), samples[0])
    during = [sample.memory_bytes for sample in samples if sample.at > began]
    grew = now.peak_bytes > before.peak_bytes
    return {
        "step/seconds": round(now.at - began, 3),
        "step/cpu_seconds": round(now.cpu_seconds - before.cpu_seconds, 3),
        "step/peak_memory_bytes": now.peak_bytes if grew else max([*during, now.memory_bytes]),
        "step/partitions": len(context.asset_partition_keys) if context.has_asset_partitions else 1,
        **requested(step.tags),
    }
