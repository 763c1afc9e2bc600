"""Command line as `python -m flexhpc`, for environments whose scripts are not on PATH."""

from flexhpc.cli import main

if __name__ == "__main__":
    main()
