// Device memory: the process's own, poisoned, with a red zone on either side of every allocation.
#pragma once

#include <cstddef>

#include "abi.h"

namespace emulator {

// Allocates poisoned memory, or says that the card has no more.
CUresult allocate(CUdeviceptr *address, size_t bytes);
CUresult free_memory(CUdeviceptr address);
// Is this an allocation that may be freed and is not yet? From now on it is no more.
bool begin_free(CUdeviceptr address);
// Memory of a graph keeps its address until the graph dies: `free_memory` only checks and poisons it.
CUresult allocate_for_graph(CUdeviceptr *address, size_t bytes);
void release_graph_memory(CUdeviceptr address);
void poison_memory(CUdeviceptr address);
// Makes a module's variable known as device memory, until `forget_memory`.
void adopt_memory(void *address, size_t bytes);
void forget_memory(void *address);
// Is all of this range inside one allocation?
bool is_device_memory(CUdeviceptr address, size_t bytes);

// Is it page-locked, so that copies from and to it need not wait?
bool is_pinned(const void *address);

// Fails the context if a kernel has written beside an allocation, or into memory that had been freed.
CUresult check_all_memory();

}  // namespace emulator
