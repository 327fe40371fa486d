"""The command `iptkit`, also `python -m iptkit`."""

import sys

from iptkit.storage import installation


def main() -> None:
    """Run the command line; a missing or broken package is reported without a traceback."""
    try:
        from iptkit.course.cli import app
    except (ImportError, AttributeError) as error:
        if said := installation.problem(error):
            sys.exit(f"iptkit: {said}")
        raise
    app(prog_name="iptkit")


if __name__ == "__main__":
    main()
