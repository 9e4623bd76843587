// Stands for actors/kernels/copy_async.cuh: nothing is copied before a thread has to wait for it, and all that a copy
// is to overwrite is overwritten with rubbish at once.

#pragma once

#include <deque>
#include <map>

namespace emulator {

struct Copy {
    void *shared;
    const void *global;
};
struct Copies {
    std::vector<Copy> open;
    std::deque<std::vector<Copy>> groups;
};
// By fiber: one that ends has waited for its copies, or has no use for them.
static std::map<Fiber *, Copies> copies;

static inline void wait_for_copies(size_t pending) {
    auto &groups = copies[current].groups;
    for (; groups.size() > pending; groups.pop_front())
        for (Copy copy : groups.front()) memcpy(copy.shared, copy.global, 16);
}

}  // namespace emulator

static inline void copy_async(void *shared, const void *global) {
    if (uintptr_t(shared) % 16 || uintptr_t(global) % 16) abort();
    memset(shared, 0xA5, 16);
    emulator::copies[emulator::current].open.push_back({shared, global});
}
static inline void copy_async_commit() {
    auto &mine = emulator::copies[emulator::current];
    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
}
template <int pending> void copy_async_wait() { emulator::wait_for_copies(pending); }
