// Initialisation, the device and its attributes, the context, errors.
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "memory.h"
#include "scheduler.h"
#include "stream.h"

namespace emulator {

size_t synchronizations = 0;
thread_local size_t launches = 0;

namespace {

std::mutex driver_lock;
bool initialized = false;
std::string report;
bool failed = false;

struct ::Context *const the_context = reinterpret_cast<CUcontext>(&initialized);
thread_local CUcontext current_context = nullptr;

struct ErrorText {
  CUresult code;
  const char *name, *text;
};
constexpr ErrorText error_texts[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {CUDA_ERROR_SHARED_OBJECT_INIT_FAILED, "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED",
     "shared object initialization failed"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE",
     "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE",
     "too many blocks in cooperative launch"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_INVALID_CLUSTER_SIZE, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "misconfigured cluster"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {CUDA_ERROR_STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED",
     "capturing stream has unjoined work"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const ErrorText *text_of(CUresult code) {
  for (const ErrorText &error : error_texts)
    if (error.code == code) return &error;
  return nullptr;
}

}  // namespace

Entry::Entry(Needs needs) : lock_(driver_lock) {
  if (needs >= Init && !initialized) error = CUDA_ERROR_NOT_INITIALIZED;
  else if (needs == Context && !current_context) error = CUDA_ERROR_INVALID_CONTEXT;
  else if (needs == Context && failed) error = CUDA_ERROR_LAUNCH_FAILED;
}

CUresult fail_context(const std::string &what) {
  report = what;
  failed = true;
  fprintf(stderr, "ferrograd's CUDA emulator: %s\n", what.c_str());
  return CUDA_ERROR_LAUNCH_FAILED;
}

const std::string &last_report() { return report; }

size_t number_from_environment(const char *name, size_t otherwise) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

const Card &card() {
  static const Card card = [] {
    Card c{9, 0, int(number_from_environment("FERROGRAD_EMULATOR_SMS", 4)),
           number_from_environment("FERROGRAD_EMULATOR_MEMORY", size_t(4) << 30)};
    if (const char *arch = getenv("FERROGRAD_EMULATOR_ARCH")) sscanf(arch, "%d.%d", &c.major, &c.minor);
    return c;
  }();
  return card;
}

}  // namespace emulator

using namespace emulator;

COUNTER_API size_t emulator_count_synchronizations() { return synchronizations; }
COUNTER_API size_t emulator_count_launches() { return launches; }
// The last report of a kernel that failed; "" if none did.
COUNTER_API const char *emulator_report() { return report.c_str(); }
// Makes the context usable after a kernel failed: only a new process could do that with a real driver.
COUNTER_API void emulator_forgive() {
  Entry entry(Entry::Nothing);
  failed = false;
  report.clear();
  drop_pending();
}
// As FERROGRAD_EMULATOR_SEED, for tests that run one kernel under several schedules. 0 if the text means nothing.
COUNTER_API int emulator_set_schedule(const char *text) {
  Entry entry(Entry::Nothing);
  drain_all();
  return set_schedule(text);
}

DRIVER_API cuInit(unsigned flags) {
  Entry entry(Entry::Nothing);
  if (flags) return CUDA_ERROR_INVALID_VALUE;
  if (!initialized && !set_schedule(getenv("FERROGRAD_EMULATOR_SEED"))) {
    fprintf(stderr, "ferrograd's CUDA emulator: FERROGRAD_EMULATOR_SEED must be a number or \"lazy\"\n");
    return CUDA_ERROR_INVALID_VALUE;
  }
  initialized = true;
  return CUDA_SUCCESS;
}

DRIVER_API cuDriverGetVersion(int *version) {
  *version = 12090;
  return CUDA_SUCCESS;
}

DRIVER_API cuDeviceGetCount(int *count) {
  Entry entry(Entry::Init);
  *count = 1;
  return entry.error;
}

DRIVER_API cuDeviceGet(CUdevice *device, int ordinal) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (ordinal != 0) return CUDA_ERROR_INVALID_DEVICE;
  *device = 0;
  return CUDA_SUCCESS;
}

DRIVER_API cuDeviceGetName(char *name, int length, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, size_t(length), "ferrograd's CUDA emulator");
  return CUDA_SUCCESS;
}

DRIVER_API cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = card().memory;
  return CUDA_SUCCESS;
}

DRIVER_API cuDeviceGetUuid(unsigned char *uuid, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  memcpy(uuid, "ferrograd's cuda", 16);
  return CUDA_SUCCESS;
}
DRIVER_API cuDeviceGetUuid_v2(unsigned char *uuid, CUdevice device) { return cuDeviceGetUuid(uuid, device); }

DRIVER_API cuDeviceGetAttribute(int *value, unsigned attribute, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  struct Known {
    unsigned attribute;
    int value;
  };
  const Known known[] = {
      {1, max_threads_per_block},
      {2, 1024},                            // block x
      {3, 1024},                            // block y
      {4, 64},                              // block z
      {5, 2147483647},                      // grid x
      {6, 65535},                           // grid y
      {7, 65535},                           // grid z
      {8, default_shared_per_block},
      {9, 65536},                           // constant memory
      {10, warp_size},
      {11, 2147483647},                     // pitch
      {12, 65536},                          // registers per block
      {13, 1755000},                        // clock, kHz
      {16, card().multiprocessors},
      {31, 1},                              // concurrent kernels
      {36, 2619000},                        // memory clock, kHz
      {37, 5120},                           // memory bus, bits
      {38, 50 << 20},                       // L2
      {39, max_threads_per_multiprocessor},
      {40, 3},                              // copy engines
      {41, 1},                              // unified addressing
      {75, card().major},
      {76, card().minor},
      {78, 1},                              // stream priorities
      {81, shared_per_multiprocessor},
      {82, 65536},                          // registers per multiprocessor
      {95, 1},                              // cooperative launch
      {97, max_shared_per_block},
      {106, max_blocks_per_multiprocessor},
      {111, reserved_shared_per_block},
      {115, 1},                             // memory pools
      {120, card().major >= 9},             // clusters
      {127, card().major >= 9},             // tensor maps
  };
  *value = 0;
  for (const Known &k : known)
    if (k.attribute == attribute) *value = k.value;
  return CUDA_SUCCESS;
}

DRIVER_API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
  *context = the_context;
  return CUDA_SUCCESS;
}

// The context lives as long as the process: whoever holds it last would leave no other behaviour to observe.
DRIVER_API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  return device == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

DRIVER_API cuCtxSetCurrent(CUcontext context) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (context && context != the_context) return CUDA_ERROR_INVALID_CONTEXT;
  current_context = context;
  return CUDA_SUCCESS;
}

DRIVER_API cuCtxGetCurrent(CUcontext *context) {
  Entry entry(Entry::Init);
  *context = current_context;
  return entry.error;
}

DRIVER_API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
  Entry entry;
  if (least) *least = 0;
  if (greatest) *greatest = -5;
  return entry.error;
}

DRIVER_API cuCtxSynchronize() {
  Entry entry;
  if (!entry) return entry.error;
  if (CUresult error = refuse_while_capturing()) return error;
  synchronizations++;
  if (CUresult error = drain_all()) return error;
  return check_all_memory();
}

DRIVER_API cuGetErrorName(CUresult code, const char **name) {
  const ErrorText *error = text_of(code);
  *name = error ? error->name : nullptr;
  return error ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

DRIVER_API cuGetErrorString(CUresult code, const char **text) {
  const ErrorText *error = text_of(code);
  *text = error ? error->text : nullptr;
  if (code == CUDA_ERROR_LAUNCH_FAILED && failed) *text = report.c_str();
  return error ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
