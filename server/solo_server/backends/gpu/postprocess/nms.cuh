// NMS of the best candidates: IoUs of their bit masks, then decays (matrix) or a walk from the best down (greedy).
//
//   intersect ─┬► relief ─► decay              images with nms 0
//              └► overlap_rows ─► greedy_keep  images with nms 1
//
// Every kernel skips images with another method, so that a batch may mix methods. What a kernel reads was written by an
// earlier launch: blocks never wait for each other.
#pragma once

#include "batch.cuh"
#include "common.cuh"

#define IOU_TILE 32     // masks a side
#define IOU_WORDS 32    // words of each that lie in shared memory at a time
#define COLUMN_ROWS 8   // warps that share 32 columns of the IoUs

struct IouSide {  // the masks of one side of a tile
    const unsigned* bits[IOU_TILE];
    int labels[IOU_TILE];  // below 0 beyond the last mask, different on both sides
    int areas[IOU_TILE];
    int first_column;      // all of their set bits lie from here
    int last_column;       // to before here
};

// One warp describes masks first.. of an image. Synchronises the warp.
__device__ __forceinline__ void read_side(const Batch& b, int p, int first, int no_label, IouSide& side) {
    int lane = lane_of_warp(), i = first + lane, left = b.mask_w, right = 0;
    side.labels[lane] = no_label;
    if (i < b.best_count[p]) {
        size_t at = size_t(p) * b.max_best + i, row = size_t(p) * b.rows + b.best_rows[at];
        side.bits[lane] = b.bits + row * b.mask_w * b.words;
        side.labels[lane] = b.best_labels[at];
        side.areas[lane] = b.best_areas[at];
        left = b.boxes[row * 4 + 2];
        right = b.boxes[row * 4 + 3];
    }
    for (int by = 16; by > 0; by >>= 1) {
        left = min(left, __shfl_xor_sync(ALL_LANES, left, by));
        right = max(right, __shfl_xor_sync(ALL_LANES, right, by));
    }
    if (lane == 0) {
        side.first_column = left;
        side.last_column = right;
    }
}

__device__ __forceinline__ void load_words(const IouSide& side, int first, int last, unsigned words[][IOU_WORDS + 1]) {
    for (int i = thread_of_block(); i < IOU_TILE * IOU_WORDS; i += 256) {
        int mask = i / IOU_WORDS, word = first + i % IOU_WORDS;
        words[mask][i % IOU_WORDS] = side.labels[mask] >= 0 && word < last ? side.bits[mask][word] : 0;
    }
}

// Grid (max_best / 32 rounded up, the same, images), block 256: IoUs of 32 masks (y) with 32 (x), four pairs a thread.
// Words pass through shared memory; columns outside of all boxes are left out. Synchronises the block.
extern "C" __global__ void __launch_bounds__(256) intersect(const Batch b) {
    __shared__ IouSide better, worse;
    __shared__ unsigned better_words[IOU_TILE][IOU_WORDS + 1], worse_words[IOU_TILE][IOU_WORDS + 1];
    __shared__ int some;
    int p = blockIdx.z, first_i = blockIdx.y * IOU_TILE, first_j = blockIdx.x * IOU_TILE, count = b.best_count[p];
    if (b.settings[p].nms == NMS_NONE || first_i >= count || first_j >= count) return;
    int thread = thread_of_block(), row = thread / 16, column = thread % 16, shared[4] = {0, 0, 0, 0};
    if (thread < 32) read_side(b, p, first_i, -1, better);
    else if (thread < 64) read_side(b, p, first_j, -2, worse);
    if (thread == 64) some = 0;
    __syncthreads();
    bool wanted[4];
    for (int n = 0; n < 4; n++) {
        int i = row + n / 2 * 16, j = column + n % 2 * 16;
        wanted[n] = first_i + i < first_j + j && better.labels[i] == worse.labels[j];
        if (wanted[n]) atomicOr(&some, 1);
    }
    __syncthreads();
    int last = some ? min(better.last_column, worse.last_column) * b.words : 0;
    for (int first = max(better.first_column, worse.first_column) * b.words; first < last; first += IOU_WORDS) {
        load_words(better, first, last, better_words);
        load_words(worse, first, last, worse_words);
        __syncthreads();
        for (int word = 0; word < IOU_WORDS; word++) {
            unsigned a = better_words[row][word], a_16 = better_words[row + 16][word];
            unsigned c = worse_words[column][word], c_16 = worse_words[column + 16][word];
            shared[0] += __popc(a & c);
            shared[1] += __popc(a & c_16);
            shared[2] += __popc(a_16 & c);
            shared[3] += __popc(a_16 & c_16);
        }
        __syncthreads();
    }
    for (int n = 0; n < 4; n++) {
        int i = row + n / 2 * 16, j = column + n % 2 * 16;
        if (first_i + i >= count || first_j + j >= count) continue;
        float iou = 0;
        if (wanted[n]) iou = float(shared[n]) / float(better.areas[i] + worse.areas[j] - shared[n]);
        b.ious[(size_t(p) * b.max_best + first_i + i) * b.max_best + first_j + j] = iou;
    }
}

__device__ __forceinline__ float iou_of(const Batch& b, int p, int better, int worse) {
    return b.ious[(size_t(p) * b.max_best + better) * b.max_best + worse];
}

// Grid (max_best / 32 rounded up, images), block 256: the highest IoU of 32 masks with a better one; a lane a mask, each warp
// an eighth of the better ones. Synchronises the block.
extern "C" __global__ void __launch_bounds__(256) relief(const Batch b) {
    __shared__ float highest[COLUMN_ROWS][32];
    int p = blockIdx.y, lane = lane_of_warp(), warp = thread_of_block() >> 5, j = blockIdx.x * 32 + lane;
    bool is_there = b.settings[p].nms == NMS_MATRIX && j < b.best_count[p];
    float worst = 0;
    for (int i = warp; is_there && i < j; i += COLUMN_ROWS) worst = max(worst, iou_of(b, p, i, j));
    highest[warp][lane] = worst;
    __syncthreads();
    if (warp > 0 || !is_there) return;
    for (int i = 1; i < COLUMN_ROWS; i++) worst = max(worst, highest[i][lane]);
    b.relief[size_t(p) * b.max_best + j] = worst;
}

// SOLOv2 section 3.3 in doubles, as kernels/nms.py. 1.17549435e-38 is the least normal float.
__device__ __forceinline__ float decay_by(const Batch& b, double iou, double worst) {
    if (b.gaussian) return float(exp(-b.sigma * iou * iou) / exp(-b.sigma * worst * worst));
    double left = 1 - worst, least = double(1.17549435e-38f);
    return float((1 - iou) / (left > least ? left : least));
}

// Grid (max_best / 32 rounded up, images), block 256: the strongest decay of 32 masks by a better one, divided as `relief`.
// Synchronises the block.
extern "C" __global__ void __launch_bounds__(256) decay(const Batch b) {
    __shared__ float strongest[COLUMN_ROWS][32];
    int p = blockIdx.y, lane = lane_of_warp(), warp = thread_of_block() >> 5, j = blockIdx.x * 32 + lane;
    bool is_there = b.settings[p].nms == NMS_MATRIX && j < b.best_count[p];
    float factor = 1;
    for (int i = warp; is_there && i < j; i += COLUMN_ROWS) {
        float iou = iou_of(b, p, i, j);
        if (iou > 0) factor = min(factor, decay_by(b, iou, b.relief[size_t(p) * b.max_best + i]));
    }
    strongest[warp][lane] = factor;
    __syncthreads();
    if (warp > 0 || !is_there) return;
    for (int i = 1; i < COLUMN_ROWS; i++) factor = min(factor, strongest[i][lane]);
    b.factors[size_t(p) * b.max_best + j] = factor;
}

__device__ __forceinline__ int overlap_words(const Batch& b) { return (b.max_best + 31) / 32; }

// Grid (max_best / 8 rounded up, images), block 256: a warp writes one mask's row of bits. Synchronises within the warp.
extern "C" __global__ void __launch_bounds__(256) overlap_rows(const Batch b) {
    int p = blockIdx.y, lane = lane_of_warp(), i = blockIdx.x * 8 + (thread_of_block() >> 5), count = b.best_count[p];
    if (b.settings[p].nms != NMS_GREEDY || i >= count) return;
    size_t row = size_t(p) * b.max_best + i;
    for (int word = 0; word * 32 < count; word++) {
        int j = word * 32 + lane;
        bool overlaps = j > i && j < count && b.ious[row * b.max_best + j] > b.nms_iou;
        unsigned found = __ballot_sync(ALL_LANES, overlaps);
        if (lane == 0) b.overlaps[row * overlap_words(b) + word] = found;
    }
}

// Grid (images), block 1024: from the best down, 32 masks a round. The first warp finds which of the 32 suppress each other, then
// every warp notes for 32 later masks which are suppressed by those that stay. Synchronises the block twice a round.
extern "C" __global__ void __launch_bounds__(1024) greedy_keep(const Batch b) {
    __shared__ unsigned suppressed[MAX_BEST / 32];
    int p = blockIdx.x, lane = lane_of_warp(), warp = thread_of_block() >> 5, count = b.best_count[p];
    if (b.settings[p].nms != NMS_GREEDY) return;
    const unsigned* rows = b.overlaps + size_t(p) * b.max_best * overlap_words(b);
    if (thread_of_block() < MAX_BEST / 32) suppressed[thread_of_block()] = 0;
    __syncthreads();
    for (int round = 0; round * 32 < count; round++) {
        int i = round * 32 + lane;
        const unsigned* row = rows + size_t(i) * overlap_words(b);
        if (warp == 0) {
            unsigned mine = i < count ? row[round] : 0, dropped = suppressed[round];
            for (int better = 0; better < 32; better++) {
                unsigned its = __shfl_sync(ALL_LANES, mine, better);
                if (!(dropped >> better & 1)) dropped |= its;
            }
            __syncwarp();  // all have read it: shuffles alone do not order memory
            if (lane == 0) suppressed[round] = dropped;
            if (i < count) b.factors[size_t(p) * b.max_best + i] = dropped >> lane & 1 ? 0 : 1;
        }
        __syncthreads();
        bool stays = i < count && !(suppressed[round] >> lane & 1);
        for (int word = round + 1 + warp; word * 32 < count; word += MAX_WARPS) {
            unsigned dropped = stays ? row[word] : 0;
            for (int by = 16; by > 0; by >>= 1) dropped |= __shfl_xor_sync(ALL_LANES, dropped, by);
            if (lane == 0) suppressed[word] |= dropped;
        }
        __syncthreads();
    }
}
