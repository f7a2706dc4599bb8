// Category scores to candidates, and to the list of cells whose masks are needed. Nothing is rounded: equal to the CPU path.
//
//   count_candidates ─► scan_candidates ─► write_candidates
//                                       └► list_axes (decoupled)
#pragma once

#include "batch.cuh"
#include "common.cuh"

#define CELLS_OF_BLOCK 8  // a warp each

__device__ __forceinline__ int cell_of_warp() { return blockIdx.x * CELLS_OF_BLOCK + (thread_of_block() >> 5); }

// Whether (cell, label) is a candidate; false beyond the last class, so that whole warps may ask.
__device__ __forceinline__ bool is_candidate(const Batch& b, int p, int cell, int label) {
    if (label >= b.classes || !b.enabled_classes[size_t(p) * b.classes + label]) return false;
    float score = b.scores[(size_t(p) * b.cells + cell) * b.classes + label];
    float threshold = b.settings[p].threshold;
    return score > threshold || (score == threshold && b.settings[p].or_equal);
}

// Grid (cells / 8 rounded up, images), block 256: a warp counts one cell's candidates. Synchronises within the warp.
extern "C" __global__ void __launch_bounds__(256) count_candidates(const Batch b) {
    int p = blockIdx.y, cell = cell_of_warp();
    if (cell >= b.cells) return;
    int count = 0;
    for (int first = 0; first < b.classes; first += 32) {
        count += __popc(__ballot_sync(ALL_LANES, is_candidate(b, p, cell, first + lane_of_warp())));
    }
    if (lane_of_warp() == 0) b.cell_counts[size_t(p) * b.cells + cell] = count;
}

// Grid (images), block 1024: an image's cells, 1024 at a time: where their candidates begin, which of them have any, and
// where levels begin among these. Synchronises in block_scan only.
extern "C" __global__ void __launch_bounds__(1024) scan_candidates(const Batch b) {
    int p = blockIdx.x, thread = thread_of_block();
    size_t first_of_image = size_t(p) * b.cells;
    Counts* counts = b.counts + p;
    int candidates = 0, cells = 0;
    for (int first = 0; first < b.cells; first += 1024) {
        int cell = first + thread, in_chunk, listed_in_chunk;
        int count = cell < b.cells ? int(b.cell_counts[first_of_image + cell]) : 0;
        int offset = candidates + block_scan(count, in_chunk);
        int place = cells + block_scan(count > 0, listed_in_chunk);
        if (cell < b.cells) b.cell_offsets[first_of_image + cell] = offset;
        if (count > 0) {
            b.cell_places[first_of_image + cell] = place;
            b.cell_list[first_of_image + place] = cell;
        }
        for (int level = 0; level < b.levels; level++) {
            if (cell == b.first_cell[level]) counts->level_first[level] = place;
        }
        candidates += in_chunk;
        cells += listed_in_chunk;
    }
    if (thread >= b.levels && thread <= MAX_LEVELS) counts->level_first[thread] = cells;
    if (thread <= 2 * MAX_LEVELS) counts->axis_first[thread] = 0;
    if (thread == 0) {
        counts->candidates = candidates;
        counts->cells = cells;
    }
}

// Grid (cells / 8 rounded up, images), block 256: a warp writes one cell's candidates, in order of class. Synchronises within
// the warp.
extern "C" __global__ void __launch_bounds__(256) write_candidates(const Batch b) {
    int p = blockIdx.y, cell = cell_of_warp();
    if (cell >= b.cells) return;
    size_t at = size_t(p) * b.cells + cell;
    if (b.cell_counts[at] == 0) return;
    int place = b.cell_places[at], lane = lane_of_warp();
    size_t next = size_t(p) * b.cells * b.classes + b.cell_offsets[at];
    for (int first = 0; first < b.classes; first += 32) {
        int label = first + lane;
        bool mine = is_candidate(b, p, cell, label);
        unsigned found = __ballot_sync(ALL_LANES, mine);
        if (mine) {
            size_t to = next + __popc(found & ((1u << lane) - 1));
            b.candidate_places[to] = place;
            b.candidate_labels[to] = label;
            b.candidate_scores[to] = b.scores[at * b.classes + label];
        }
        next += __popc(found);
    }
}

// Writes, rising, which columns (axis 0) or rows (axis 1) of a level's grid the listed cells lie in; returns how many.
// Synchronises the block.
__device__ __forceinline__ int list_axis(const Batch& b, int p, int level, int axis, int* list) {
    __shared__ int occurs[256];
    int thread = thread_of_block(), grid = b.grid[level], listed = 0;
    const int* cells = b.cell_list + size_t(p) * b.cells;
    const Counts& counts = b.counts[p];
    for (int first = 0; first < grid; first += 256) {
        occurs[thread] = 0;
        __syncthreads();
        for (int i = counts.level_first[level] + thread; i < counts.level_first[level + 1]; i += 256) {
            int within = cells[i] - b.first_cell[level];
            int index = (axis == 0 ? within % grid : within / grid) - first;
            if (index >= 0 && index < 256) atomicOr(&occurs[index], 1);
        }
        __syncthreads();
        int in_chunk, place = listed + block_scan(occurs[thread], in_chunk);
        if (occurs[thread]) list[place] = first + thread;
        listed += in_chunk;
    }
    return listed;
}

// Grid (images), block 256; decoupled only: the axis maps that an image's cells need. Synchronises in list_axis.
extern "C" __global__ void __launch_bounds__(256) list_axes(const Batch b) {
    int p = blockIdx.x, thread = thread_of_block(), all = 0, listed = 0;
    for (int level = 0; level < b.levels; level++) all += 2 * b.grid[level];
    int* list = b.axis_list + size_t(p) * all;
    int* axis_first = b.counts[p].axis_first;
    for (int i = 0; i < 2 * b.levels; i++) {
        if (thread == 0) axis_first[i] = listed;
        listed += list_axis(b, p, i / 2, i % 2, list + listed);
    }
    if (thread >= 2 * b.levels && thread <= 2 * MAX_LEVELS) axis_first[thread] = listed;
}
