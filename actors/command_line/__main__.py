"""``python -m actors.command_line``: the same as ``assay``."""

import sys

from actors.command_line import main

if __name__ == "__main__":
    sys.exit(main())
