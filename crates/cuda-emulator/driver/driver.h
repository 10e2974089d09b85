// What the parts of the stand-in driver share. Every entry point takes one lock, so nothing below needs its own.
#pragma once

#include <mutex>
#include <string>
#include <unordered_set>

#include "abi.h"

#define DRIVER_API extern "C" __attribute__((visibility("default"))) CUresult
#define COUNTER_API extern "C" __attribute__((visibility("default")))

namespace emulator {

// Opens an entry point: takes the lock and finds what would keep any call from succeeding (no cuInit, no context, a
// kernel that failed before).
class Entry {
 public:
  enum Needs { Nothing, Init, Context };
  explicit Entry(Needs needs = Context);
  explicit operator bool() const { return error == CUDA_SUCCESS; }
  CUresult error = CUDA_SUCCESS;

 private:
  std::lock_guard<std::mutex> lock_;
};

// A failed kernel leaves the context unusable, as on hardware; the report is what cuGetErrorString then says.
CUresult fail_context(const std::string &report);
const std::string &last_report();

// The handles of one kind that are alive; any other value is refused.
template <class Object>
class Handles {
 public:
  Object *add(Object *object) {
    alive_.insert(object);
    return object;
  }
  bool has(const Object *object) const { return alive_.count(const_cast<Object *>(object)) != 0; }
  // Destroys the object; false if there is none.
  bool destroy(Object *object) {
    if (!alive_.erase(object)) return false;
    delete object;
    return true;
  }

 private:
  std::unordered_set<Object *> alive_;
};

// A number from the environment, or `otherwise`.
size_t number_from_environment(const char *name, size_t otherwise);

// The card: an H100 with few multiprocessors, so that a kernel that is sized by them gives work to each.
struct Card {
  int major, minor;
  int multiprocessors;
  size_t memory;
};
const Card &card();
constexpr unsigned max_threads_per_block = 1024, max_threads_per_multiprocessor = 2048,
                   max_blocks_per_multiprocessor = 32;
constexpr unsigned default_shared_per_block = 48 << 10, max_shared_per_block = 227 << 10,
                   shared_per_multiprocessor = 228 << 10, reserved_shared_per_block = 1 << 10;

// What tests read. Launches are those that the calling thread has asked for: tests run beside each other.
extern size_t synchronizations;
extern thread_local size_t launches;

}  // namespace emulator
