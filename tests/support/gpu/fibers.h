// The emulator's machinery: threads of a block as fibers, and what runs a grid of blocks. host_cuda.h stands on it.
//
//   run_grid ─► run_block ─► run_warp ─► resume ─► a thread, until it waits (`leave`) or ends
//
// Fibers run in turn. All 32 lanes of a warp that wait in the same place go on together, likewise all threads of a block; if
// nobody can go on though not all have ended, the launch ends with a description of who waits where.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

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
    static bool same(const char* one, const char* other) { return one == other || !strcmp(one, other); }
    bool operator==(const Place& other) const {
        return line == other.line && same(file, other.file) && same(what, other.what);
    }
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
static const char* fault;                      // what a thread complains of, which has ended then
static uint64_t seen[MOST_THREADS / 32][32];  // what the lanes of each warp gave to its last operation
static dim3 block_at, block_size, grid_size;
static unsigned char* dynamic_shared;
static size_t dynamic_bytes;
static long block_number;                             // of the launch's blocks
static unsigned block_waits, warp_waits[MOST_THREADS / 32];  // how often all have waited for each other so far
static bool in_thread;                                // a fiber runs, not the scheduler
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
    in_thread = true;
    emulated_switch(&scheduler, fiber.pointer);
    in_thread = false;
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
    if (state == IN_BLOCK) block_waits++;
    if (state == IN_WARP && !strcmp(fibers[first].place.what, "__syncwarp")) warp_waits[first / 32]++;
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
        if (fibers[i].state != ENDED && (!waiting || (fibers[i].state == IN_WARP && waiting->state == IN_BLOCK)))
            waiting = &fibers[i];
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
    return fault ? fault : problem.empty() ? stuck(threads) : problem;
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
    dynamic_bytes = shared_bytes;
    fault = nullptr;
    unsigned long blocks = 1ul * grid_size.x * grid_size.y * grid_size.z;
    for (unsigned long i = 0; i < blocks && problem.empty(); i++) {
        unsigned long at = backwards ? blocks - 1 - i : i;
        unsigned x = at % grid_size.x, y = at / grid_size.x % grid_size.y, z = at / grid_size.x / grid_size.y;
        block_at = {x, y, z};
        block_number = long(at);
        fill_with_garbage(shared_bytes);
        problem = run_block(backwards);
        std::string block = "block " + std::to_string(x) + " " + std::to_string(y) + " " + std::to_string(z) + ": ";
        if (!problem.empty()) problem = block + problem;
    }
    return problem;
}

}  // namespace emulated
