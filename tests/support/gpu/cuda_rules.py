"""Violations of CUDA's rules that the fake device detects: one error class each."""


class Breach(AssertionError):
    """A rule of CUDA was broken. Not a `DeviceFailure`, so that no handler of those catches it."""


class UseAfterFree(Breach):
    """Freed memory, or a freed graph, was used."""


class DoubleFree(Breach):
    """Memory or a graph was freed twice."""


class FreedWhileQueued(Breach):
    """Freed while queued work uses it that is not known to be done."""


class OutOfBounds(Breach):
    """A copy beyond a buffer, an address outside of all buffers, or changed bytes around a buffer."""


class WrittenAfterFree(Breach):
    """Freed memory was changed."""


class Leaked(Breach):
    """Not freed when the device was closed."""


class PinnedRace(Breach):
    """Pinned memory was written, or used by another copy, before a copy was known to be done."""


class NotRecorded(Breach):
    """An event was waited for, or read, before it was recorded."""


class NotTimed(Breach):
    """Elapsed time of events without timing, or not known to be reached."""


class CaptureBroken(Breach):
    """A call during a capture that cannot be captured."""


class WrongThread(Breach):
    """A thread called before its `use()`."""


class WrongLaunch(Breach):
    """A launch that the driver would refuse, or with wrong arguments."""


class TouchedByHost(Breach):
    """The host accessed device memory."""


class Foreign(Breach):
    """An object of another device."""
