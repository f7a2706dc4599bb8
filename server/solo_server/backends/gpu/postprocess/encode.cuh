// Soft masks of the kept instances to positions of change at original size: counted, numbered, then written.
//
//   soft masks ─► count_runs ─► scan_runs ─► write_runs ─► host: run lengths, COCO strings
//
// Both bilinear steps of the reference are one set of three taps a pixel and axis (backends/bilinear_taps.py): a column of the original
// is blended at the mask's height, then its rows, with float operations in the order of kernels/rle_encode.py. A position is
// x * height + y of a pixel that differs from the one before it, column by column; before the first pixel all is 0.
// A block has SEGMENT columns of one instance, a warp COLUMNS_A_WARP neighbours of these, a lane one of 32 rows at a time.
// The grid of count_runs and write_runs is (S, E, N), with ENCODE_WARPS * mask_h floats of dynamic shared memory.
#pragma once
#include "batch.cuh"
#include "common.cuh"

#define SEGMENT 32       // columns of the original
#define ENCODE_WARPS 8
#define COLUMNS_A_WARP (SEGMENT / ENCODE_WARPS)
#define ENCODE_REACH 2   // a pixel is made of this many neighbours beyond the first, in each direction
#define ENCODE_MARGIN 2  // the box of pixels above the threshold is widened by it, see kernels/soft_masks.py

struct Original {  // one instance at original size; outside of rows top..bottom and of columns that touch the box all is 0
    const float* soft;
    const Tap* rows;
    const Tap* columns;
    int height;
    int width;
    int mask_h;
    int mask_w;
    float threshold;
    int box_left;
    int box_right;
    int top;     // of the mask, until settle_rows makes them rows of the original
    int bottom;
};

struct Walked {  // counts of one column, by one warp
    unsigned changes;
    unsigned area;
    int top;
    int bottom;  // inclusive; below top where there is nothing
};

__device__ __forceinline__ int instances_of_pass(const Batch& b, int p) {
    return max(0, min(b.kept_count[p] - b.first_kept, b.at_once));
}

__device__ __forceinline__ int segments_of(const ImageSettings& settings) {
    return (settings.original_w + SEGMENT - 1) / SEGMENT;
}

__device__ __forceinline__ Original original_of(const Batch& b, int p, int e) {
    const ImageSettings& settings = b.settings[p];
    size_t best = (size_t)p * b.max_best + b.kept[(size_t)p * b.max_best + b.first_kept + e];
    const int* box = b.boxes + ((size_t)p * b.rows + b.best_rows[best]) * 4;
    Original o;
    o.soft = b.soft + ((size_t)p * b.at_once + e) * b.mask_h * b.mask_w;
    o.rows = b.taps + settings.first_row_tap;
    o.columns = b.taps + settings.first_column_tap;
    o.height = settings.original_h;
    o.width = settings.original_w;
    o.mask_h = b.mask_h;
    o.mask_w = b.mask_w;
    o.threshold = b.mask_threshold;
    o.box_left = box[2] - ENCODE_MARGIN;
    o.box_right = box[3] + ENCODE_MARGIN;
    o.top = box[0] - ENCODE_MARGIN;
    o.bottom = box[1] + ENCODE_MARGIN;
    return o;
}

// Rows of the mask become rows of the original: taps rise, so those before and those within are counted, by the whole block.
__device__ __forceinline__ void settle_rows(Original& o, int* edges) {
    if (threadIdx.x < 2) edges[threadIdx.x] = 0;
    __syncthreads();
    int before = 0, begun = 0;
    for (int y = threadIdx.x; y < o.height; y += blockDim.x) {
        int first = o.rows[y].first;
        before += first + ENCODE_REACH < o.top;
        begun += first < o.bottom;
    }
    if (before > 0) atomicAdd(&edges[0], before);
    if (begun > 0) atomicAdd(&edges[1], begun);
    __syncthreads();
    o.top = edges[0];
    o.bottom = edges[1];
}

__device__ __forceinline__ bool column_touches(const Original& o, int x) {
    int first = o.columns[x].first;
    return first + ENCODE_REACH >= o.box_left && first < o.box_right;
}

// A segment without such a column has no change either, but for the first row after a mask that touches the bottom.
__device__ __forceinline__ bool segment_touches(const Original& o, int first_column) {
    int last = min(first_column + SEGMENT, o.width) - 1, before = max(first_column - 1, 0);
    return o.columns[last].first + ENCODE_REACH >= o.box_left && o.columns[before].first < o.box_right;
}

__device__ __forceinline__ float blended(const Tap& tap, float a, float b, float c) {
    return tap.weights[0] * a + tap.weights[1] * b + tap.weights[2] * c;
}

__device__ __forceinline__ float column_value(const Original& o, const Tap& tap, int y) {
    const float* row = o.soft + (size_t)y * o.mask_w;
    int last = o.mask_w - 1;  // taps beyond weigh nothing
    return blended(tap, row[tap.first], row[min(tap.first + 1, last)], row[min(tap.first + 2, last)]);
}

__device__ __forceinline__ float line_value(const Original& o, const Tap& tap, const float* line) {
    int last = o.mask_h - 1;
    return blended(tap, line[tap.first], line[min(tap.first + 1, last)], line[min(tap.first + 2, last)]);
}

__device__ __forceinline__ bool last_of_column(const Original& o, int x) {
    if (o.bottom < o.height || o.bottom <= o.top || !column_touches(o, x)) return false;
    const Tap row = o.rows[o.height - 1], column = o.columns[x];
    int last = o.mask_h - 1;
    float a = column_value(o, column, row.first);
    float b = column_value(o, column, min(row.first + 1, last));
    float c = column_value(o, column, min(row.first + 2, last));
    return blended(row, a, b, c) > o.threshold;
}

// One column by one warp, all of whose lanes call it. Changes are numbered from `number` on; those of the window are written.
__device__ __forceinline__ Walked walk_column(const Original& o, int x, float* line, const Batch& b, unsigned number, bool write) {
    int lane = threadIdx.x & 31;
    Walked found = {0, 0, o.height, -1};
    bool touches = column_touches(o, x) && o.top < o.bottom;
    unsigned previous = x > 0 && last_of_column(o, x - 1);
    if (!touches && !previous) return found;
    if (touches) {
        const Tap column = o.columns[x];
        int last = min(o.rows[o.bottom - 1].first + ENCODE_REACH, o.mask_h - 1);
        for (int y = o.rows[o.top].first + lane; y <= last; y += 32) line[y] = column_value(o, column, y);
    }
    __syncwarp();
    int begin = o.bottom == o.height ? 0 : o.top / 32 * 32, end = min(o.bottom + 1, o.height);
    for (int base = begin; base < end; base += 32) {
        int y = base + lane;
        bool above = touches && y >= o.top && y < o.bottom && line_value(o, o.rows[y], line) > o.threshold;
        unsigned bits = __ballot_sync(ALL_LANES, above);
        unsigned changes = bits ^ (bits << 1 | previous);
        previous = bits >> 31;
        if (o.height - base < 32) changes &= (1u << (o.height - base)) - 1;
        if (write && (changes >> lane & 1)) {
            unsigned place = number + found.changes + __popc(changes & ((1u << lane) - 1)) - b.first_run;
            if (place < b.run_capacity) b.positions[place] = (unsigned)x * o.height + y;
        }
        found.changes += __popc(changes);
        found.area += __popc(bits);
        if (bits) {
            if (found.bottom < 0) found.top = base + __ffs(bits) - 1;
            found.bottom = base + 31 - __clz(bits);
        }
    }
    __syncwarp();  // the line is free for the next column
    return found;
}

__device__ __forceinline__ void note_column(const Original& o, int x, const Walked& walked, unsigned* area, int* extent) {
    atomicAdd(area, walked.area);
    atomicMax(&extent[0], o.width - x);
    atomicMax(&extent[1], o.height - walked.top);
    atomicMax(&extent[2], x + 1);
    atomicMax(&extent[3], walked.bottom + 1);
}

__device__ __forceinline__ void add_to_found(FoundInstance* found, unsigned area, const int* extent) {
    atomicAdd(&found->area, area);
    atomicMax(&found->left, extent[0]);
    atomicMax(&found->top, extent[1]);
    atomicMax(&found->right, extent[2]);
    atomicMax(&found->bottom, extent[3]);
}

// Adds to `found`, which the host has cleared: distances from the far ends, so that 0 stands for nothing; scan_runs turns them.
extern "C" __global__ void __launch_bounds__(256) count_runs(const Batch b) {
    SHARED_DYNAMIC(float, lines);
    __shared__ int edges[2], extent[4];
    __shared__ unsigned changes, area;
    int p = blockIdx.z, e = blockIdx.y, first_column = blockIdx.x * SEGMENT, warp = threadIdx.x / 32;
    if (e >= instances_of_pass(b, p) || (int)blockIdx.x >= segments_of(b.settings[p])) return;
    size_t instance = (size_t)p * b.at_once + e;
    unsigned* segment_runs = b.segment_runs + instance * b.segments + blockIdx.x;
    Original o = original_of(b, p, e);
    if (!segment_touches(o, first_column)) {
        if (threadIdx.x == 0) *segment_runs = 0;
        return;
    }
    if (threadIdx.x < 4) extent[threadIdx.x] = 0;
    if (threadIdx.x == 0) changes = area = 0;
    settle_rows(o, edges);
    for (int i = 0; i < COLUMNS_A_WARP; i++) {
        int x = first_column + warp * COLUMNS_A_WARP + i;
        if (x >= o.width) break;
        Walked walked = walk_column(o, x, lines + warp * b.mask_h, b, 0, false);
        if (threadIdx.x % 32 > 0) continue;
        if (walked.changes > 0) atomicAdd(&changes, walked.changes);
        if (walked.area > 0) note_column(o, x, walked, &area, extent);
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    *segment_runs = changes;
    if (area > 0) add_to_found(b.found + instance, area, extent);
}

__device__ __forceinline__ void complete_found(const Batch& b, int p, int e, unsigned runs) {
    FoundInstance* found = b.found + (size_t)p * b.at_once + e;
    size_t place = (size_t)p * b.max_best + b.first_kept + e;
    found->label = b.best_labels[(size_t)p * b.max_best + b.kept[place]];
    found->score = b.kept_scores[place];
    found->left = b.settings[p].original_w - found->left;
    found->top = b.settings[p].original_h - found->top;
    found->right -= 1;
    found->bottom -= 1;
    found->runs = runs;
}

// Lengths of an instance's segments become the numbers of their first positions. By one warp.
__device__ __forceinline__ void number_segments(unsigned* segments, int count, int begin) {
    int lane = threadIdx.x & 31;
    for (int base = 0; base < count; base += 32) {
        bool there = base + lane < count;
        int runs = there ? segments[base + lane] : 0, upto = warp_scan(runs);
        if (there) segments[base + lane] = begin + upto - runs;
        begin += __shfl_sync(ALL_LANES, upto, 31);
    }
}

// Where each instance's positions begin: grid (1), block 1024. Three phases, the instances' sums pass through `found`.
extern "C" __global__ void __launch_bounds__(1024) scan_runs(const Batch b) {
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32, warps = blockDim.x / 32, all = b.images * b.at_once;
    for (int instance = warp; instance < all; instance += warps) {
        int p = instance / b.at_once, e = instance % b.at_once;
        if (e >= instances_of_pass(b, p)) continue;
        int runs = 0;
        for (int s = lane; s < segments_of(b.settings[p]); s += 32) runs += b.segment_runs[(size_t)instance * b.segments + s];
        runs = warp_sum(runs);
        if (lane == 0) complete_found(b, p, e, runs);
    }
    __syncthreads();
    int begin = 0, runs_of_all = 0;
    for (int base = 0; base < all; base += blockDim.x, begin += runs_of_all) {
        int instance = base + threadIdx.x;
        bool there = instance < all && instance % b.at_once < instances_of_pass(b, instance / b.at_once);
        int before = block_scan(there ? b.found[instance].runs : 0, runs_of_all);
        if (there) b.found[instance].first_run = begin + before;
    }
    __syncthreads();
    for (int instance = warp; instance < all; instance += warps) {
        int p = instance / b.at_once;
        if (instance % b.at_once < instances_of_pass(b, p))
            number_segments(b.segment_runs + (size_t)instance * b.segments, segments_of(b.settings[p]), b.found[instance].first_run);
    }
    for (int p = threadIdx.x; p < b.images; p += blockDim.x) {
        int instances = instances_of_pass(b, p);
        const FoundInstance* found = b.found + (size_t)p * b.at_once;
        Summary summary = {instances, b.kept_count[p], b.best_count[p], 0};
        for (int e = 0; e < instances; e++) summary.runs += found[e].runs;
        b.summaries[p] = summary;
    }
}

// Walks twice: how many changes each column has, then with the number of its first one.
extern "C" __global__ void __launch_bounds__(256) write_runs(const Batch b) {
    SHARED_DYNAMIC(float, lines);
    __shared__ int edges[2];
    __shared__ unsigned column_changes[SEGMENT];
    int p = blockIdx.z, e = blockIdx.y, s = blockIdx.x, lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    if (e >= instances_of_pass(b, p) || s >= segments_of(b.settings[p])) return;
    size_t instance = (size_t)p * b.at_once + e;
    const unsigned* first_runs = b.segment_runs + instance * b.segments;
    const FoundInstance& found = b.found[instance];
    unsigned begin = first_runs[s], end = s + 1 < segments_of(b.settings[p]) ? first_runs[s + 1] : found.first_run + found.runs;
    if (begin == end || end <= b.first_run || (begin >= b.first_run && begin - b.first_run >= b.run_capacity)) return;
    Original o = original_of(b, p, e);
    settle_rows(o, edges);
    float* line = lines + warp * b.mask_h;
    for (int column = warp * COLUMNS_A_WARP; column < (warp + 1) * COLUMNS_A_WARP; column++) {
        int x = s * SEGMENT + column;
        Walked walked = {0, 0, 0, 0};
        if (x < o.width) walked = walk_column(o, x, line, b, 0, false);
        if (lane == 0) column_changes[column] = walked.changes;
    }
    __syncthreads();
    for (int column = 0; column < (warp + 1) * COLUMNS_A_WARP; column++) {
        unsigned changes = column_changes[column];
        if (column / COLUMNS_A_WARP == warp && changes > 0) walk_column(o, s * SEGMENT + column, line, b, begin, true);
        begin += changes;
    }
}
