// Finds data races: what g++'s -fsanitize=thread calls at each access is here a record of who touched which word, and since when
// nobody has waited. In place of ThreadSanitizer's own library, which knows neither fibers nor CUDA's rules:
//
//   threads of a block are ordered by __syncthreads; lanes of a warp by __syncwarp too, but not by shuffles and ballots, which
//   are no memory barriers; blocks of one launch by nothing. Two accesses without order race, unless both read or both are atomic.
//
// The first race becomes the launch's fault. Stacks and the emulator's own variables are left out.
#pragma once

#include <link.h>

#include <cstdio>
#include <unordered_map>

#include "fibers.h"

#define UNWATCHED __attribute__((no_sanitize("thread")))

namespace races {

struct Access {
    long block = -1;  // -1: none yet
    unsigned thread = 0, block_waits = 0, warp_waits = 0;
};

struct Word {
    Access written, reads[32];  // the last of each warp of the block that read last
    bool atomic = false;        // written so
    bool shared_reads[32] = {};  // by several lanes, since the warp has waited
    bool read_by_blocks = false;
    long read_block = -1;
};

struct Range {
    uintptr_t first, end;
    bool holds(uintptr_t at) const { return first <= at && at < end; }
};

static std::unordered_map<uintptr_t, Word> words;  // of one launch
static Range own[16];                              // this library's variables
static int owns;
static bool busy;  // this file's own accesses are watched as well
static char told[400];

UNWATCHED static int find_own(dl_phdr_info* library, size_t, void* inside) {
    owns = 0;
    bool found = false;
    for (int i = 0; i < library->dlpi_phnum && owns < 16; i++) {
        const auto& part = library->dlpi_phdr[i];
        if (part.p_type != PT_LOAD) continue;
        own[owns++] = {library->dlpi_addr + part.p_vaddr, library->dlpi_addr + part.p_vaddr + part.p_memsz};
        found |= own[owns - 1].holds(uintptr_t(inside));
    }
    return found;
}

UNWATCHED static bool is_shared(uintptr_t at) {
    uintptr_t dynamic = uintptr_t(emulated::dynamic_shared);
    return Range{uintptr_t(__start_emulated_shared), uintptr_t(__stop_emulated_shared)}.holds(at) ||
           Range{dynamic, dynamic + emulated::dynamic_bytes}.holds(at);
}

UNWATCHED static bool is_private(uintptr_t at) {
    for (int i = 0; i < owns; i++)
        if (own[i].holds(at)) return true;
    uintptr_t stack = uintptr_t(emulated::current->stack);
    return Range{stack, stack + emulated::STACK}.holds(at);
}

UNWATCHED static bool is_ordered(const Access& before, const Access& now, bool shared) {
    if (before.block != now.block) return before.block < 0 || shared;
    if (before.thread == now.thread || before.block_waits != now.block_waits) return true;
    return before.thread / 32 == now.thread / 32 && before.warp_waits != now.warp_waits;
}

UNWATCHED static void complain(const char* now, const char* before, unsigned other, bool shared) {
    const emulated::Fiber& fiber = *emulated::current;
    if (emulated::fault) return;
    const emulated::Place& place = fiber.place;
    snprintf(told, sizeof told,
             "a race on %s memory: thread %u %s what thread %u has %s, and none has waited; %s at %s:%d was before",
             shared ? "shared" : "global", fiber.number, now, other, before, place.what, place.file, place.line);
    emulated::fault = told;
}

UNWATCHED static void check_reads(Word& word, const Access& now, bool shared) {
    if (!shared && (word.read_by_blocks || (word.read_block >= 0 && word.read_block != now.block)))
        complain("writes", "read in another block", word.reads[0].thread, shared);
    for (unsigned warp = 0; warp < 32; warp++) {
        Access read = word.reads[warp];
        if (read.thread == now.thread && word.shared_reads[warp]) read.thread ^= 1;  // some other lane of its warp
        if (read.block == now.block && !is_ordered(read, now, shared)) complain("writes", "read", read.thread, shared);
    }
}

UNWATCHED static void note_read(Word& word, const Access& now) {
    word.read_by_blocks |= word.read_block >= 0 && word.read_block != now.block;
    word.read_block = now.block;
    Access& last = word.reads[now.thread / 32];
    bool again = last.block == now.block && last.block_waits == now.block_waits && last.warp_waits == now.warp_waits;
    word.shared_reads[now.thread / 32] = again && (word.shared_reads[now.thread / 32] || last.thread != now.thread);
    last = now;
}

UNWATCHED static void note(uintptr_t at, bool writes, bool atomic) {
    const unsigned thread = emulated::current->number;
    const Access now = {emulated::block_number, thread, emulated::block_waits, emulated::warp_waits[thread / 32]};
    const bool shared = is_shared(at);
    if (!shared && is_private(at)) return;
    Word& word = words[at / 4];
    if (!(atomic && word.atomic) && !is_ordered(word.written, now, shared))
        complain(writes ? "writes" : "reads", "written", word.written.thread, shared);
    if (!writes) return note_read(word, now);
    check_reads(word, now, shared);
    word.written = now;
    word.atomic = atomic;
}

UNWATCHED static void touch(const volatile void* at, size_t size, bool writes, bool atomic = false) {
    if (busy || !emulated::in_thread) return;
    busy = true;
    if (owns == 0) dl_iterate_phdr(find_own, &owns);
    for (uintptr_t word = uintptr_t(at) / 4 * 4; word < uintptr_t(at) + size; word += 4) note(word, writes, atomic);
    busy = false;
}

}  // namespace races

extern "C" {
UNWATCHED void __tsan_init() {}
UNWATCHED void __tsan_func_entry(void*) {}
UNWATCHED void __tsan_func_exit() {}
UNWATCHED void __tsan_read_range(void* at, size_t size) { races::touch(at, size, false); }
UNWATCHED void __tsan_write_range(void* at, size_t size) { races::touch(at, size, true); }
UNWATCHED unsigned char __tsan_atomic8_load(const volatile unsigned char* at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
#define ACCESSES_OF(size)                                                                  \
    UNWATCHED void __tsan_read##size(void* at) { races::touch(at, size, false); }            \
    UNWATCHED void __tsan_write##size(void* at) { races::touch(at, size, true); }            \
    UNWATCHED void __tsan_unaligned_read##size(void* at) { races::touch(at, size, false); }  \
    UNWATCHED void __tsan_unaligned_write##size(void* at) { races::touch(at, size, true); }
ACCESSES_OF(1)
ACCESSES_OF(2)
ACCESSES_OF(4)
ACCESSES_OF(8)
ACCESSES_OF(16)
}
