// Launches: the checks of the real driver, then the scheduler.
#include <cstring>

#include "module.h"
#include "scheduler.h"
#include "stream.h"

using namespace emulator;

namespace {

// What the kernel itself says holds.
constexpr dim3 no_cluster = {0, 0, 0};

struct Request {
  Function *function;
  dim3 grid, block;
  unsigned shared_bytes;
  bool cooperative;
  dim3 cluster;
};

uint64_t volume(dim3 d) { return uint64_t(d.x) * d.y * d.z; }

constexpr unsigned max_cluster = 8;  // that every card has

CUresult check_cluster(const Request &request) {
  const dim3 &grid = request.grid, &cluster = request.cluster;
  if (volume(cluster) == 1) return CUDA_SUCCESS;
  if (card().major < 9 || request.cooperative) return CUDA_ERROR_NOT_SUPPORTED;
  if (volume(cluster) > max_cluster || grid.x % cluster.x || grid.y % cluster.y || grid.z % cluster.z)
    return CUDA_ERROR_INVALID_CLUSTER_SIZE;
  return CUDA_SUCCESS;
}

CUresult check(const Request &request) {
  const dim3 &grid = request.grid, &block = request.block;
  if (volume(grid) == 0 || volume(block) == 0) return CUDA_ERROR_INVALID_VALUE;
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) return CUDA_ERROR_INVALID_VALUE;
  if (volume(block) > max_threads_per_block || block.z > 64) return CUDA_ERROR_INVALID_VALUE;
  if (request.shared_bytes > request.function->max_dynamic_shared) return CUDA_ERROR_INVALID_VALUE;
  if (volume(block) > request.function->kernel->max_threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
  const uint64_t resident = uint64_t(card().multiprocessors) *
                            occupancy(*request.function, unsigned(volume(block)), request.shared_bytes);
  if (request.cooperative && volume(grid) > resident) return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
  return check_cluster(request);
}

// How many blocks run together: all of a cooperative launch, those of a cluster; and else one after another or, where chance rules,
// a few, if they have not much that must be put aside whenever another one goes on.
unsigned gang_of(const Request &request) {
  constexpr size_t much = 256;
  const uint64_t blocks = volume(request.grid);
  if (request.cooperative) return unsigned(blocks);
  if (volume(request.cluster) > 1) return unsigned(volume(request.cluster));
  if (!schedule.shuffled || request.function->module->static_shared_bytes > much) return 1;
  unsigned gang = 1 + schedule.below(4);
  while (blocks % gang) gang--;
  return gang;
}

CUresult run(const Request &request, void **arguments) {
  const Module &module = *request.function->module;
  std::string report = emulator::run({
      request.function->kernel,
      arguments,
      request.grid,
      request.block,
      request.shared_bytes,
      gang_of(request),
      request.cluster,
      module.static_shared,
      module.static_shared_bytes,
  });
  return report.empty() ? CUDA_SUCCESS : fail_context(report);
}

// A launch that happens later keeps the values that its arguments have now.
Operation with_copied_arguments(const Request &request, void **arguments) {
  std::vector<std::vector<char>> values;
  for (unsigned i = 0; i < request.function->kernel->argument_count; i++) {
    const char *value = static_cast<const char *>(arguments[i]);
    values.emplace_back(value, value + request.function->kernel->argument_sizes[i]);
  }
  return [request, values = std::move(values)]() mutable {
    std::vector<void *> pointers;
    for (auto &value : values) pointers.push_back(value.data());
    return run(request, pointers.data());
  };
}

CUresult launch(Request request, CUstream handle, void **arguments, void **extra) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_function(request.function)) return CUDA_ERROR_INVALID_HANDLE;
  if (extra) return CUDA_ERROR_NOT_SUPPORTED;
  if (!arguments && request.function->kernel->argument_count) return CUDA_ERROR_INVALID_VALUE;
  if (const dim3 &given = request.function->kernel->cluster; volume(given) > 0) {
    if (volume(request.cluster) > 0 && memcmp(&given, &request.cluster, sizeof given)) return CUDA_ERROR_INVALID_VALUE;
    request.cluster = given;
  } else if (volume(request.cluster) == 0) {
    request.cluster = {1, 1, 1};
  }
  if (CUresult error = check(request)) return error;
  const Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  launches++;
  if (stream->capture || defers(*stream)) return submit(handle, with_copied_arguments(request, arguments));
  return submit(handle, [&] { return run(request, arguments); });
}

}  // namespace

DRIVER_API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                          void **arguments, void **extra) {
  const dim3 grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
  return launch({function, grid, block, shared_bytes, false, no_cluster}, stream, arguments, extra);
}

DRIVER_API cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                     unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                     CUstream stream, void **arguments) {
  const dim3 grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
  return launch({function, grid, block, shared_bytes, true, no_cluster}, stream, arguments, nullptr);
}

DRIVER_API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments, void **extra) {
  Request request{function,
                  {config->grid_x, config->grid_y, config->grid_z},
                  {config->block_x, config->block_y, config->block_z},
                  config->shared_bytes,
                  false,
                  no_cluster};
  for (unsigned i = 0; i < config->attribute_count; i++) {
    const CUlaunchAttribute &attribute = config->attributes[i];
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) request.cooperative = attribute.value.cooperative != 0;
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
      const auto &cluster = attribute.value.cluster;
      if (volume({cluster.x, cluster.y, cluster.z}) == 0) return CUDA_ERROR_INVALID_VALUE;
      request.cluster = {cluster.x, cluster.y, cluster.z};
    }
  }
  return launch(request, config->stream, arguments, extra);
}
