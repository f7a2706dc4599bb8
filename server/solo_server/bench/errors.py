"""What ends a measurement, and with which exit status.

BenchError     it cannot begin: arguments, images, bundles, peers   exit status 2
EndedEarly     it began, and something broke; samples are kept        exit status 3
"""

from __future__ import annotations


class BenchError(Exception):
    """A measurement that cannot begin; the message is one line for the user."""


class EndedEarly(Exception):
    """A contender or a server is gone; what was measured until then is kept."""
