"""How long ago this container was started: to the hundredth, where Kubernetes tells whole seconds."""

import os
from pathlib import Path


def since_start() -> float:
    """Seconds."""
    began = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - began
