"""Device memory and page-locked memory of the fake device, as programs hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solo_server.types import UInt8
from support.gpu.cuda_rules import PinnedRace, UseAfterFree
from support.gpu.fake_queue import Work

if TYPE_CHECKING:
    from support.gpu.fake_device import FakeDevice


class FakeBuffer:
    """Device memory; see `DeviceBuffer`."""

    def __init__(self, device: FakeDevice, size_bytes: int, name: str) -> None:
        self.device = device
        self.block = device.new_block(size_bytes, name)

    @property
    def address(self) -> int:
        """Address of the first byte."""
        if self.block.freed:
            raise self.device.broken(UseAfterFree(self.block.name))
        return self.block.address

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return self.block.size_bytes

    def free(self) -> None:
        """Free it."""
        self.device.free_block(self.block)


class FakePinned:
    """Page-locked memory; see `PinnedBuffer`. pending: copies not known to be done: (start, end, is a download, work)."""

    def __init__(self, device: FakeDevice, size_bytes: int, name: str) -> None:
        self.device = device
        self.block = device.new_block(size_bytes, name)
        self.pending: list[tuple[int, int, bool, Work]] = []

    @property
    def array(self) -> UInt8:
        """The memory itself."""
        if self.block.freed:
            raise self.device.broken(UseAfterFree(self.block.name))
        return self.block.bytes

    def free(self) -> None:
        """Free it."""
        self.device.free_block(self.block)

    def claim(self, start: int, size_bytes: int, download: bool, work: Work) -> None:
        """Register a copy. Raises PinnedRace where it overlaps a pending copy and one of the two writes."""
        self.pending = [claim for claim in self.pending if not claim[3].known]
        for begin, end, writes, _ in self.pending:
            if begin < start + size_bytes and start < end and (writes or download):
                raise PinnedRace(f"{self.block.name}: {work.name} while bytes {begin} to {end} are on their way")
        self.pending.append((start, start + size_bytes, download, work))
