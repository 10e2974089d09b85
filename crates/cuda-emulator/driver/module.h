// Modules: the shared objects that the stand-in compiler made, and the kernels in them.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "../device/contract.h"
#include "driver.h"

struct Function {
  const EmulatorKernel *kernel;
  Module *module;
  unsigned max_dynamic_shared = emulator::default_shared_per_block;
};

struct Module {
  int file;        // open while the object is loaded: its number is in the name under which the loader knows the object
  void *object;
  char *static_shared;
  size_t static_shared_bytes;
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<std::string, void *> globals;
  ~Module();
};

namespace emulator {

bool is_function(CUfunction function);
// Blocks of this kernel that one multiprocessor holds at a time.
unsigned occupancy(const Function &function, unsigned threads, size_t dynamic_shared);

}  // namespace emulator
