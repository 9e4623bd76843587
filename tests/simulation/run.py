"""Many seeds, or one with its trace.

python -m tests.simulation.run --seeds 0:500
python -m tests.simulation.run --seed 1234 --trace
"""

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter

from tests.simulation.faults import KINDS
from tests.simulation.simulation import Result, run_seed

# In so many seeds every kind of fault happens.
ENOUGH = 500
_PREFIX = {"byzantine proposer": "byzantine: ", "hostile client": "hostile: "}


def main() -> int:
    """0: no violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="from:to, the last one left out")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, trace=arguments.trace)
    first, _, end = arguments.seeds.partition(":")
    return _many(range(int(first), int(end)), arguments.processes)


def _one(seed: int, *, trace: bool) -> int:
    began = time.perf_counter()
    result = run_seed(seed, print if trace else None)
    print(f"seed {seed}: {result.plan}")
    print(
        f"{result.virtual_ms / 1_000:.1f} virtual s ({result.calm_ms / 1_000:.1f} s calm), {result.blocks} blocks, "
        f"{result.events} events, jobs {result.jobs}, faults {sum(result.faults.values())}, {result.steps} steps, "
        f"{time.perf_counter() - began:.2f} s, trace {result.digest[:16]}"
    )
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 1 if result.violations else 0


def _safely(seed: int) -> Result | tuple[int, str]:
    try:
        return run_seed(seed)
    except Exception:  # noqa: BLE001 - one broken seed must not hide the others
        return seed, traceback.format_exc()


def _many(seeds: range, processes: int) -> int:
    began = time.perf_counter()
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    jobs: Counter[str] = Counter()
    failed = stalled = longest_calm_ms = 0
    with multiprocessing.Pool(processes, maxtasksperchild=200) as pool:
        for done, result in enumerate(pool.imap_unordered(_safely, seeds, chunksize=1), 1):
            if isinstance(result, tuple):
                failed += 1
                print(f"seed {result[0]} broke:\n{result[1]}")
                print(f"    python -m tests.simulation.run --seed {result[0]} --trace", flush=True)
            else:
                total.update(ms=result.virtual_ms, events=result.events, blocks=result.blocks)
                longest_calm_ms = max(longest_calm_ms, result.calm_ms)
                stalled += result.stalled
                faults.update(result.faults)
                jobs.update(result.jobs)
                if result.violations:
                    failed += 1
                    print(f"seed {result.seed}: {result.violations[0]} (and {len(result.violations) - 1} more)")
                    print(f"    python -m tests.simulation.run --seed {result.seed} --trace", flush=True)
            if sys.stderr.isatty() and done % 10 == 0:
                print(f"\r{done}/{len(seeds)} seeds, {failed} failed", end="", file=sys.stderr)
    took = time.perf_counter() - began
    print(f"{len(seeds)} seeds in {took:.0f} s: {len(seeds) / took:.1f} seeds/s on {processes} processes")
    print(f"{total['ms'] / 3_600_000:.1f} virtual hours, {total['blocks']} blocks, {total['events']} events in blocks")
    print(f"longest time from the last fault until all was done: {longest_calm_ms / 1_000:.0f} virtual s")
    print(f"{stalled} seeds stalled after the log had lost its end, until operators mended it")
    print("jobs: " + ", ".join(f"{name} {count}" for name, count in sorted(jobs.items())))
    print(f"{sum(faults.values())} faults:")
    for group, kinds in KINDS.items():
        print(
            f"  {group}: " + ", ".join(f"{kind.removeprefix(_PREFIX.get(group, ''))} {faults[kind]}" for kind in kinds)
        )
    missing = [kind for kinds in KINDS.values() for kind in kinds if not faults[kind]]
    untested = bool(missing) and len(seeds) >= ENOUGH
    if untested:
        print(f"never happened: {', '.join(missing)}")
    print(f"{failed} seeds with violations")
    return 1 if failed or untested else 0


if __name__ == "__main__":
    sys.exit(main())
