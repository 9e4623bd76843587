"""These take minutes and a quiet machine, so they run when asked for: ``ASSAY_FAULTS=1 pytest tests/faults``."""

import os

collect_ignore_glob = [] if os.environ.get("ASSAY_FAULTS") else ["test_*.py"]
