// All kernels of the GPU path, one translation unit: compiled by NVRTC when the server starts, and by g++ in tests/gpu.
#include "batch.cuh"
#include "common.cuh"

#if __has_include("candidates.cuh")
#include "candidates.cuh"
#endif
#if __has_include("masks.cuh")
#include "masks.cuh"
#endif
#if __has_include("select.cuh")
#include "select.cuh"
#endif
#if __has_include("nms.cuh")
#include "nms.cuh"
#endif
#if __has_include("encode.cuh")
#include "encode.cuh"
#endif
