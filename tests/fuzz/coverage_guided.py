"""The same parsers under Atheris, which sees the branches that an input takes and keeps those that take new ones.

    pip install atheris
    python -m tests.fuzz.coverage_guided envelope build/fuzz/envelope -runs=1000000

Not a part of any test: Atheris has wheels for Linux alone. It sees the branches of Python, not those of msgspec, so it
is at its best where a parser is written in Python: matrices, settings, keys, exports, the log. Options after the folder
are libFuzzer's.
"""

import importlib
import sys
from contextlib import ExitStack
from pathlib import Path

INSTRUMENTED = ("schemas", "events", "projections", "bus", "actors", "tomllib")


def main() -> None:
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("Atheris is not installed: pip install atheris")
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        parsers = importlib.import_module("tests.fuzz.parsers").PARSERS
        engine = importlib.import_module("tests.fuzz.engine")
        seeds = importlib.import_module("tests.fuzz.seeds")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for seed, data in seeds.corpus_of(name).items():
        (Path(folder) / seed).write_bytes(data)
    parser = parsers[name]
    with ExitStack() as stack:
        parse = parser.make(stack)

        def one(data: bytes) -> None:
            _, finding = engine.run_one(parse, parser.refusals, parser.repair(data) if parser.repair else data)
            if finding is not None:
                raise RuntimeError(f"{finding.kind}: {finding.detail}")

        atheris.Setup([sys.argv[0], folder, *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
