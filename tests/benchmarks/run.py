"""All benchmarks in one run: prints a table and writes ``build/bench.json``.

    python tests/benchmarks/run.py

The first rows are what the machine's libraries can do at best; every other row is compared with one of them.
"""

import asyncio
from pathlib import Path

import exam
import limits
import moments
import network
import uvloop
from rows import results, show, write

OUTPUT = Path("build/bench.json")


async def main() -> None:
    """Measures, prints, writes."""
    rows = [*await limits.measure(), *await asyncio.to_thread(exam.measure), *await moments.measure()]
    found = results([*rows, *await network.measure()])
    show(found)
    await asyncio.to_thread(write, found, OUTPUT)
    print(f"written to {OUTPUT}")


if __name__ == "__main__":
    uvloop.run(main())
