"""What the benchmarks share: both sides of a comparison timed in turn, and the record that each benchmark writes."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sdfn_jax.core.files import appears_when_complete

# Of every side of a comparison on CPUs. One arena, nothing mapped and unmapped repeatedly: otherwise, large allocations
# time the page faults. Huge pages, which Linux mostly gives only to a program that asks for them (glibc 2.35 does).
ALLOCATOR = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in (
        ("arena_max", 1),
        ("mmap_max", 0),
        ("trim_threshold", 68719476736),
        ("top_pad", 268435456),
        ("hugetlb", 1),
    )
)


def with_one_allocator() -> None:
    """Restarts this process with the allocator settings that every side of a comparison gets."""
    if os.environ.get("GLIBC_TUNABLES") != ALLOCATOR:
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)


def medians(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns each side's median time in seconds; the sides take turns, after one round that does not count."""
    times = {name: [] for name in sides}
    for round_number in range(rounds + 1):
        for name, side in sides.items():
            begun = time.perf_counter()
            side()
            if round_number:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def rate(what: str, ours: float, unit: str, peers: dict[str, float], goal: float | None = None) -> list[dict]:
    """Returns a row for each peer: how many times as fast we are, of rates (more is better) in `unit`.

    Args:
      what: was done.
      ours: our rate.
      unit: of the rates, such as `images/s`.
      peers: {peer: its rate}; empty if there is nothing to compare with.
      goal: the ratio to reach.
    """
    rows = [
        {"what": what, "unit": unit, "ours": ours, "peer": peer, "peers": theirs, "ratio": ours / theirs, "goal": goal}
        for peer, theirs in peers.items()
    ]
    return rows or [{"what": what, "unit": unit, "ours": ours}]


def amount(what: str, ours: float, unit: str, at_most: float | None = None) -> dict:
    """Returns a row for an amount of which less is better, such as seconds; `at_most` is the goal."""
    return {"what": what, "unit": unit, "ours": ours, "at_most": at_most}


def table(rows: Sequence[dict]) -> str:
    """Lays rows out for a terminal: what, ours, the peer's, ratio, goal."""
    cells = [("what", "ours", "peer", "ratio", "goal")]
    for row in rows:
        peer = f"{row['peers']:.4g} {row['unit']} ({row['peer']})" if "peer" in row else ""
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        goal = f">= {row['goal']:g}" if row.get("goal") else f"<= {row['at_most']:g}" if row.get("at_most") else ""
        cells.append((row["what"], f"{row['ours']:.4g} {row['unit']}", peer, ratio, goal))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)


def write(path: str | Path, rows: Sequence[dict], packages: Sequence[str], **details: object) -> None:
    """Prints the table and writes the record.

    Args:
      path: of the record, JSON.
      rows: of `rate` and `amount`.
      packages: whose versions it names.
      **details: what else a reader must know: inputs, settings, peers that are not installed.
    """
    print(table(rows))
    record = {
        "rows": rows,
        **details,
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    with appears_when_complete(path) as unfinished:
        unfinished.write_text(json.dumps(record, indent=2) + "\n")


def processor() -> str:
    """Returns the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
