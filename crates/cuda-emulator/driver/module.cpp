#include "module.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"
#include "stream.h"

namespace emulator {

namespace {

Handles<Module> modules;
std::unordered_set<const Function *> functions;

// An image comes as a bare pointer: its size is where the table of sections ends, which linkers put last.
size_t image_size(const Elf64_Ehdr &header) { return header.e_shoff + size_t(header.e_shnum) * header.e_shentsize; }

template <class Value>
Value *find(const Module &module, const std::string &name) {
  return static_cast<Value *>(dlsym(module.object, name.c_str()));
}

}  // namespace

bool is_function(CUfunction function) { return functions.count(function) != 0; }

unsigned occupancy(const Function &function, unsigned threads, size_t dynamic_shared) {
  if (threads == 0 || threads > function.kernel->max_threads || dynamic_shared > function.max_dynamic_shared) return 0;
  const unsigned whole_warps = (threads + 31) / 32 * 32;
  const unsigned by_shared = unsigned(shared_per_multiprocessor / (dynamic_shared + reserved_shared_per_block));
  return std::min({max_threads_per_multiprocessor / whole_warps, max_blocks_per_multiprocessor, by_shared});
}

}  // namespace emulator

using namespace emulator;

Module::~Module() {
  for (auto &[name, function] : functions) emulator::functions.erase(function.get());
  for (auto &[name, address] : globals) forget_memory(address);
  dlclose(object);
  close(file);
}

DRIVER_API cuModuleLoadData(CUmodule *module, const void *image) {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  if (!module || !image) return CUDA_ERROR_INVALID_VALUE;
  if (memcmp(image, ELFMAG, SELFMAG) != 0) return CUDA_ERROR_INVALID_IMAGE;
  const auto &header = *static_cast<const Elf64_Ehdr *>(image);
  if (header.e_machine == EM_CUDA) return CUDA_ERROR_NO_BINARY_FOR_GPU;  // made by a real compiler
  const size_t size = image_size(header);
  int file = memfd_create("ferrograd-kernels", MFD_CLOEXEC);
  if (file < 0 || write(file, image, size) != ssize_t(size)) {
    if (file >= 0) close(file);
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void *object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!object) {
    fprintf(stderr, "ferrograd's CUDA emulator: %s\n", dlerror());
    close(file);
    return CUDA_ERROR_SHARED_OBJECT_INIT_FAILED;
  }
  auto *loaded = new Module{file, object, nullptr, 0, {}, {}};
  loaded->static_shared = find<char>(*loaded, "emulator_shared_begin");
  if (char *end = find<char>(*loaded, "emulator_shared_end"))
    loaded->static_shared_bytes = size_t(end - loaded->static_shared);
  *module = modules.add(loaded);
  return CUDA_SUCCESS;
}

DRIVER_API cuModuleUnload(CUmodule module) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  CUresult result = drain_all();
  return modules.destroy(module) ? result : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  Entry entry;
  if (!entry) return entry.error;
  if (!modules.has(module)) return CUDA_ERROR_INVALID_HANDLE;
  auto &known = module->functions[name];
  if (!known) {
    auto *kernel = find<const EmulatorKernel>(*module, std::string("emulator_kernel_") + name);
    if (!kernel) {
      module->functions.erase(name);
      return CUDA_ERROR_NOT_FOUND;
    }
    known.reset(new Function{kernel, module});
    functions.insert(known.get());
  }
  *function = known.get();
  return CUDA_SUCCESS;
}

DRIVER_API cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module, const char *name) {
  Entry entry;
  if (!entry) return entry.error;
  if (!modules.has(module)) return CUDA_ERROR_INVALID_HANDLE;
  void *variable = find<void>(*module, name);
  Dl_info info;
  void *symbol = nullptr;
  if (!variable || !dladdr1(variable, &info, &symbol, RTLD_DL_SYMENT) || !symbol) return CUDA_ERROR_NOT_FOUND;
  const size_t size = static_cast<const Elf64_Sym *>(symbol)->st_size;
  adopt_memory(variable, size);
  module->globals[name] = variable;
  if (address) *address = reinterpret_cast<CUdeviceptr>(variable);
  if (bytes) *bytes = size;
  return CUDA_SUCCESS;
}

DRIVER_API cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_function(function)) return CUDA_ERROR_INVALID_HANDLE;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      if (value < 0 || unsigned(value) > max_shared_per_block) return CUDA_ERROR_INVALID_VALUE;
      function->max_dynamic_shared = unsigned(value);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
      return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

// Registers and static shared memory are not known here: the values are those of a modest kernel.
DRIVER_API cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_function(function)) return CUDA_ERROR_INVALID_HANDLE;
  switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = int(function->kernel->max_threads);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
      *value = 32;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
      *value = 10 * card().major + card().minor;
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = int(function->max_dynamic_shared);
      return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
      *value = 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

DRIVER_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                       size_t dynamic_shared) {
  Entry entry;
  if (!entry) return entry.error;
  if (!is_function(function)) return CUDA_ERROR_INVALID_HANDLE;
  if (threads <= 0) return CUDA_ERROR_INVALID_VALUE;
  *blocks = int(occupancy(*function, unsigned(threads), dynamic_shared));
  return CUDA_SUCCESS;
}
