"""Rows as a markdown table, and a description of the machine."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "torch", "torchao", "quantization-labs")
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def markdown(rows):
    """A markdown table of dicts with the same keys; numbers are aligned to the right.

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
    """theirs / ours, or NaN, which is printed as a dash, if ours is not positive."""
    return theirs / ours if ours > 0 else float("nan")


def machine():
    """One line: processor, its vector instructions, cores, and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    known = ", ".join(_instructions()) or "no instructions known"
    return f"{_processor()} ({known}), {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def _instructions():
    """Those of INSTRUCTIONS that the processor has, as far as /proc/cpuinfo tells."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().partition("\nflags")[2].partition("\n")[0].split() if cpuinfo.exists() else []
    return [name for name in INSTRUCTIONS if name in flags]


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    named = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return named[0].split(":")[1].strip() if named else platform.processor() or platform.machine()


def _text(value):
    if not isinstance(value, float):
        return str(value)
    return "-" if value != value else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
