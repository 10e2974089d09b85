// Streams, events and captures. Work happens when it is submitted, so a stream only has to know whether it captures.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "driver.h"

namespace emulator {

using Operation = std::function<CUresult()>;

// What a capture records: operations in the order of their submission, which respects every dependency.
struct Recording {
  std::vector<Operation> operations;
  std::vector<CUdeviceptr> memory;  // allocated by the graph, at addresses that it keeps
  ~Recording();
  CUresult play() const;
};

struct Capture {
  CUstream origin;
  CUstreamCaptureMode mode;
  std::thread::id thread;
  bool active = true, invalidated = false;
  std::shared_ptr<Recording> recording = std::make_shared<Recording>();
  std::vector<CUstream> streams;
};

// How much of each stream's captured work lies before a point: a vector clock.
using Clock = std::map<CUstream, unsigned>;

}  // namespace emulator

struct Stream {
  bool blocking;  // with the legacy stream
  bool legacy;    // the stream of handle 0, which cannot capture
  std::shared_ptr<emulator::Capture> capture;
  emulator::Clock before;
  unsigned submitted = 0;  // operations of the capture
};

struct Event {
  bool timing;
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<emulator::Capture> capture;
  emulator::Clock before;
};

namespace emulator {

// The stream behind a handle; null if there is none.
Stream *find_stream(CUstream handle);
// The stream takes part in the capture from now on.
void join(Stream &stream, const std::shared_ptr<Capture> &capture);
// Ends a capture for all its streams, and says whether it may become a graph.
CUresult end(Capture &capture);
// What happened before `from` happened before `into`.
void merge(Clock &into, const Clock &from);
// An error that makes the capture worthless, as most do.
CUresult invalidate(Capture &capture, CUresult error);
// Calls that would wait for the device, or may, are refused while a stream captures (except in relaxed mode).
CUresult refuse_while_capturing();
// What keeps work from being submitted to this stream now.
CUresult refuse_submission(Stream &stream);
CUresult record(Stream &stream, Operation operation);

// Does the operation now, or records it if the stream captures.
template <class Work>
CUresult submit(CUstream handle, Work work) {
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult error = refuse_submission(*stream)) return error;
  return stream->capture ? record(*stream, std::move(work)) : work();
}

}  // namespace emulator
