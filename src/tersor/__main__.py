# SPDX-License-Identifier: Apache-2.0
"""`python -m tersor`: the command line, as the `tersor` script starts it."""

from __future__ import annotations


def main() -> None:
    """Start the command line; loaded here so that importing this module costs nothing."""
    from .tools.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
