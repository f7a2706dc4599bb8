// CUDA's language for g++: the kernels' own sources run on the CPU, so that tests can compare them and sanitizers watch them.
//
//   emulator.py ─► generated .cpp: host_cuda.h, kernels.cu, table of kernels ─► g++ ─► emulated_launch
//
// A block is a set of fibers, one a thread, which change hands only where CUDA's threads wait for each other; blocks run one
// after another. Wrong waiting ends the launch with a message: a thread that ends or waits elsewhere while others are in
// __syncthreads, a warp operation that not all 32 lanes reach. Shared memory is filled with garbage before each block.
// Threads and blocks may run backwards: what then differs, raced. Compiled with WATCH_RACES, races.h looks at each access.
#pragma once

#include <math.h>

#include <cstdio>
#include <mutex>
#include <type_traits>

#include "fibers.h"
#ifdef WATCH_RACES
#include "races.h"
#else
#define UNWATCHED
#endif

#define __global__
#define __device__ static inline
#define __host__
#define __forceinline__
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
#define __shared__ static __attribute__((section("emulated_shared")))
#define SHARED_DYNAMIC(type, name) type* name = reinterpret_cast<type*>(emulated::dynamic_shared)

namespace emulated {

static inline void wait_for_block(const char* file, int line) {
    current->place = {"__syncthreads", file, line};
    leave(IN_BLOCK);
}

// All lanes give a value; returns all of theirs. Only full masks: kernels have no other.
template <typename T>
static inline const uint64_t* exchange(const Place& place, unsigned mask, T value) {
    static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
    if (mask != 0xFFFFFFFFu) {
        fault = "a warp operation without all lanes in its mask";
        leave(ENDED);
    }
    current->place = place;
    current->given = 0;
    memcpy(&current->given, &value, sizeof value);
    leave(IN_WARP);
    return seen[current->number / 32];
}

static inline int lane() { return current->number % 32; }

template <typename T>
static inline T value_of(uint64_t word) {
    T value;
    memcpy(&value, &word, sizeof value);
    return value;
}

template <typename T>
static inline T shuffle(const Place& place, unsigned mask, T value, int from) {
    return value_of<T>(exchange(place, mask, value)[from & 31]);
}

template <typename T>
static inline T shuffle_up(const Place& place, unsigned mask, T value, unsigned by) {
    return shuffle(place, mask, value, lane() < int(by) ? lane() : lane() - int(by));
}

template <typename T>
static inline T shuffle_down(const Place& place, unsigned mask, T value, unsigned by) {
    return shuffle(place, mask, value, lane() + int(by) > 31 ? lane() : lane() + int(by));
}

template <typename T>
static inline T shuffle_xor(const Place& place, unsigned mask, T value, int bits) {
    return shuffle(place, mask, value, lane() ^ bits);
}

static inline unsigned ballot(const Place& place, unsigned mask, int vote) {
    const uint64_t* votes = exchange(place, mask, vote);
    unsigned found = 0;
    for (int i = 0; i < 32; i++) found |= unsigned(value_of<int>(votes[i]) != 0) << i;
    return found;
}

}  // namespace emulated

#define threadIdx (emulated::current->thread)
#define blockIdx emulated::block_at
#define blockDim emulated::block_size
#define gridDim emulated::grid_size
#define EMULATED_PLACE(what) (emulated::Place{what, __FILE__, __LINE__})
#define __syncthreads() emulated::wait_for_block(__FILE__, __LINE__)
#define __syncwarp() (void)emulated::exchange(EMULATED_PLACE("__syncwarp"), 0xFFFFFFFFu, 0)
#define __shfl_sync(...) emulated::shuffle(EMULATED_PLACE("__shfl_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) emulated::shuffle_up(EMULATED_PLACE("__shfl_up_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) emulated::shuffle_down(EMULATED_PLACE("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) emulated::shuffle_xor(EMULATED_PLACE("__shfl_xor_sync"), __VA_ARGS__)
#define __ballot_sync(...) emulated::ballot(EMULATED_PLACE("__ballot_sync"), __VA_ARGS__)
#define __any_sync(...) int(emulated::ballot(EMULATED_PLACE("__any_sync"), __VA_ARGS__) != 0)
#define __all_sync(...) int(emulated::ballot(EMULATED_PLACE("__all_sync"), __VA_ARGS__) == 0xFFFFFFFFu)

static inline int __popc(unsigned word) { return __builtin_popcount(word); }
static inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }
static inline int __ffs(int word) { return __builtin_ffs(word); }
static inline int __ffsll(long long word) { return __builtin_ffsll(word); }
static inline int __clz(int word) { return word ? __builtin_clz(word) : 32; }
static inline int __clzll(long long word) { return word ? __builtin_clzll(word) : 64; }
static inline unsigned __float_as_uint(float value) {
    unsigned word;
    memcpy(&word, &value, sizeof word);
    return word;
}
static inline float __uint_as_float(unsigned word) { return emulated::value_of<float>(word); }
static inline int __float_as_int(float value) { return int(__float_as_uint(value)); }
static inline float __int_as_float(int word) { return __uint_as_float(unsigned(word)); }

// Threads change hands only where they wait, so that plain code is atomic.
template <typename T, typename Change>
UNWATCHED static T emulated_atomic(T* at, Change change) {
    static_assert(std::is_integral<T>::value, "sums of floats depend on their order");
#ifdef WATCH_RACES
    races::touch(at, sizeof(T), true, true);
#endif
    T old = *at;
    *at = change(old);
    return old;
}

template <typename T>
using Same = typename std::common_type<T>::type;  // so that only the address says what T is

template <typename T>
static inline T atomicAdd(T* at, Same<T> value) {
    return emulated_atomic(at, [&](T old) { return T(old + value); });
}
template <typename T>
static inline T atomicMin(T* at, Same<T> value) {
    return emulated_atomic(at, [&](T old) { return old < value ? old : value; });
}
template <typename T>
static inline T atomicMax(T* at, Same<T> value) {
    return emulated_atomic(at, [&](T old) { return old > value ? old : value; });
}
template <typename T>
static inline T atomicOr(T* at, Same<T> value) {
    return emulated_atomic(at, [&](T old) { return T(old | value); });
}
template <typename T>
static inline T atomicAnd(T* at, Same<T> value) {
    return emulated_atomic(at, [&](T old) { return T(old & value); });
}

template <typename A, typename B>
static inline typename std::common_type<A, B>::type min(A a, B b) {
    typename std::common_type<A, B>::type left = a, right = b;
    return right < left ? right : left;
}
template <typename A, typename B>
static inline typename std::common_type<A, B>::type max(A a, B b) {
    typename std::common_type<A, B>::type left = a, right = b;
    return left < right ? right : left;
}
