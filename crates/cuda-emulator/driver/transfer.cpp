// Copies, fills and stream-ordered allocation: whatever a stream does besides kernels.
#include <algorithm>
#include <cstring>

#include "memory.h"
#include "stream.h"

using namespace emulator;

namespace {

void *host(CUdeviceptr address) { return reinterpret_cast<void *>(address); }

// The device's side of a copy or a fill: checked when it is asked for, and again when it happens.
CUresult check_alive(CUdeviceptr address, size_t bytes) {
  if (is_device_memory(address, bytes)) return CUDA_SUCCESS;
  return fail_context("a copy or fill of memory that was freed before it happened");
}

CUresult copy_to_device(CUstream stream, CUdeviceptr to, const void *from, size_t bytes) {
  return submit(stream, [=] {
    if (CUresult error = check_alive(to, bytes)) return error;
    memcpy(host(to), from, bytes);
    return CUDA_SUCCESS;
  });
}

CUresult copy_to_host(CUstream stream, void *to, CUdeviceptr from, size_t bytes) {
  return submit(stream, [=] {
    if (CUresult error = check_alive(from, bytes)) return error;
    memcpy(to, host(from), bytes);
    return CUDA_SUCCESS;
  });
}

template <class Value>
CUresult fill(CUdeviceptr to, Value value, size_t count, CUstream stream) {
  Entry entry;
  if (!entry) return entry.error;
  if (to % sizeof(Value) || !is_device_memory(to, count * sizeof(Value))) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, [=] {
    if (CUresult error = check_alive(to, count * sizeof(Value))) return error;
    std::fill_n(static_cast<Value *>(host(to)), count, value);
    return CUDA_SUCCESS;
  });
}

}  // namespace

DRIVER_API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_device_memory(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  const Stream *stream = find_stream(handle);
  if (!stream || stream->capture || !defers(*stream) || is_pinned(from)) return copy_to_device(handle, to, from, bytes);
  // Pageable memory is staged before the call returns; of pinned memory the copy sees what is there when it happens.
  const char *start = static_cast<const char *>(from);
  return submit(handle, [to, staged = std::vector<char>(start, start + bytes)] {
    if (CUresult error = check_alive(to, staged.size())) return error;
    memcpy(host(to), staged.data(), staged.size());
    return CUDA_SUCCESS;
  });
}

DRIVER_API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_device_memory(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (CUresult error = copy_to_host(handle, to, from, bytes)) return error;
  // A copy to pageable memory is done when the call returns.
  Stream *stream = find_stream(handle);
  if (stream->capture || is_pinned(to)) return CUDA_SUCCESS;
  synchronizations++;
  return drain(*stream);
}

DRIVER_API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_device_memory(to, bytes) || !is_device_memory(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, [=] {
    if (CUresult error = check_alive(to, bytes)) return error;
    if (CUresult error = check_alive(from, bytes)) return error;
    memmove(host(to), host(from), bytes);
    return CUDA_SUCCESS;
  });
}

DRIVER_API cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  if (!is_device_memory(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
  return copy_to_device(nullptr, to, from, bytes);
}

DRIVER_API cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  if (!is_device_memory(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
  synchronizations++;
  return copy_to_host(nullptr, to, from, bytes);
}

DRIVER_API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, nullptr);
}

DRIVER_API cuMemsetD8Async(CUdeviceptr to, uint8_t value, size_t count, CUstream stream) {
  return fill(to, value, count, stream);
}
DRIVER_API cuMemsetD16Async(CUdeviceptr to, uint16_t value, size_t count, CUstream stream) {
  return fill(to, value, count, stream);
}
DRIVER_API cuMemsetD32Async(CUdeviceptr to, uint32_t value, size_t count, CUstream stream) {
  return fill(to, value, count, stream);
}
DRIVER_API cuMemsetD8_v2(CUdeviceptr to, uint8_t value, size_t count) { return fill(to, value, count, nullptr); }

// In a capture the graph owns the memory: it has one address for all launches, and each launch finds it poisoned.
DRIVER_API cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult error = refuse_submission(*stream)) return error;
  if (!stream->capture) return allocate(address, bytes);
  if (CUresult error = allocate_for_graph(address, bytes)) return error;
  stream->capture->recording->memory.push_back(*address);
  return record(*stream, [memory = *address] {
    poison_memory(memory);
    return CUDA_SUCCESS;
  });
}

DRIVER_API cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult error = refuse_submission(*stream)) return error;
  if (address == 0) return CUDA_SUCCESS;
  if (stream->capture) {
    const auto &owned = stream->capture->recording->memory;
    if (std::find(owned.begin(), owned.end(), address) == owned.end()) return CUDA_ERROR_INVALID_VALUE;
  } else if (!begin_free(address)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return submit(handle, [address] { return free_memory(address); });
}
