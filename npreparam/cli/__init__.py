"""The command line (extra `cli`)."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script `npreparam`."""
    try:
        from npreparam.cli.app import app
    except ImportError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f"npreparam: the command line needs {error.name}: pip install 'npreparam[cli]'")
    app()
