// Soft values of mask pixels, computed in shared memory tile by tile: measured for all cells, written for the kept instances.
//
//   logits | axis_maps ─► measure_cells ─► areas, totals, boxes, bits          (axis.cuh makes logits and axis maps)
//                      └► soft_maps ─► soft, of the kept instances of a pass
//
// A soft value is the bilinear resize of a doubled map, which is the sigmoid of doubled logits or an axis map. No doubled map is
// larger than the mask: the first level has the finest stride, and masks have half of it.
#pragma once

#include "axis.cuh"
#include "batch.cuh"
#include "common.cuh"

#define MASK_THREADS 256
#define MASK_WARPS 8
#define MASK_TILE_ROWS 32     // of the mask: one word of each column
#define MASK_TILE_COLUMNS 64
#define PLANE_ROWS 33    // of the doubled map that a tile is made of, at most
#define PLANE_COLUMNS 65 // odd: lanes read down a column without bank conflicts

struct Blend {  // a pixel of the resized map, along one axis
    int low;
    int high;
    float weight;  // of high
};

struct Measure {  // of one warp's columns, then of all
    int area;
    int top;
    int bottom;
    int left;
    int right;
    float total;
};

struct Tile {  // in shared memory
    Blend rows[MASK_TILE_ROWS];
    Blend columns[MASK_TILE_COLUMNS];
    float planes[2][PLANE_ROWS * PLANE_COLUMNS];  // doubled maps: one, or that of the column's and of the row's axis map
    Measure warps[MASK_WARPS];
};

struct Place {  // of a tile in the mask
    int top;
    int left;
    int rows;
    int columns;
};

struct LogitMask {  // of SOLO heads
    static const int PLANES = 1;
    int height;  // of the doubled map
    int width;
    const float* logits;
};

struct AxisMask {  // of decoupled heads
    static const int PLANES = 2;
    int height;
    int width;
    const float* maps[2];
};

__device__ __forceinline__ float doubled(const LogitMask& mask, int, int y, int x) {
    const int height = mask.height / 2, width = mask.width / 2, other = farther(x, width);
    const float* const near = mask.logits + y / 2 * width;
    const float* const far = mask.logits + farther(y, height) * width;
    return sigmoid(KEEP * (KEEP * near[x / 2] + TAKE * far[x / 2]) + TAKE * (KEEP * near[other] + TAKE * far[other]));
}

__device__ __forceinline__ float doubled(const AxisMask& mask, int plane, int y, int x) {
    return mask.maps[plane][y * mask.width + x];
}

// As `bilinear_taps` (backends/bilinear_taps.py), in integers: position is 2 * target times that of the pixel's centre.
__device__ __forceinline__ Blend blend_of(int pixel, int length, int target) {
    const int position = max((2 * pixel + 1) * length - target, 0);
    const int low = min(position / (2 * target), length - 1);
    const int rest = position - low * 2 * target;
    return {low, rest == 0 ? low : min(low + 1, length - 1), (float)rest / (float)(2 * target)};
}

__device__ __forceinline__ int tiles_across(const Batch& b) { return (b.mask_w + MASK_TILE_COLUMNS - 1) / MASK_TILE_COLUMNS; }

__device__ __forceinline__ Place place_of(const Batch& b, int number) {
    const int top = number / tiles_across(b) * MASK_TILE_ROWS, left = number % tiles_across(b) * MASK_TILE_COLUMNS;
    return {top, left, min(MASK_TILE_ROWS, b.mask_h - top), min(MASK_TILE_COLUMNS, b.mask_w - left)};
}

// All of the doubled map that the tile is made of. Synchronises the block before and after.
template <typename Mask>
__device__ __forceinline__ void fill(const Batch& b, const Mask& mask, const Place& place, Tile& tile) {
    const int i = threadIdx.x;
    __syncthreads();
    if (i < place.columns) tile.columns[i] = blend_of(place.left + i, mask.width, b.mask_w);
    if (i >= MASK_TILE_COLUMNS && i - MASK_TILE_COLUMNS < place.rows)
        tile.rows[i - MASK_TILE_COLUMNS] = blend_of(place.top + i - MASK_TILE_COLUMNS, mask.height, b.mask_h);
    __syncthreads();
    const int top = tile.rows[0].low, rows = tile.rows[place.rows - 1].high + 1 - top;
    const int left = tile.columns[0].low, columns = tile.columns[place.columns - 1].high + 1 - left;
    const int rows_on = MASK_THREADS / columns, columns_on = MASK_THREADS % columns;
    int row = i / columns, column = i % columns;
    while (row < rows) {
        for (int plane = 0; plane < Mask::PLANES; plane++)
            tile.planes[plane][row * PLANE_COLUMNS + column] = doubled(mask, plane, top + row, left + column);
        row += rows_on, column += columns_on;
        if (column >= columns) row++, column -= columns;
    }
    __syncthreads();
}

// The soft value of a pixel of the tile: rows are blended first, as on the CPU.
template <typename Mask>
__device__ __forceinline__ float soft_value(const Tile& tile, int row, int column) {
    const Blend down = tile.rows[row], right = tile.columns[column];
    const int low = (down.low - tile.rows[0].low) * PLANE_COLUMNS, high = (down.high - tile.rows[0].low) * PLANE_COLUMNS;
    const int first = right.low - tile.columns[0].low, second = right.high - tile.columns[0].low;
    float value = 1.0f;
    for (int i = 0; i < Mask::PLANES; i++) {
        const float* const plane = tile.planes[i];
        if (down.weight == 0.0f && right.weight == 0.0f) {  // all of the finest levels: nothing to blend
            value *= plane[low + first];
            continue;
        }
        const float near = plane[low + first] * (1.0f - down.weight) + plane[high + first] * down.weight;
        const float far = plane[low + second] * (1.0f - down.weight) + plane[high + second] * down.weight;
        value *= near * (1.0f - right.weight) + far * right.weight;
    }
    return value;
}

__device__ __forceinline__ int level_of(const Counts& counts, int place) {
    int level = 0;
    while (place >= counts.level_first[level + 1]) level++;
    return level;
}

__device__ __forceinline__ LogitMask logit_mask(const Batch& b, int p, int level, int place) {
    const float* const logits = b.logits + ((long long)p * b.rows + place - b.first_place) * b.map_size;
    return {2 * b.level_h[level], 2 * b.level_w[level], logits};
}

__device__ __forceinline__ AxisMask axis_mask(const Batch& b, int p, int level, int place) {
    const int height = 2 * b.level_h[level], width = 2 * b.level_w[level], grid = b.grid[level];
    const int within = b.cell_list[(long long)p * b.cells + place] - b.first_cell[level];
    const float* const maps = b.axis_maps + (long long)p * b.axis_floats + b.axis_offset[level];
    const long long size = (long long)height * width;
    return {height, width, {maps + within % grid * size, maps + (grid + within / grid) * size}};
}

// One tile's part of a warp's measure: lanes are rows, so that a ballot is a word. bits: of the cell, or null.
template <typename Mask>
__device__ __forceinline__ void measure_tile(const Batch& b, const Place& place, const Tile& tile, unsigned* bits, Measure& sum) {
    const int lane = threadIdx.x % 32;
    for (int column = threadIdx.x / 32; column < place.columns; column += MASK_WARPS) {
        const float value = lane < place.rows ? soft_value<Mask>(tile, lane, column) : -1.0f;  // below every threshold
        const bool above = value > b.mask_threshold;
        const unsigned word = __ballot_sync(ALL_LANES, above);
        if (above) sum.total += value;
        const int x = place.left + column;
        if (bits != nullptr && lane == 0) bits[(long long)x * b.words + place.top / MASK_TILE_ROWS] = word;
        if (word == 0) continue;
        sum.area += __popc(word);
        sum.top = min(sum.top, place.top + __ffs((int)word) - 1);
        sum.bottom = max(sum.bottom, place.top + 32 - __clz((int)word));
        sum.left = min(sum.left, x);
        sum.right = max(sum.right, x + 1);
    }
}

// All of one mask, the same on every run: lanes are summed by a tree, then warps in their order. The result is thread 0's.
template <typename Mask>
__device__ __forceinline__ Measure measure_mask(const Batch& b, const Mask& mask, unsigned* bits, Tile& tile) {
    Measure sum = {0, b.mask_h, 0, b.mask_w, 0, 0.0f};
    const int tiles = tiles_across(b) * b.words;
    for (int number = 0; number < tiles; number++) {
        const Place place = place_of(b, number);
        fill(b, mask, place, tile);
        measure_tile<Mask>(b, place, tile, bits, sum);
    }
    for (int step = 16; step > 0; step /= 2) sum.total += __shfl_down_sync(ALL_LANES, sum.total, step);
    if (threadIdx.x % 32 == 0) tile.warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return sum;
    for (int i = 1; i < MASK_WARPS; i++) {
        const Measure& other = tile.warps[i];
        sum.area += other.area;
        sum.total += other.total;
        sum.top = min(sum.top, other.top), sum.bottom = max(sum.bottom, other.bottom);
        sum.left = min(sum.left, other.left), sum.right = max(sum.right, other.right);
    }
    return sum;
}

// Areas and totals of the cells being processed; with bits their boxes and bits too. Grid (R, N), block 256.
extern "C" __global__ void __launch_bounds__(MASK_THREADS) measure_cells(const Batch b, int with_bits) {
    __shared__ Tile tile;
    const int p = blockIdx.y, place = b.first_place + blockIdx.x;
    if ((int)blockIdx.x >= b.rows || place >= b.counts[p].cells) return;
    const long long row = (long long)p * b.rows + blockIdx.x;
    unsigned* const bits = with_bits ? b.bits + row * b.mask_w * b.words : nullptr;
    const int level = level_of(b.counts[p], place);
    const Measure sum = b.decoupled ? measure_mask(b, axis_mask(b, p, level, place), bits, tile)
                                    : measure_mask(b, logit_mask(b, p, level, place), bits, tile);
    if (threadIdx.x != 0) return;
    b.areas[(long long)p * b.cells + place] = sum.area;
    b.totals[(long long)p * b.cells + place] = sum.total;
    if (!with_bits) return;
    int* const box = b.boxes + row * 4;
    const bool any = sum.area > 0;
    box[0] = any ? sum.top : 0, box[1] = sum.bottom, box[2] = any ? sum.left : 0, box[3] = sum.right;
}

template <typename Mask>
__device__ __forceinline__ void write_tile(const Batch& b, const Mask& mask, const Place& place, Tile& tile, float* soft) {
    fill(b, mask, place, tile);
    const int column = threadIdx.x % MASK_TILE_COLUMNS;
    for (int row = threadIdx.x / MASK_TILE_COLUMNS; row < place.rows; row += MASK_THREADS / MASK_TILE_COLUMNS)
        if (column < place.columns)
            soft[(long long)(place.top + row) * b.mask_w + place.left + column] = soft_value<Mask>(tile, row, column);
}

// The soft map of each kept instance of the pass, whose cell must be among those being processed.
// Grid (words * mask_w / 64 rounded up, E, N), block 256.
extern "C" __global__ void __launch_bounds__(MASK_THREADS) soft_maps(const Batch b) {
    __shared__ Tile tile;
    const int e = blockIdx.y, p = blockIdx.z, number = b.first_kept + e;
    if (e >= b.at_once || number >= b.kept_count[p] || (int)blockIdx.x >= tiles_across(b) * b.words) return;
    const int place = b.best_rows[(long long)p * b.max_best + b.kept[(long long)p * b.max_best + number]];
    if (place < b.first_place || place >= min(b.first_place + b.rows, b.counts[p].cells)) return;
    float* const soft = b.soft + ((long long)p * b.at_once + e) * b.mask_h * b.mask_w;
    const int level = level_of(b.counts[p], place);
    const Place at = place_of(b, blockIdx.x);
    if (b.decoupled)
        write_tile(b, axis_mask(b, p, level, place), at, tile, soft);
    else
        write_tile(b, logit_mask(b, p, level, place), at, tile, soft);
}
