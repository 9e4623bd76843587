// Copies from global to shared memory that go on beside the computation, sm_80 and up.

#pragma once

// 16 bytes; both addresses are multiples of 16.
__device__ __forceinline__ void copy_async(void *shared, const void *global) {
    unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

// The copies that this thread has asked for since the last call are a group.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until all groups of this thread but the last `pending` have arrived; others see them after a barrier.
template <int pending> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}
