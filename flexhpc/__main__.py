"""The command line as `python -m flexhpc`, for environments without scripts on PATH."""

from flexhpc.cli import main

if __name__ == "__main__":
    main()
