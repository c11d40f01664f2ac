"""The program ``verilume``: ``python -m verilume``, or the entry ``verilume`` of the package."""

from __future__ import annotations

import signal
import sys

from ._native import program


def main() -> int:
    """Runs the program on the words of the command line; returns its exit code."""
    # The program catches Ctrl-C itself; Python would only note it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return program(["verilume", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
