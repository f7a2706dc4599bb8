// All kernels of the GPU path, one translation unit: compiled by NVRTC when the server starts, and by g++ for the tests (tests/support/gpu).
#include "batch.cuh"
#include "common.cuh"

#include "candidates.cuh"
#include "masks.cuh"
#include "select.cuh"
#include "nms.cuh"
#include "encode.cuh"
