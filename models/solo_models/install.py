"""The command that messages suggest where an optional package is missing; the documentation has the same form.

The project is on no package index: it is installed from its checkout.
"""

PLACE = "in the checkout of solo-inference"


def install_command(extra: str, *packages: str) -> str:
    """Installs an extra of `pyproject.toml`, and packages beside it; says where the command is to be run."""
    return " ".join([f"pip install -c constraints.txt -e '.[{extra}]'", *packages, f"({PLACE})"])
