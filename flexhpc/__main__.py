"""Run the command line as `python -m flexhpc`; this does not require `flexhpc` on PATH."""

import sys

if not sys.flags.safe_path:
    # python -m adds the working directory, in which neither `flexhpc` nor workers search modules.
    del sys.path[0]

from flexhpc.cli import main

if __name__ == "__main__":
    main()
