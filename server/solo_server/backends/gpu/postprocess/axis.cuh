// Products of mask kernels and mask features, at the features' own size (backends/cpu/masks.py says why that is enough).
//
//   SOLO:       features ─► project ─► logits
//   decoupled:  features ─► project_taps ─► tap_logits ─► axis_maps ─► axis_maps
//
// Only the cells being processed have logits; only columns and rows that occur have axis maps.
#pragma once

#include "batch.cuh"

#define PRODUCT_THREADS 256
#define PRODUCT_TILE 64    // rows and pixels of a block; 4 by 4 of them a thread
#define PRODUCT_STEP 16    // channels in shared memory at a time
#define PRODUCT_PITCH 68   // of weights, so that columns of 16 spread over the banks and four neighbours stay aligned
#define KEEP 0.75f         // bilinear doubling: three quarters of the nearer pixel, one of the farther
#define TAKE 0.25f
#define AXIS_TAPS 9

struct ProductRows {  // what the rows of a block's tile are; null where there is none
    const float* weights[PRODUCT_TILE];
    float* out[PRODUCT_TILE];
    float bias[PRODUCT_TILE];
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The farther of the two pixels that pixel `at` of a doubled line is made of; the nearer is `at / 2`.
__device__ __forceinline__ int farther(int at, int length) {
    return at % 2 == 0 ? max(at / 2 - 1, 0) : min(at / 2 + 1, length - 1);
}

// One step of channels: weights transposed, features as they are, zeros beyond every edge. Both are read along their rows.
__device__ __forceinline__ void load_step(const ProductRows& rows, const float* features, int channels, int pixels, int first,
                                 float weights[][PRODUCT_PITCH], float values[][PRODUCT_TILE]) {
    const int k = threadIdx.x % PRODUCT_STEP, x = threadIdx.x % PRODUCT_TILE;
    const int pixel = blockIdx.x * PRODUCT_TILE + x;
    for (int row = threadIdx.x / PRODUCT_STEP; row < PRODUCT_TILE; row += PRODUCT_THREADS / PRODUCT_STEP) {
        const float* const weight = rows.weights[row];
        weights[k][row] = weight != nullptr && first + k < channels ? weight[first + k] : 0.0f;
    }
    for (int i = threadIdx.x / PRODUCT_TILE; i < PRODUCT_STEP; i += PRODUCT_THREADS / PRODUCT_TILE) {
        const int channel = first + i;
        values[i][x] = channel < channels && pixel < pixels ? features[(long long)channel * pixels + pixel] : 0.0f;
    }
}

// The block's tile of weights times features plus bias; features: (channels, pixels); the block's pixels begin at 64 blockIdx.x.
__device__ __forceinline__ void multiply(const ProductRows& rows, const float* features, int channels, int pixels) {
    __shared__ __align__(16) float weights[PRODUCT_STEP][PRODUCT_PITCH];
    __shared__ __align__(16) float values[PRODUCT_STEP][PRODUCT_TILE];
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    for (int first = 0; first < channels; first += PRODUCT_STEP) {
        load_step(rows, features, channels, pixels, first, weights, values);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < PRODUCT_STEP; k++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(weights[k][row + i], values[k][column + j], sums[i][j]);
        __syncthreads();
    }
    const int pixel = blockIdx.x * PRODUCT_TILE + column;
    for (int i = 0; i < 4; i++) {
        float* const out = rows.out[row + i];
        for (int j = 0; j < 4; j++)
            if (out != nullptr && pixel + j < pixels) out[pixel + j] = sums[i][j] + rows.bias[row + i];
    }
}

// Logits of the cells being processed of one level. Grid (h * w / 64, most such cells of an image / 64, N), rounded up; block 256.
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) project(const Batch b, int level) {
    __shared__ ProductRows rows;
    const int p = blockIdx.z, pixels = b.level_h[level] * b.level_w[level];
    const int first = max(b.counts[p].level_first[level], b.first_place) + blockIdx.y * PRODUCT_TILE;
    const int last = min(b.counts[p].level_first[level + 1], b.first_place + b.rows);
    if (first >= last || (int)blockIdx.x * PRODUCT_TILE >= pixels) return;
    if (threadIdx.x < PRODUCT_TILE) {
        const int place = first + threadIdx.x;
        const bool there = place < last;
        const int within = there ? b.cell_list[(long long)p * b.cells + place] - b.first_cell[level] : 0;
        const long long row = (long long)p * b.rows + place - b.first_place;
        rows.weights[threadIdx.x] = there ? b.kernels_0[level] + (long long)within * b.channels : nullptr;
        rows.out[threadIdx.x] = there ? b.logits + row * b.map_size : nullptr;
        rows.bias[threadIdx.x] = b.bias_0[level][within];
    }
    __syncthreads();
    multiply(rows, b.features_0[level] + (long long)p * b.channels * pixels, b.channels, pixels);
}

struct AxisMaps {  // those being processed of one level and axis: places `first .. last` of an image's list of axis maps
    int first;
    int last;
};

__device__ __forceinline__ AxisMaps current_axis_maps(const Batch& b, int p, int level, int axis) {
    const int* const begins = b.counts[p].axis_first + 2 * level + axis;
    return {max(begins[0], b.first_axis), min(begins[1], b.first_axis + b.tap_rows)};
}

// Which column (axis 0) or row (axis 1) of its level's grid the axis map at a place of the list belongs to.
__device__ __forceinline__ int axis_index(const Batch& b, int p, int place) {
    int length = 0;
    for (int level = 0; level < b.levels; level++) length += 2 * b.grid[level];
    return b.axis_list[(long long)p * length + place];
}

// The nine taps' products of the axis maps being processed of one level and axis, without bias.
// Grid (h * w / 64, 9 * most such maps of an image / 64, N), rounded up; block 256.
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) project_taps(const Batch b, int level, int axis) {
    __shared__ ProductRows rows;
    const int p = blockIdx.z, pixels = b.level_h[level] * b.level_w[level];
    const AxisMaps maps = current_axis_maps(b, p, level, axis);
    const int first = blockIdx.y * PRODUCT_TILE, last = AXIS_TAPS * (maps.last - maps.first);
    if (first >= last || (int)blockIdx.x * PRODUCT_TILE >= pixels) return;
    const float* const kernels = axis == 0 ? b.kernels_0[level] : b.kernels_1[level];
    const float* const features = axis == 0 ? b.features_0[level] : b.features_1[level];
    if (threadIdx.x < PRODUCT_TILE) {
        const int place = maps.first + (first + threadIdx.x) / AXIS_TAPS, tap = (first + threadIdx.x) % AXIS_TAPS;
        const bool there = place < maps.last;
        const long long kernel = there ? (long long)axis_index(b, p, place) * AXIS_TAPS + tap : 0;
        const long long row = ((long long)p * b.tap_rows + place - b.first_axis) * AXIS_TAPS + tap;
        rows.weights[threadIdx.x] = there ? kernels + kernel * b.channels : nullptr;
        rows.out[threadIdx.x] = there ? b.tap_logits + row * b.map_size : nullptr;
        rows.bias[threadIdx.x] = 0.0f;
    }
    __syncthreads();
    multiply(rows, features + (long long)p * b.channels * pixels, b.channels, pixels);
}

// Pixel x of a line that is the sum of the three taps of a kernel row, each doubled and shifted by -1, 0, 1 with zeros coming in.
__device__ __forceinline__ float across(const float* taps, int map_size, int width, int x) {
    float sum = 0.0f;
    for (int dx = 0; dx < 3; dx++) {
        const int at = x + dx - 1;
        if (at < 0 || at >= 2 * width) continue;
        const float* const line = taps + (long long)dx * map_size;
        sum += KEEP * line[at / 2] + TAKE * line[farther(at, width)];
    }
    return sum;
}

// The axis maps being processed of one level and axis: a 3x3 convolution of the doubled features, from the products of its nine
// taps; then a sigmoid. Grid (4 * h * w / 256 rounded up, most such maps of an image, N), block 256.
extern "C" __global__ void __launch_bounds__(256) axis_maps(const Batch b, int level, int axis) {
    const int p = blockIdx.z, height = b.level_h[level], width = b.level_w[level];
    const AxisMaps maps = current_axis_maps(b, p, level, axis);
    const int place = maps.first + blockIdx.y, pixel = blockIdx.x * 256 + threadIdx.x;
    if (place >= maps.last || pixel >= 4 * height * width) return;
    const int index = axis_index(b, p, place), y = pixel / (2 * width), x = pixel % (2 * width);
    const float* const taps = b.tap_logits + ((long long)p * b.tap_rows + place - b.first_axis) * AXIS_TAPS * b.map_size;
    float sum = axis == 0 ? b.bias_0[level][index] : b.bias_1[level][index];
    for (int dy = 0; dy < 3; dy++) {
        const int at = y + dy - 1;
        if (at < 0 || at >= 2 * height) continue;
        const float* const kernel_row = taps + 3LL * dy * b.map_size;
        const float near = across(kernel_row + at / 2 * width, b.map_size, width, x);
        const float far = across(kernel_row + farther(at, height) * width, b.map_size, width, x);
        sum += KEEP * near + TAKE * far;
    }
    const long long number = (long long)axis * b.grid[level] + index;
    float* const maps_of_level = b.axis_maps + (long long)p * b.axis_floats + b.axis_offset[level];
    maps_of_level[number * 4 * height * width + pixel] = sigmoid(sum);
}
