// The best of many by score: candidates that enter NMS, and instances that leave it.
//
// What is compared are keys: the score's bits above the complement of the index. Scores are never negative, so that their bits
// order as integers; keys are all different and greater than 0, and of equal scores the first is the greater, as in the CPU path's
// stable sort. So neither selection nor sort has ties, and their result does not depend on which thread came first.
#pragma once

#include "batch.cuh"
#include "common.cuh"

typedef unsigned long long Key;

__device__ __forceinline__ Key key_of(float score, int index) {
    return Key(__float_as_uint(score)) << 32 | (0xFFFFFFFFu - unsigned(index));
}

__device__ __forceinline__ int index_of(Key key) { return int(0xFFFFFFFFu - unsigned(key)); }

__device__ __forceinline__ float score_of(Key key) { return __uint_as_float(unsigned(key >> 32)); }

// Sorts keys[0..count) in shared memory, greatest first, and fills up to a power of two with zeros, MAX_BEST at most. A bitonic
// network. Synchronises the block, at its beginning and its end too.
__device__ __forceinline__ void sort_keys(Key* keys, int count) {
    int thread = thread_of_block(), threads = threads_of_block(), size = 1;
    while (size < count) size <<= 1;
    for (int i = count + thread; i < size; i += threads) keys[i] = 0;
    __syncthreads();
    for (int run = 2; run <= size; run <<= 1) {
        for (int apart = run >> 1; apart > 0; apart >>= 1) {
            for (int pair = thread; pair < size / 2; pair += threads) {
                int i = 2 * pair - (pair & (apart - 1)), j = i + apart;
                Key left = keys[i], right = keys[j];
                if ((left < right) == ((i & run) == 0)) {
                    keys[i] = right;
                    keys[j] = left;
                }
            }
            __syncthreads();
        }
    }
}

__device__ __forceinline__ int stride_of_place(const Batch& b, int p, int place) {
    int level = 0;
    while (level < b.levels - 1 && place >= b.counts[p].level_first[level + 1]) level++;
    return b.stride[level];
}

// Of candidate i; 0 where its mask is too small. Areas stay below 2^24, so that a float holds them.
__device__ __forceinline__ Key candidate_key(const Batch& b, int p, int i) {
    size_t at = size_t(p) * b.cells * b.classes + i;
    int place = b.candidate_places[at];
    size_t cell = size_t(p) * b.cells + place;
    int area = b.areas[cell];
    if (area <= stride_of_place(b, p, place)) return 0;
    return key_of(b.candidate_scores[at] * (b.totals[cell] / float(area)), i);
}

// The `wanted`-th greatest key of the candidates, or less, but then there are none between: radix selection, eight bits a pass,
// until a digit's keys are all wanted. There must be so many. Synchronises the block.
__device__ __forceinline__ Key least_key(const Batch& b, int p, int candidates, int wanted) {
    __shared__ int histogram[256];
    __shared__ int chosen, still_wanted, of_digit;
    int thread = thread_of_block();
    Key found = 0, digits = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        if (thread < 256) histogram[thread] = 0;
        __syncthreads();
        for (int i = thread; i < candidates; i += 1024) {
            Key key = candidate_key(b, p, i);
            if (key != 0 && (key & digits) == found) atomicAdd(&histogram[int(key >> shift & 255)], 1);
        }
        __syncthreads();
        int count = thread < 256 ? histogram[255 - thread] : 0, total;
        int greater = block_scan(count, total);
        if (greater < wanted && wanted <= greater + count) {
            chosen = 255 - thread;
            still_wanted = wanted - greater;
            of_digit = count;
        }
        __syncthreads();
        found |= Key(chosen) << shift;
        digits |= Key(255) << shift;
        wanted = still_wanted;
        if (of_digit == wanted) break;
    }
    return found;
}

// Grid (images), block 1024: masks larger than the stride, score times maskness, the best max_best of them, best first.
// Synchronises the block.
extern "C" __global__ void __launch_bounds__(1024, 1) select_top(const Batch b) {
    __shared__ Key keys[MAX_BEST];
    __shared__ int found;
    int p = blockIdx.x, thread = thread_of_block(), passed = 0;
    int candidates = b.counts[p].candidates;
    for (int i = thread; i < candidates; i += 1024) passed += candidate_key(b, p, i) != 0;
    passed = block_sum(passed);
    int count = min(passed, b.max_best);
    Key least = passed > count ? least_key(b, p, candidates, count) : 1;
    if (thread == 0) found = 0;
    __syncthreads();
    for (int i = thread; i < candidates; i += 1024) {
        Key key = candidate_key(b, p, i);
        if (key >= least) keys[atomicAdd(&found, 1)] = key;
    }
    sort_keys(keys, count);
    for (int rank = thread; rank < count; rank += 1024) {
        int i = index_of(keys[rank]);
        size_t from = size_t(p) * b.cells * b.classes + i, to = size_t(p) * b.max_best + rank;
        b.best_candidates[to] = i;
        b.best_scores[to] = score_of(keys[rank]);
        b.best_labels[to] = b.candidate_labels[from];
        b.best_rows[to] = b.candidate_places[from];
        b.best_areas[to] = b.areas[size_t(p) * b.cells + b.candidate_places[from]];
    }
    if (thread == 0) b.best_count[p] = count;
}

// How many of `cells`, which rise, lie below `cell`.
__device__ __forceinline__ int cells_below(const int* cells, int count, int cell) {
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (cells[middle] < cell) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Grid (images), block 1024; only where an image has more cells than rows: only the cells of the best stay listed, so that their
// bits can be made again and lie side by side. Synchronises the block.
extern "C" __global__ void __launch_bounds__(1024) list_top_cells(const Batch b) {
    __shared__ Key keys[MAX_BEST];  // cell above rank, complemented: greatest first is rising
    int p = blockIdx.x, thread = thread_of_block(), count = b.best_count[p], cells = 0;
    int* list = b.cell_list + size_t(p) * b.cells;
    int* rows = b.best_rows + size_t(p) * b.max_best;
    for (int rank = thread; rank < count; rank += 1024) keys[rank] = ~(Key(list[rows[rank]]) << 32 | unsigned(rank));
    sort_keys(keys, count);  // from here on the old list is no longer read
    for (int first = 0; first < count; first += 1024) {
        int i = first + thread, in_chunk;
        int cell = i < count ? int(~keys[i] >> 32) : -1;
        bool is_new = i < count && (i == 0 || int(~keys[i - 1] >> 32) != cell);
        int place = cells + block_scan(is_new, in_chunk) + is_new - 1;
        if (is_new) {
            list[place] = cell;
            b.cell_places[size_t(p) * b.cells + cell] = place;
        }
        if (i < count) rows[int(unsigned(~keys[i]))] = place;
        cells += in_chunk;
    }
    __syncthreads();  // the list is written
    Counts* counts = b.counts + p;
    if (thread <= MAX_LEVELS) {
        counts->level_first[thread] = thread < b.levels ? cells_below(list, cells, b.first_cell[thread]) : cells;
    }
    if (thread == 0) counts->cells = cells;
}

// Grid (images), block 1024: what NMS left of the scores, at least the threshold, best first, at most as many as asked for.
// Synchronises the block.
extern "C" __global__ void __launch_bounds__(1024) select_kept(const Batch b) {
    __shared__ Key keys[MAX_BEST];
    int p = blockIdx.x, thread = thread_of_block(), count = b.best_count[p], passed = 0;
    const ImageSettings& settings = b.settings[p];
    size_t first = size_t(p) * b.max_best;
    for (int i = thread; i < count; i += 1024) {
        float score = b.best_scores[first + i] * (settings.nms == NMS_NONE ? 1.0f : b.factors[first + i]);
        bool kept = score >= settings.score_threshold && score > 0;
        keys[i] = kept ? key_of(score, i) : 0;
        passed += kept;
    }
    passed = min(block_sum(passed), settings.max_instances);
    sort_keys(keys, count);
    for (int i = thread; i < passed; i += 1024) {
        b.kept[first + i] = index_of(keys[i]);
        b.kept_scores[first + i] = score_of(keys[i]);
    }
    if (thread == 0) b.kept_count[p] = passed;
}
