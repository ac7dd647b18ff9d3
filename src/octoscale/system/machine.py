"""Which machine this is, by the name of its CPU: the same code rounds sums in another order on another one."""

import platform
from pathlib import Path


def cpu_name() -> str:
    """The CPU's name as its system gives it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
