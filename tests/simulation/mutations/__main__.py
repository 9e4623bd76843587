"""Plants each defect of the catalogue and runs seeds until one shows it.

python -m tests.simulation.mutations
python -m tests.simulation.mutations --only "forgotten nonce" --seeds 0:2000
"""

import argparse
import multiprocessing
import os
import sys

from tests.simulation.mutations.catalogue import MUTATIONS
from tests.simulation.mutations.hunt import catch_nicely


def main() -> int:
    """0: every defect is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("--seeds", default="0:500", help="from:to, the last one left out")
    parser.add_argument("--only", help="the name of one mutation")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    first, _, end = arguments.seeds.partition(":")
    chosen = [each for each in MUTATIONS if arguments.only in {None, each.name}]
    missed = 0
    print(f"{'defect':<28}{'seeds':>6}{'last':>6}{'s':>7}  {'seen by':<14}first seen")
    with multiprocessing.Pool(arguments.processes, maxtasksperchild=1) as pool:
        orders = [(each, range(int(first), int(end))) for each in chosen]
        for found in pool.imap(catch_nicely, orders):
            missed += found.seed is None
            seed = "-" if found.seed is None else found.seed
            checker, _, seen = found.seen.partition(": ")
            line = f"{found.mutation.name:<28}{found.tried:>6}{seed:>6}{found.took_s:>7.1f}"
            print(f"{line}  {checker or 'nobody':<14}{seen[:90]}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} defects are found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
