"""What takes minutes here runs only when asked for: ``ASSAY_FAULTS=1 pytest tests/faults``."""

import os

collect_ignore = (
    [] if os.environ.get("ASSAY_FAULTS") else ["test_cluster.py", "test_power_cut.py", "test_stalled_height.py"]
)
