"""Rules of CUDA that the fake device watches: one error for each way to break one."""


class Breach(AssertionError):
    """A rule of CUDA was broken. No `DeviceFailure`: nothing that handles those may take it for one."""


class UseAfterFree(Breach):
    """Freed memory, or a freed graph, was used."""


class DoubleFree(Breach):
    """Freed once more."""


class FreedWhileQueued(Breach):
    """Freed while queued work, of which nobody knows that it is done, uses it."""


class OutOfBounds(Breach):
    """A copy beyond a buffer, an address in no buffer, or bytes around a buffer that have changed."""


class WrittenAfterFree(Breach):
    """Freed memory is not what it was filled with."""


class Leaked(Breach):
    """Not freed when the device was closed."""


class PinnedRace(Breach):
    """Pinned memory was written, or given to another copy, before the host knew that a copy was done."""


class NotRecorded(Breach):
    """An event was waited for, or read, before it was put on a stream."""


class NotTimed(Breach):
    """Elapsed time of events without timing, or not known to have been reached."""


class CaptureBroken(Breach):
    """While capturing something was asked for that cannot be captured."""


class WrongThread(Breach):
    """A thread called without having said `use()`."""


class WrongLaunch(Breach):
    """A launch that the driver would refuse, or whose arguments are not the kernel's."""


class TouchedByHost(Breach):
    """The host looked at device memory."""


class Foreign(Breach):
    """A thing of another device."""
