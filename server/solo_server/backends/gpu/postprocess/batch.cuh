// One batch of images of one padded size on the device: every kernel's one argument, and the only description of memory.
// batch.py reads these structs and makes ctypes of them: one declaration a line, `type name;` or `type name[number];`.
//
//   scores ─► candidates.cuh ─► (network: mask features) ─► masks.cuh ─► select.cuh ─► nms.cuh ─► masks.cuh ─► encode.cuh
//             candidates, cells                             bits, areas   best 500      kept       soft masks   runs
//
// N images, K cells, C classes, L levels. `p` is an image, `k` a cell (0..K), `i` a place in an image's list of cells.
// An image's list of cells has those with a candidate, each once, rising, so that cells of one level are neighbours. At most
// `rows` of them are processed at a time: those of places `first_place .. first_place + rows`; row = place - first_place.
// The host sets all of Batch. The arrays are not initialised, except where a comment says so.
#pragma once

#define MAX_LEVELS 8

struct ImageSettings {  // settings that may differ between the images of a batch
    float threshold;          // candidates have a category score above this
    int or_equal;             // 1: or equal to it
    float score_threshold;    // instances have at least this score after NMS
    int max_instances;        // at most this many are kept
    int nms;                  // 0 matrix NMS, 1 greedy mask NMS, 2 none
    int original_h;
    int original_w;
    unsigned first_row_tap;   // in `taps`: one for each row of the original image
    unsigned first_column_tap;
};

struct Tap {  // a pixel of the original size is made of three neighbours of the mask along an axis
    int first;
    float weights[3];
};

struct Counts {  // of one image; downloaded once a batch, so that the host knows what to launch
    int candidates;
    int cells;
    int level_first[9];       // where each level's cells begin in the list of cells, and at last their number
    int axis_first[17];       // decoupled: where (level, axis)'s maps begin in the list of axis maps: [2 * level + axis]
};

struct FoundInstance {  // one instance of the results
    int label;
    float score;
    unsigned area;            // pixels at original size
    int left;                 // box of these pixels, ends inclusive; right < left where there are none
    int top;
    int right;
    int bottom;
    unsigned first_run;       // number of its first position of change, among all of the batch
    unsigned runs;            // positions of change
};

struct Summary {  // of one image; results begin with these
    int instances;            // of this pass
    int kept;                 // of all passes
    int best;                 // candidates that entered NMS
    unsigned runs;            // positions of change, of this pass
};

struct Batch {
    // sizes
    int images;               // N
    int classes;              // C
    int cells;                // K
    int levels;               // L
    int channels;             // of mask features
    int mask_h;               // masks at the mask stride of the padded image
    int mask_w;
    int words;                // 32-bit words of one column of a mask: column-major, lowest bit first
    int decoupled;            // 1: a mask is a column's map times a row's
    int rows;                 // R, cells of an image processed at a time
    int first_place;          // which of the list of cells is row 0
    int max_best;             // M, candidates that enter NMS, at most 2048
    int at_once;              // E, instances of an image that are encoded in one pass
    int first_kept;           // which kept instance is the pass's first
    int segments;             // S, pieces of SEGMENT columns of the widest original image
    unsigned run_capacity;    // room in `positions`
    unsigned first_run;       // number of the first position of change in `positions`
    float mask_threshold;
    int gaussian;             // decay kernel of matrix NMS: 1 gaussian, 0 linear
    float nms_iou;            // greedy NMS: masks overlapping a better one by more are dropped
    double sigma;             // of the gaussian
    int grid[8];              // of each level
    int stride[8];
    int first_cell[9];
    int level_h[8];           // of mask features
    int level_w[8];
    int map_size;             // level_h * level_w of the finest level
    int tap_rows;             // decoupled: axis maps processed at a time, T
    int first_axis;           // decoupled: which of an image's list of axis maps is the first of them
    int axis_floats;          // decoupled: floats of all axis maps of an image
    int axis_offset[8];       // decoupled: where a level's axis maps begin; (axis, index) is number axis * grid + index there
    // network
    const float* scores;      // (N, K, C)
    const float* features_0[8];  // a level's mask features (N, channels, level_h, level_w); decoupled: of the x axis
    const float* features_1[8];  // decoupled: of the y axis, which is the same in the light variant
    const float* kernels_0[8];   // (grid * grid, channels); decoupled: x axis, (grid, 9, channels), taps row by row
    const float* kernels_1[8];   // decoupled: y axis
    const float* bias_0[8];      // (grid * grid,); decoupled: (grid,)
    const float* bias_1[8];
    // inputs
    const ImageSettings* settings;  // (N,)
    const unsigned char* enabled_classes;  // (N, C), 1 where instances of a class are requested
    const Tap* taps;          // of all images
    // candidates
    unsigned* cell_counts;    // (N, K) candidates of a cell
    unsigned* cell_offsets;   // (N, K) where they begin
    int* cell_places;         // (N, K) place of a cell in the list of cells; undefined where it has no candidate
    int* cell_list;           // (N, K) the cells, rising
    int* axis_list;           // (N, 2 * sum of grids) indices (0..grid) that occur, by level, axis, rising
    Counts* counts;           // (N,)
    int* candidate_places;    // (N, K * C) place of a candidate's cell; candidates are in order of cell, then class
    int* candidate_labels;    // (N, K * C)
    float* candidate_scores;  // (N, K * C)
    // masks
    float* logits;            // (N, R, map_size); not decoupled
    float* tap_logits;        // (N, T, 9, map_size); decoupled
    float* axis_maps;         // (N, axis_floats) sigmoids at twice the features' size; decoupled
    int* areas;               // (N, K) by place: pixels above the mask threshold
    float* totals;            // (N, K) by place: sum of the values of these pixels
    int* boxes;               // (N, R, 4) first row, last row + 1, first column, last column + 1 of these; zeros where none
    unsigned* bits;           // (N, R, mask_w, words)
    // best
    int* best_count;          // (N,)
    int* best_rows;           // (N, M)
    int* best_labels;         // (N, M)
    int* best_areas;          // (N, M)
    float* best_scores;       // (N, M) category score times maskness, best first
    int* best_candidates;     // (N, M) which candidate it was
    // NMS
    float* ious;              // (N, M, M) of each with every later one of its label, else 0; [better][worse]
    unsigned* overlaps;       // (N, M, M / 32 rounded up) greedy: bit j of i: j is later, of i's label and overlaps too much
    float* relief;            // (N, M) matrix: highest IoU with a better one
    float* factors;           // (N, M) undefined where an image asks for no NMS
    int* kept_count;          // (N,)
    int* kept;                // (N, M) which of the best, best first
    float* kept_scores;       // (N, M)
    // encoding of the instances first_kept .. first_kept + at_once
    float* soft;              // (N, E, mask_h, mask_w)
    unsigned* segment_runs;   // (N, E, S) positions of change in a segment; then where they begin among the batch's
    Summary* summaries;       // (N,)
    FoundInstance* found;             // (N, E)
    unsigned* positions;      // (run_capacity,) where a mask changes in column-major order, instance by instance
};
