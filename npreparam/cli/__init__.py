"""The command line (extra `cli`)."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script `npreparam`."""
    try:
        from npreparam.cli.app import app
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"typer", "rich"}:
            raise
        sys.exit(f"npreparam: the command line needs {missing}: pip install 'npreparam[cli]'")
    app()
