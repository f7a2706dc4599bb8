"""Why a measurement ends, and the exit status.

BenchError     it cannot begin: arguments, images, bundles, peers    exit status 2
EndedEarly     it began, then something failed; samples are kept     exit status 3
"""

from __future__ import annotations


class BenchError(Exception):
    """A measurement that cannot begin; the message is one line for the user."""


class EndedEarly(Exception):
    """A contender or a server died; the results so far are kept."""
