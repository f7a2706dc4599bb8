// What the kernels share: constants, dynamic shared memory, scans and sums over a warp or a block.
//
// Everything here that synchronises says so; all threads of the warp or block have to reach it.
#pragma once

#define ALL_LANES 0xFFFFFFFFu
#define MAX_WARPS 32        // of a block
#define MAX_BEST 2048       // candidates that enter NMS

#define NMS_MATRIX 0
#define NMS_GREEDY 1
#define NMS_NONE 2

#ifndef SHARED_DYNAMIC      // the CPU's emulation has its own
#define SHARED_DYNAMIC(type, name)                                \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

__device__ __forceinline__ int thread_of_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

__device__ __forceinline__ int threads_of_block() { return blockDim.x * blockDim.y * blockDim.z; }

__device__ __forceinline__ int lane_of_warp() { return thread_of_block() & 31; }

// Sum over the warp, in all lanes. Synchronises the warp.
__device__ __forceinline__ int warp_sum(int value) {
    for (int by = 16; by > 0; by >>= 1) value += __shfl_xor_sync(ALL_LANES, value, by);
    return value;
}

// Sum over this lane and those before it. Synchronises the warp.
__device__ __forceinline__ int warp_scan(int value) {
    for (int by = 1; by < 32; by <<= 1) {
        int before = __shfl_up_sync(ALL_LANES, value, by);
        if (lane_of_warp() >= by) value += before;
    }
    return value;
}

// Sum over the threads before this one; `total` becomes the sum over the block. Synchronises the block, at its end as well, so
// that it may be called again at once.
__device__ __forceinline__ int block_scan(int value, int& total) {
    __shared__ int sums[MAX_WARPS];
    int warp = thread_of_block() >> 5, warps = threads_of_block() >> 5;
    int upto = warp_scan(value);
    if (lane_of_warp() == 31) sums[warp] = upto;
    __syncthreads();
    if (warp == 0) {
        int lane = lane_of_warp();
        int scanned = warp_scan(lane < warps ? sums[lane] : 0);
        __syncwarp();
        sums[lane] = scanned;
    }
    __syncthreads();
    int before = warp == 0 ? 0 : sums[warp - 1];
    total = sums[warps - 1];
    __syncthreads();
    return before + upto - value;
}

// Sum over the block, in all threads. Synchronises the block.
__device__ __forceinline__ int block_sum(int value) {
    int total;
    block_scan(value, total);
    return total;
}
