"""`python -m iptkit` is the command `iptkit`."""

import sys

from iptkit.storage import installation


def main() -> None:
    """Run the command line; where packages that it needs are missing, say which in a sentence."""
    try:
        from iptkit.course.cli import app
    except (ImportError, AttributeError) as error:
        if said := installation.problem(error):
            sys.exit(f"iptkit: {said}")
        raise
    app(prog_name="iptkit")


if __name__ == "__main__":
    main()
