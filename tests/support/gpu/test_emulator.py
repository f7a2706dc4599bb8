"""The emulator itself: what it must compute, and the faults that it must find; sanitizers: `sanitized/test_sanitizers.py`."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from solo_server.backends.gpu.postprocess import batch as structs
from support.gpu.emulator import EmulationError, Emulator, uninitialised

SOURCE = """
extern "C" __global__ void write_sums(const Batch b) {  // of the threads of each block up to each thread
    int total, before = block_scan(int(threadIdx.x) + 1, total);
    int* out = b.best_rows + blockIdx.x * (blockDim.x + 1);
    out[threadIdx.x] = before;
    if (threadIdx.x == 0) out[blockDim.x] = total;
}
extern "C" __global__ void reverse(const Batch b, int times) {
    SHARED_DYNAMIC(int, turned);
    turned[blockDim.x - 1 - threadIdx.x] = times * int(threadIdx.x);
    __syncthreads();
    b.best_rows[threadIdx.x] = turned[threadIdx.x];
}
extern "C" __global__ void exchange(const Batch b) {
    int lane = threadIdx.x & 31;
    int* out = b.best_rows + threadIdx.x * 6;
    out[0] = __shfl_sync(ALL_LANES, lane, 5);
    out[1] = __shfl_up_sync(ALL_LANES, lane, 3);
    out[2] = __shfl_down_sync(ALL_LANES, lane, 4);
    out[3] = __shfl_xor_sync(ALL_LANES, lane, 6);
    out[4] = int(__ballot_sync(ALL_LANES, lane % 3 == 0));
    out[5] = __any_sync(ALL_LANES, threadIdx.x == 40);
}
extern "C" __global__ void read_unwritten(const Batch b) {
    __shared__ int never[64];
    if (blockIdx.x == 1) b.best_rows[threadIdx.x] = never[threadIdx.x];
    else never[threadIdx.x] = 7;
}
extern "C" __global__ void race(const Batch b) {
    __shared__ int last;
    last = threadIdx.x;
    __syncthreads();
    b.best_rows[threadIdx.x] = last;
}
extern "C" __global__ void swap(const Batch b, int how) {  // 0 no wait, 1 a shuffle, 2 the warp, 3 the block; of neighbours
    __shared__ int all[64];
    all[threadIdx.x] = threadIdx.x;
    if (how == 1) (void)__shfl_sync(ALL_LANES, 1, 0);
    if (how == 2) __syncwarp();
    if (how == 3) __syncthreads();
    b.best_rows[threadIdx.x] = all[threadIdx.x ^ 1];
}
extern "C" __global__ void rewrite(const Batch b, int wait) {
    __shared__ int one;
    if (threadIdx.x == 0) one = 5;
    __syncthreads();
    int found = one;
    if (wait) __syncwarp();
    if (threadIdx.x == 0) one = 6;
    b.best_rows[threadIdx.x] = found;
}
extern "C" __global__ void count_blocks(const Batch b, int atomic) {
    if (threadIdx.x > 0) return;
    if (atomic) atomicAdd(b.best_rows, 1);
    else b.best_rows[0] += 1;
}
extern "C" __global__ void leave_others_waiting(const Batch b) {
    if (threadIdx.x == 33) return;
    __syncthreads();
}
extern "C" __global__ void wait_apart(const Batch b) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}
extern "C" __global__ void ask_half_a_warp(const Batch b) {
    if ((threadIdx.x & 31) < 16) b.best_rows[threadIdx.x] = __shfl_sync(ALL_LANES, 1, 0);
    __syncthreads();
}
extern "C" __global__ void name_few_lanes(const Batch b) { b.best_rows[threadIdx.x] = __shfl_sync(0xFFu, 1, 0); }
extern "C" __global__ void write_beyond(const Batch b, int at) { if (threadIdx.x == 0) b.best_rows[at] = 1; }
extern "C" __global__ void write_beyond_shared(const Batch b, int at) {
    __shared__ int few[64];
    if (threadIdx.x == 0) few[at] = 1;
    __syncthreads();
    b.best_rows[threadIdx.x] = few[threadIdx.x];
}
extern "C" __global__ void write_beyond_dynamic(const Batch b, int at) {
    SHARED_DYNAMIC(int, few);
    if (threadIdx.x == 0) few[at] = 1;
}
extern "C" __global__ void overflow(const Batch b, int value) { b.best_rows[threadIdx.x] = value + int(threadIdx.x); }
"""


def run(
    name: str,
    grid: int,
    block: int,
    numbers: int,
    *ints: int,
    shared_bytes: int = 0,
    backwards: bool = False,
    races: bool | None = None,
) -> list[int]:
    out = uninitialised(numbers, np.int32)
    batch = structs.Batch(best_rows=out.ctypes.data)
    emulator = Emulator(source=SOURCE, backwards=backwards, races=races)
    emulator.launch(name, grid, block, batch, *ints, shared_bytes=shared_bytes)
    return list(out.tolist())


@pytest.mark.parametrize("name", [struct.__name__ for struct in structs._STRUCTS.values()])
def test_ctypes_has_the_compilers_layout(name: str) -> None:
    struct: type[ctypes.Structure] = structs._STRUCTS[name]
    compiled = {key: size for key, size in Emulator().sizes().items() if key.partition(".")[0] == name}
    fields = {f"{name}.{field[0]}": getattr(struct, field[0]).offset for field in struct._fields_}
    assert compiled == {name: ctypes.sizeof(struct), **fields}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("threads", [32, 64, 1024])
def test_scan_of_each_block_counts_the_threads_before(threads: int, backwards: bool) -> None:
    row = [n * (n + 1) // 2 for n in range(threads + 1)]
    assert run("write_sums", 3, threads, 3 * (threads + 1), backwards=backwards) == 3 * row


def test_dynamic_shared_memory_is_seen_by_all_threads() -> None:
    assert run("reverse", 1, 64, 64, 3, shared_bytes=256) == [3 * (63 - i) for i in range(64)]


def test_warp_operations_are_those_of_cuda() -> None:
    found = np.reshape(run("exchange", 1, 64, 64 * 6), (64, 6))
    lanes = np.arange(64) % 32
    assert (found[:, 0] == 5).all()
    assert (found[:, 1] == np.where(lanes < 3, lanes, lanes - 3)).all()
    assert (found[:, 2] == np.where(lanes > 27, lanes, lanes + 4)).all()
    assert (found[:, 3] == lanes ^ 6).all()
    assert (found[:, 4].astype(np.uint32) == sum(1 << i for i in range(0, 32, 3))).all()
    assert (found[:, 5] == np.arange(64) // 32).all()


def test_shared_memory_of_a_block_does_not_reach_the_next() -> None:
    assert max(run("read_unwritten", 2, 64, 64)) < 0


def test_a_race_shows_when_threads_run_backwards() -> None:
    assert run("race", 1, 64, 64)[0] == 63
    assert run("race", 1, 64, 64, backwards=True)[0] == 0


@pytest.mark.parametrize(
    ("kernel", "grid", "block", "how", "words"),
    [
        ("swap", 1, 64, 0, "shared memory: thread 1 writes what thread 0 has read"),
        (
            "swap",
            1,
            64,
            1,
            "shared memory: thread 1 reads what thread 0 has written|thread 0 reads what thread 1 has written",
        ),
        (
            "rewrite",
            1,
            32,
            0,
            "shared memory: thread 0 writes what thread . has read|thread . reads what thread 0 has written",
        ),
        ("count_blocks", 3, 32, 0, "block 1 0 0: a race on global memory"),
    ],
)
def test_accesses_without_order_are_reported(kernel: str, grid: int, block: int, how: int, words: str) -> None:
    with pytest.raises(EmulationError, match=words):
        run(kernel, grid, block, 64, how, races=True)


@pytest.mark.parametrize(
    ("kernel", "grid", "how"), [("swap", 1, 2), ("swap", 1, 3), ("rewrite", 1, 1), ("count_blocks", 3, 1)]
)
def test_waiting_and_atomics_order_accesses(kernel: str, grid: int, how: int) -> None:
    run(kernel, grid, 32, 64, how, races=True)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ("leave_others_waiting", "waits in __syncthreads.*thread 33 ended"),
        ("wait_apart", "thread 0 waits in __syncthreads.*, but thread 32 waits in __syncthreads"),
        ("name_few_lanes", "block 0 0 0: a warp operation without all lanes in its mask"),
        ("ask_half_a_warp", "waits in __shfl_sync.*, but thread 16 waits in __syncthreads"),
    ],
)
def test_threads_that_wait_for_nobody_are_reported(kernel: str, words: str) -> None:
    with pytest.raises(EmulationError, match=words):
        run(kernel, 1, 64, 64)
    assert run("reverse", 1, 64, 64, 3, shared_bytes=256)[0] == 189, "the next launch works"


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes"), [(0, 64, 0), (1, 0, 0), (1, 40, 0), (1, 2048, 0), (1, 64, 49153)]
)
def test_launches_that_cuda_refuses_are_refused(grid: int, block: int, shared_bytes: int) -> None:
    with pytest.raises(EmulationError):
        run("race", grid, block, 64, shared_bytes=shared_bytes)


def test_wrong_number_of_ints_is_refused() -> None:
    with pytest.raises(EmulationError, match="takes 1 ints, not 2"):
        run("reverse", 1, 64, 64, 1, 2)
