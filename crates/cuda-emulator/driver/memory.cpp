#include "memory.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

#include "driver.h"
#include "stream.h"

namespace emulator {

namespace {

constexpr size_t alignment = 256, red_zone_bytes = 256;
constexpr unsigned char poison = 0xFF, red_zone = 0xA7;
// Poison touches pages; what is larger than this is poisoned only at its start, so that a huge allocation stays cheap.
constexpr size_t poisoned_at_most = size_t(64) << 20;

struct Allocation {
  size_t bytes;
  enum class Owner { Program, Graph, Module } owner;  // a module's variables have no red zones
  bool being_freed = false;                           // by a stream that has yet to come there
};
std::map<CUdeviceptr, Allocation> allocations;
std::map<uintptr_t, size_t> pinned;  // page-locked host memory
// Freed memory is kept for a while, to see whether its poison stays.
struct Freed {
  CUdeviceptr address;
  size_t bytes;
};
std::deque<Freed> quarantine;
size_t quarantined = 0;
constexpr size_t quarantined_at_most = size_t(16) << 20;
size_t used = 0, used_high = 0;
uint64_t release_threshold = 0;
uint64_t pool_flags[4] = {1, 1, 1, 1};

unsigned char *bytes_at(CUdeviceptr address) { return reinterpret_cast<unsigned char *>(address); }

void fill_poison(CUdeviceptr address, size_t bytes) {
  memset(bytes_at(address), poison, std::min(bytes, poisoned_at_most));
}

CUresult check(CUdeviceptr address, const Allocation &allocation) {
  const unsigned char *before = bytes_at(address) - red_zone_bytes, *after = bytes_at(address) + allocation.bytes;
  for (size_t i = red_zone_bytes; i-- > 0;)
    if (before[i] != red_zone)
      return fail_context("a write " + std::to_string(red_zone_bytes - i) + " bytes before an allocation of " +
                          std::to_string(allocation.bytes) + " bytes, since the last check");
  for (size_t i = 0; i < red_zone_bytes; i++)
    if (after[i] != red_zone)
      return fail_context("a write " + std::to_string(i) + " bytes behind the end of an allocation of " +
                          std::to_string(allocation.bytes) + " bytes, since the last check");
  return CUDA_SUCCESS;
}

}  // namespace

CUresult allocate(CUdeviceptr *address, size_t bytes) {
  if (!address || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (bytes > card().memory - used)
    if (CUresult error = drain_all()) return error;  // which may free some
  if (bytes > card().memory - used) return CUDA_ERROR_OUT_OF_MEMORY;
  const size_t whole = (bytes + 2 * red_zone_bytes + alignment - 1) / alignment * alignment;
  auto *memory = static_cast<unsigned char *>(aligned_alloc(alignment, whole));
  if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = reinterpret_cast<CUdeviceptr>(memory + red_zone_bytes);
  memset(memory, red_zone, red_zone_bytes);
  fill_poison(*address, bytes);
  memset(memory + red_zone_bytes + bytes, red_zone, red_zone_bytes);
  allocations[*address] = {bytes, Allocation::Owner::Program, false};
  used += bytes;
  used_high = std::max(used_high, used);
  return CUDA_SUCCESS;
}

namespace {

CUresult check_poison(const Freed &freed) {
  const unsigned char *bytes = bytes_at(freed.address);
  // All bytes are equal if each is equal to the next.
  if (bytes[0] == poison && memcmp(bytes, bytes + 1, freed.bytes - 1) == 0) return CUDA_SUCCESS;
  size_t i = 0;
  while (bytes[i] == poison) i++;
  return fail_context("a write at byte " + std::to_string(i) + " of an allocation of " + std::to_string(freed.bytes) +
                      " bytes that had been freed");
}

CUresult release(std::map<CUdeviceptr, Allocation>::iterator allocation) {
  used -= allocation->second.bytes;
  quarantine.push_back({allocation->first, allocation->second.bytes});
  quarantined += allocation->second.bytes;
  allocations.erase(allocation);
  CUresult result = CUDA_SUCCESS;
  while (quarantined > quarantined_at_most) {
    const Freed oldest = quarantine.front();
    quarantine.pop_front();
    quarantined -= oldest.bytes;
    // What is larger was never all poison, and has not been here for long.
    if (!result && oldest.bytes <= quarantined_at_most) result = check_poison(oldest);
    free(bytes_at(oldest.address) - red_zone_bytes);
  }
  return result;
}

}  // namespace

CUresult free_memory(CUdeviceptr address) {
  auto found = allocations.find(address);
  CUresult result = check(address, found->second);
  fill_poison(address, found->second.bytes);
  if (found->second.owner != Allocation::Owner::Program) return result;
  CUresult later = release(found);
  return result ? result : later;
}

bool begin_free(CUdeviceptr address) {
  auto found = allocations.find(address);
  if (found == allocations.end() || found->second.being_freed) return false;
  if (found->second.owner == Allocation::Owner::Program) found->second.being_freed = true;
  return found->second.owner != Allocation::Owner::Module;
}

CUresult allocate_for_graph(CUdeviceptr *address, size_t bytes) {
  CUresult result = allocate(address, bytes);
  if (result == CUDA_SUCCESS) allocations[*address].owner = Allocation::Owner::Graph;
  return result;
}
void release_graph_memory(CUdeviceptr address) { release(allocations.find(address)); }

void poison_memory(CUdeviceptr address) { fill_poison(address, allocations.at(address).bytes); }

void adopt_memory(void *address, size_t bytes) {
  allocations[reinterpret_cast<CUdeviceptr>(address)] = {bytes, Allocation::Owner::Module, false};
}
void forget_memory(void *address) { allocations.erase(reinterpret_cast<CUdeviceptr>(address)); }

bool is_device_memory(CUdeviceptr address, size_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  const auto &[start, allocation] = *std::prev(after);
  return address - start <= allocation.bytes && bytes <= allocation.bytes - (address - start);
}

bool is_pinned(const void *address) {
  auto after = pinned.upper_bound(reinterpret_cast<uintptr_t>(address));
  if (after == pinned.begin()) return false;
  const auto &[start, bytes] = *std::prev(after);
  return reinterpret_cast<uintptr_t>(address) - start < bytes;
}

CUresult check_all_memory() {
  for (const auto &[address, allocation] : allocations)
    if (allocation.owner != Allocation::Owner::Module)
      if (CUresult error = check(address, allocation)) return error;
  for (const Freed &freed : quarantine)
    if (CUresult error = check_poison(freed)) return error;
  return CUDA_SUCCESS;
}

}  // namespace emulator

using namespace emulator;

// Bytes of device memory that are allocated now, for tests of leaks.
COUNTER_API size_t emulator_memory_in_use() { return used; }

DRIVER_API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  Entry entry;
  if (!entry) return entry.error;
  *free_bytes = card().memory - used;
  *total = card().memory;
  return CUDA_SUCCESS;
}

DRIVER_API cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  return allocate(address, bytes);
}

DRIVER_API cuMemFree_v2(CUdeviceptr address) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  if (address == 0) return CUDA_SUCCESS;
  synchronizations++;  // the real one waits for the device
  if (CUresult error = drain_all()) return error;
  return begin_free(address) ? free_memory(address) : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API cuMemHostAlloc(void **address, size_t bytes, unsigned) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  if (!address || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*address) return CUDA_ERROR_OUT_OF_MEMORY;
  pinned[reinterpret_cast<uintptr_t>(*address)] = bytes;
  return CUDA_SUCCESS;
}
DRIVER_API cuMemAllocHost_v2(void **address, size_t bytes) { return cuMemHostAlloc(address, bytes, 0); }

DRIVER_API cuMemFreeHost(void *address) {
  Entry entry;
  if (!entry) return entry.error;
  if (!pinned.erase(reinterpret_cast<uintptr_t>(address))) return CUDA_ERROR_INVALID_VALUE;
  CUresult result = drain_all();
  free(address);
  return result;
}

// The default pool gives everything back at once: it has nothing to trim.
DRIVER_API cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *pool = reinterpret_cast<CUmemoryPool>(&allocations);
  return CUDA_SUCCESS;
}
DRIVER_API cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }

DRIVER_API cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  return pool == reinterpret_cast<CUmemoryPool>(&allocations) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (pool != reinterpret_cast<CUmemoryPool>(&allocations)) return CUDA_ERROR_INVALID_VALUE;
  const uint64_t wide = attribute >= CU_MEMPOOL_ATTR_RELEASE_THRESHOLD ? *static_cast<uint64_t *>(value) : 0;
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      pool_flags[attribute] = uint64_t(*static_cast<int *>(value));
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      release_threshold = wide;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      if (wide != 0) return CUDA_ERROR_INVALID_VALUE;  // it can only be reset
      used_high = used;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

DRIVER_API cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (pool != reinterpret_cast<CUmemoryPool>(&allocations)) return CUDA_ERROR_INVALID_VALUE;
  uint64_t *wide = static_cast<uint64_t *>(value);
  switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
      *static_cast<int *>(value) = int(pool_flags[attribute]);
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
      *wide = release_threshold;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
      *wide = used;
      return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
      *wide = used_high;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}
