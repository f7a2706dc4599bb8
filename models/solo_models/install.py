"""The command that messages suggest where an optional package is missing, in the form that the documentation uses.

The project is not on a package index: it is installed from its checkout.
"""

PLACE = "in the checkout of solo-inference"


def install_command(extra: str, *packages: str) -> str:
    """The command that installs an extra of `pyproject.toml` and further packages, and where to run it."""
    return " ".join([f"pip install -c constraints.txt -e '.[{extra}]'", *packages, f"({PLACE})"])
