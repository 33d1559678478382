# SPDX-License-Identifier: Apache-2.0
"""`python -m tersor` and the `tersor` script: loads the command line and starts it."""

from __future__ import annotations

import sys


def main() -> None:
    """Start the command line; loaded here so that importing this module costs nothing."""
    try:
        from .tools.cli import main as command_line
    except BaseException as error:  # the command line's own last door is not there yet
        from .tools.failures import INTERRUPTED, describe

        failure = describe(error)  # a class that was being made turns Ctrl-C into an error of its own
        if failure.exit_code != INTERRUPTED:
            raise
        sys.stderr.write(f"error: {failure.line}\n")
        sys.exit(failure.exit_code)
    command_line()


if __name__ == "__main__":
    main()
