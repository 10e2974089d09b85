// Captures, and the graphs that they become.
#include <algorithm>

#include "memory.h"
#include "stream.h"

struct Graph {
  std::shared_ptr<emulator::Recording> recording;
};
struct GraphExec {
  std::shared_ptr<emulator::Recording> recording;
};

namespace emulator {

namespace {
std::vector<std::shared_ptr<Capture>> captures;  // that are active
Handles<Graph> graphs;
Handles<GraphExec> executables;
}  // namespace

Recording::~Recording() {
  for (CUdeviceptr address : memory) release_graph_memory(address);
}

CUresult Recording::play() const {
  for (const Operation &operation : operations)
    if (CUresult error = operation()) return error;
  return CUDA_SUCCESS;
}

void join(Stream &stream, const std::shared_ptr<Capture> &capture) {
  stream.capture = capture;
  stream.before.clear();
  stream.submitted = 0;
  capture->streams.push_back(&stream);
}

CUresult end(Capture &capture) {
  capture.active = false;
  CUresult result = capture.invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  for (Stream *stream : capture.streams)
    if (result == CUDA_SUCCESS && capture.origin->before[stream] < stream->submitted)
      result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  captures.erase(std::find_if(captures.begin(), captures.end(), [&](auto &c) { return c.get() == &capture; }));
  for (Stream *stream : capture.streams) stream->capture = nullptr;
  return result;
}

void merge(Clock &into, const Clock &from) {
  for (const auto &[stream, count] : from) into[stream] = std::max(into[stream], count);
}

CUresult invalidate(Capture &capture, CUresult error) {
  capture.invalidated = true;
  return error;
}

CUresult refuse_while_capturing() {
  for (const auto &capture : captures) {
    bool concerned = capture->mode == CAPTURE_GLOBAL ||
                     (capture->mode == CAPTURE_THREAD_LOCAL && capture->thread == std::this_thread::get_id());
    if (concerned) return invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  }
  return CUDA_SUCCESS;
}

CUresult refuse_submission(Stream &stream) {
  if (stream.capture && stream.capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.legacy)
    for (const auto &capture : captures)
      if (capture->origin->blocking) return invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  return CUDA_SUCCESS;
}

CUresult record(Stream &stream, Operation operation) {
  stream.capture->recording->operations.push_back(std::move(operation));
  stream.before[&stream] = ++stream.submitted;
  return CUDA_SUCCESS;
}

}  // namespace emulator

using namespace emulator;

DRIVER_API cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (mode > CAPTURE_RELAXED) return CUDA_ERROR_INVALID_VALUE;
  if (stream->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  join(*stream, capture);
  captures.push_back(std::move(capture));
  return CUDA_SUCCESS;
}

DRIVER_API cuStreamEndCapture(CUstream handle, CUgraph *graph) {
  Entry entry;
  *graph = nullptr;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  std::shared_ptr<Capture> capture = stream->capture;
  if (capture->origin != stream) return invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
  if (capture->mode != CAPTURE_RELAXED && capture->thread != std::this_thread::get_id())
    return invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
  if (CUresult error = end(*capture)) return error;
  if (!entry) return entry.error;
  *graph = graphs.add(new Graph{capture->recording});
  return CUDA_SUCCESS;
}

DRIVER_API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  *status = !stream->capture ? CAPTURE_NONE : stream->capture->invalidated ? CAPTURE_INVALIDATED : CAPTURE_ACTIVE;
  return CUDA_SUCCESS;
}

DRIVER_API cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, unsigned long long) {
  Entry entry;
  if (!entry) return entry.error;
  if (!graphs.has(graph)) return CUDA_ERROR_INVALID_HANDLE;
  *executable = executables.add(new GraphExec{graph->recording});
  return CUDA_SUCCESS;
}

DRIVER_API cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  Entry entry;
  if (!entry) return entry.error;
  if (!executables.has(executable)) return CUDA_ERROR_INVALID_HANDLE;
  return submit(stream, [recording = executable->recording] { return recording->play(); });
}

DRIVER_API cuGraphUpload(CUgraphExec executable, CUstream stream) {
  Entry entry;
  if (!entry) return entry.error;
  return executables.has(executable) && find_stream(stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API cuGraphDestroy(CUgraph graph) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  return graphs.destroy(graph) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API cuGraphExecDestroy(CUgraphExec executable) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  return executables.destroy(executable) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
