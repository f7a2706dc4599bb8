// CUDA's language for g++: the kernels' own sources run on the CPU, so that tests can compare them and sanitizers watch them.
//
//   emulator.py ─► generated .cpp: host_cuda.h, kernels.cu, table of kernels ─► g++ ─► emulated_launch
//
// A block is a set of fibers, one a thread, which change hands only where CUDA's threads wait for each other; blocks run one
// after another. Wrong waiting ends the launch with a message: a thread that ends or waits elsewhere while others are in
// __syncthreads, a warp operation that not all 32 lanes reach. Shared memory is filled with garbage before each block.
// Data races cannot be seen, but threads and blocks may run backwards: what then differs, raced.
#pragma once

#include <math.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
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

struct dim3 {
    unsigned x, y, z;
};

extern "C" {  // where the linker puts all static shared memory
extern unsigned __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));
void emulated_switch(void** save, void* next);
}

#ifndef __x86_64__
#error "the emulator's fibers are written for x86-64"
#endif
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch,@function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, .-emulated_switch
)");

namespace emulated {

constexpr size_t STACK = 128 << 10, GUARD = 4096;
constexpr unsigned MOST_THREADS = 1024, MOST_SHARED = 48 << 10, GARBAGE = 0xFFA5A5A5u;  // NaN as float, negative as int

enum State { READY, IN_WARP, IN_BLOCK, ENDED };

struct Place {  // where a thread waits
    const char* what = "";
    const char* file = "";
    int line = 0;
    bool operator==(const Place& other) const { return line == other.line && !strcmp(file, other.file) && !strcmp(what, other.what); }
};

struct Fiber {
    dim3 thread;
    State state;
    Place place;
    unsigned number;
    void* pointer;       // of the stack, while another fiber runs
    char* stack;
    void* fake = nullptr;
    uint64_t given;      // to a warp operation
};

using Call = void (*)(const void* batch, const int* ints);

static Fiber fibers[MOST_THREADS];
static Fiber* current;
static uint64_t seen[MOST_THREADS / 32][32];  // what the lanes of each warp gave to its last operation
static dim3 block_at, block_size, grid_size;
static unsigned char* dynamic_shared;
static void *scheduler, *scheduler_fake;
static const void* scheduler_stack;
static size_t scheduler_stack_size;
static Call call;
static const void* batch;
static const int* ints;

// --- changing hands ---

static inline void arrive() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(current->fake, &scheduler_stack, &scheduler_stack_size);
#endif
}

static inline void leave(State state) {
    current->state = state;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(state == ENDED ? nullptr : &current->fake, scheduler_stack, scheduler_stack_size);
#endif
    emulated_switch(&current->pointer, scheduler);
    arrive();
}

static void run_thread() {
    arrive();
    call(batch, ints);
    leave(ENDED);
    __builtin_trap();
}

static inline void resume(Fiber& fiber) {
    current = &fiber;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake, fiber.stack, STACK);
#endif
    emulated_switch(&scheduler, fiber.pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

static void prepare(unsigned number) {
    Fiber& fiber = fibers[number];
    if (!fiber.stack) {
        void* found = mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED || mprotect(found, GUARD, PROT_NONE)) __builtin_trap();
        fiber.stack = static_cast<char*>(found) + GUARD;
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack, STACK);  // a launch that failed left its frames
#endif
    fiber.number = number;
    fiber.thread = {number % block_size.x, number / block_size.x % block_size.y, number / block_size.x / block_size.y};
    fiber.state = READY;
    fiber.fake = nullptr;
    void** top = reinterpret_cast<void**>(fiber.stack + STACK) - 1;  // aligned as if run_thread had been called
    *--top = reinterpret_cast<void*>(run_thread);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber.pointer = top;
}

// --- waiting ---

static std::string describe(const Fiber& fiber) {
    std::string text = "thread " + std::to_string(fiber.number);
    if (fiber.state == ENDED) return text + " ended";
    return text + " waits in " + fiber.place.what + " at " + fiber.place.file + ":" + std::to_string(fiber.place.line);
}

// Lets go the `count` fibers from `first` on if all wait in the same place; complains if all wait, but not together.
static bool release(unsigned first, unsigned count, State state, std::string& problem) {
    for (unsigned i = first; i < first + count; i++)
        if (fibers[i].state != state) return false;
    for (unsigned i = first + 1; i < first + count; i++)
        if (!(fibers[i].place == fibers[first].place)) {
            problem = describe(fibers[first]) + ", but " + describe(fibers[i]);
            return false;
        }
    for (unsigned i = first; i < first + count; i++) {
        if (state == IN_WARP) seen[i / 32][i % 32] = fibers[i].given;
        fibers[i].state = READY;
    }
    return true;
}

static void run_warp(unsigned first, bool backwards, std::string& problem) {
    do {
        for (unsigned i = 0; i < 32; i++) {
            Fiber& fiber = fibers[first + (backwards ? 31 - i : i)];
            if (fiber.state == READY) resume(fiber);
        }
    } while (release(first, 32, IN_WARP, problem));
}

static std::string stuck(unsigned threads) {
    const Fiber* waiting = nullptr;
    for (unsigned i = 0; i < threads; i++)
        if (fibers[i].state != ENDED && (!waiting || (fibers[i].state == IN_WARP && waiting->state == IN_BLOCK))) waiting = &fibers[i];
    if (!waiting) return "";
    bool in_warp = waiting->state == IN_WARP;
    unsigned first = in_warp ? waiting->number / 32 * 32 : 0, last = in_warp ? first + 32 : threads;
    for (unsigned i = first; i < last; i++)
        if (fibers[i].state != waiting->state) return describe(*waiting) + ", but " + describe(fibers[i]);
    return describe(*waiting);
}

static std::string run_block(bool backwards) {
    unsigned threads = block_size.x * block_size.y * block_size.z;
    std::string problem;
    for (unsigned i = 0; i < threads; i++) prepare(i);
    do {
        for (unsigned i = 0; i < threads && problem.empty(); i += 32)
            run_warp(backwards ? threads - 32 - i : i, backwards, problem);
    } while (problem.empty() && release(0, threads, IN_BLOCK, problem));
    return problem.empty() ? stuck(threads) : problem;
}

__attribute__((no_sanitize("address"))) static void fill_with_garbage(unsigned shared_bytes) {
    for (volatile unsigned* at = __start_emulated_shared; at < __stop_emulated_shared; at++) *at = GARBAGE;
    for (unsigned i = 0; i < shared_bytes; i++) dynamic_shared[i] = static_cast<unsigned char>(GARBAGE >> 8 * (i % 4));
}

static std::string check_launch(unsigned shared_bytes) {
    unsigned long threads = 1ul * block_size.x * block_size.y * block_size.z;
    if (threads == 0 || threads > MOST_THREADS || threads % 32) return "blocks have 32 to 1024 threads, whole warps";
    if (!grid_size.x || !grid_size.y || !grid_size.z) return "the grid is empty";
    if (grid_size.x > 0x7FFFFFFF || grid_size.y > 65535 || grid_size.z > 65535) return "the grid is too large";
    return shared_bytes > MOST_SHARED ? "more than 48 KiB of shared memory" : "";
}

static std::string run_grid(unsigned shared_bytes, bool backwards) {
    std::string problem = check_launch(shared_bytes);
    std::vector<unsigned char> shared(shared_bytes);
    dynamic_shared = shared.data();
    unsigned long blocks = 1ul * grid_size.x * grid_size.y * grid_size.z;
    for (unsigned long i = 0; i < blocks && problem.empty(); i++) {
        unsigned long at = backwards ? blocks - 1 - i : i;
        block_at = {unsigned(at % grid_size.x), unsigned(at / grid_size.x % grid_size.y), unsigned(at / grid_size.x / grid_size.y)};
        fill_with_garbage(shared_bytes);
        problem = run_block(backwards);
        if (!problem.empty())
            problem = "block " + std::to_string(block_at.x) + " " + std::to_string(block_at.y) + " " + std::to_string(block_at.z) +
                      ": " + problem;
    }
    return problem;
}

static inline void wait_for_block(const char* file, int line) {
    current->place = {"__syncthreads", file, line};
    leave(IN_BLOCK);
}

// All lanes give a value; returns all of theirs. Only full masks: kernels have no other.
template <typename T>
static inline const uint64_t* exchange(const Place& place, unsigned mask, T value) {
    static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
    if (mask != 0xFFFFFFFFu) __builtin_trap();
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
static inline T emulated_atomic(T* at, Change change) {
    static_assert(std::is_integral<T>::value, "sums of floats depend on their order");
    T old = *at;
    *at = change(old);
    return old;
}

template <typename T>
using Same = typename std::common_type<T>::type;  // so that only the address says what T is

template <typename T>
static inline T atomicAdd(T* at, Same<T> value) { return emulated_atomic(at, [&](T old) { return T(old + value); }); }
template <typename T>
static inline T atomicMin(T* at, Same<T> value) { return emulated_atomic(at, [&](T old) { return old < value ? old : value; }); }
template <typename T>
static inline T atomicMax(T* at, Same<T> value) { return emulated_atomic(at, [&](T old) { return old > value ? old : value; }); }
template <typename T>
static inline T atomicOr(T* at, Same<T> value) { return emulated_atomic(at, [&](T old) { return T(old | value); }); }
template <typename T>
static inline T atomicAnd(T* at, Same<T> value) { return emulated_atomic(at, [&](T old) { return T(old & value); }); }

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
