"""Tampers with everything that is stored, and prints what became of it: found, without effect, or neither.

    python -m tests.tampering.run --count 2400 --seed 7
    python -m tests.tampering.run --target server --number 17 --seed 7

Exports, read models, wallets and genesis files are quick; a tampering with the files of a NATS server, which starts on
them again, takes half a second.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.tampering.targets import TARGETS
from tests.tampering.verdicts import Tampering, table, tamper


def main() -> int:
    """0: nothing went unnoticed."""
    options = argparse.ArgumentParser(prog="python -m tests.tampering.run", description=__doc__)
    options.add_argument("--count", type=int, default=2_400, help="tamperings in all; each target has its share")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    options.add_argument("--number", type=int, help="only the tampering with this number")
    chosen = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    targets = [target for name, target in TARGETS.items() if chosen.target in {None, name}]
    shares = sum(target.share for target in targets)
    began = time.perf_counter()
    done: list[Tampering] = []
    with tempfile.TemporaryDirectory(prefix="assay-tampering-") as directory:
        for target in targets:
            numbers = range(chosen.count * target.share // shares)
            if chosen.number is not None:
                numbers = range(chosen.number, chosen.number + 1)
            done += tamper(target, chosen.seed, numbers, Path(directory))
    sys.stdout.write(f"{table(done)}\nin {time.perf_counter() - began:.0f} s, seed {chosen.seed}\n")
    return 1 if any(each.verdict.found == "SILENT" for each in done) else 0


if __name__ == "__main__":
    sys.exit(main())
