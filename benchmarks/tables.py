"""Rows as a markdown table, and the machine they were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "torch", "torchao", "quantization-labs")


def markdown(rows):
    """A markdown table of dicts that have the same keys, numbers to the right.

    >>> print(markdown([{"what": "numpy", "ms": 71.0}]))
    | what | ms |
    |---|---:|
    | numpy | 71.0 |
    """
    columns = list(rows[0])
    rule = "".join("---:|" if isinstance(rows[0][name], (int, float)) else "---|" for name in columns)
    lines = [" | ".join(columns), *(" | ".join(_text(row[name]) for name in columns) for row in rows)]
    head, *body = (f"| {line} |" for line in lines)
    return "\n".join([head, f"|{rule}", *body])


def ratio(theirs, ours):
    """How many times ours theirs is; NaN, printed as a dash, where there is nothing to compare."""
    return theirs / ours if ours > 0 else float("nan")


def machine():
    """One line: processor, threads and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{_processor()}, {os.cpu_count()} cores, 1 thread used; Python {platform.python_version()}, {versions}"


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    named = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return named[0].split(":")[1].strip() if named else platform.processor() or platform.machine()


def _text(value):
    if not isinstance(value, float):
        return str(value)
    return "-" if value != value else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
