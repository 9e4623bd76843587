"""What runs against real faults takes minutes, so it runs when asked for: ``ASSAY_FAULTS=1 pytest tests/faults``."""

import os

collect_ignore = [] if os.environ.get("ASSAY_FAULTS") else ["test_cluster.py", "test_power_cut.py"]
