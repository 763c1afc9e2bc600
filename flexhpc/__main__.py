"""Run the command line as `python -m flexhpc`; this does not require `flexhpc` on PATH."""

from flexhpc.cli import main

if __name__ == "__main__":
    main()
