// Streams, events and captures.
#pragma once

#include <chrono>
#include <deque>
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

// A point in a stream's work, where an event was recorded.
struct Moment {
  CUstream stream;
  bool passed = false;
  std::chrono::steady_clock::time_point time = {};
};

}  // namespace emulator

struct Stream {
  bool blocking;  // with the legacy stream
  bool legacy;    // the stream of handle 0, whose work always happens at once, and which cannot capture
  std::deque<emulator::Operation> pending;
  std::shared_ptr<emulator::Capture> capture;
  emulator::Clock before;
  unsigned submitted = 0;  // operations of the capture
};

struct Event {
  bool timing;
  std::shared_ptr<emulator::Moment> moment;  // of its last record, outside captures
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

// Is work that is submitted to this stream, which does not capture, left for later? So it is under every schedule but
// the eager one: then the stream's work happens when something waits for it, or when the dice say so.
bool defers(const Stream &stream);
CUresult leave_for_later(Stream &stream, Operation operation);
// What the program waits for, happens: all work of a stream, …
CUresult drain(Stream &stream);
// … of the streams that the legacy stream waits for, …
CUresult drain_blocking();
// … of all streams, …
CUresult drain_all();
// … or what comes before a moment.
CUresult reach(const Moment &moment);
// After a failed kernel nothing of it will happen.
void drop_pending();

// Does the work now or later, or records it.
template <class Work>
CUresult submit(CUstream handle, Work work) {
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult error = refuse_submission(*stream)) return error;
  if (stream->capture) return record(*stream, std::move(work));
  if (defers(*stream)) return leave_for_later(*stream, std::move(work));
  if (stream->legacy)
    if (CUresult error = drain_blocking()) return error;
  return work();
}

}  // namespace emulator
