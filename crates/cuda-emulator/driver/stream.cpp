// Streams and events.
#include "stream.h"

#include <algorithm>

#include "scheduler.h"

namespace emulator {

namespace {
Handles<Stream> streams;
std::vector<Stream *> in_order;  // of their creation
Handles<Event> events;
Stream legacy{true, true, {}, nullptr, {}, 0};
const CUstream legacy_handle = reinterpret_cast<CUstream>(1), per_thread_handle = reinterpret_cast<CUstream>(2);

// Does the next thing that a stream has to do.
CUresult advance(Stream &stream) {
  Operation next = std::move(stream.pending.front());
  stream.pending.pop_front();
  return next();
}
}  // namespace

Stream *find_stream(CUstream handle) {
  if (!handle || handle == legacy_handle || handle == per_thread_handle) return &legacy;
  return streams.has(handle) ? handle : nullptr;
}

bool defers(const Stream &stream) { return schedule.asynchrony != Schedule::Asynchrony::Eager && !stream.legacy; }

CUresult leave_for_later(Stream &stream, Operation operation) {
  stream.pending.push_back(std::move(operation));
  while (schedule.asynchrony == Schedule::Asynchrony::Random && schedule.below(2)) {
    Stream &lucky = *in_order[schedule.below(unsigned(in_order.size()))];
    if (lucky.pending.empty()) continue;
    if (CUresult error = advance(lucky)) return error;
  }
  return CUDA_SUCCESS;
}

CUresult drain(Stream &stream) {
  while (!stream.pending.empty())
    if (CUresult error = advance(stream)) return error;
  return stream.legacy ? drain_blocking() : CUDA_SUCCESS;
}

CUresult drain_blocking() {
  for (Stream *stream : in_order)
    if (stream->blocking)
      if (CUresult error = drain(*stream)) return error;
  return CUDA_SUCCESS;
}

CUresult drain_all() {
  for (Stream *stream : in_order)
    if (CUresult error = drain(*stream)) return error;
  return CUDA_SUCCESS;
}

namespace {
// A stream that is gone, or whose work was dropped after a failure, has nothing left to do.
CUresult approach(const Moment &moment, bool *nothing_left) {
  Stream *stream = find_stream(moment.stream);
  *nothing_left = !stream || stream->pending.empty();
  return *nothing_left ? CUDA_SUCCESS : advance(*stream);
}
}  // namespace

CUresult reach(const Moment &moment) {
  for (bool nothing_left = false; !moment.passed && !nothing_left;)
    if (CUresult error = approach(moment, &nothing_left)) return error;
  return CUDA_SUCCESS;
}

void drop_pending() {
  for (Stream *stream : in_order) stream->pending.clear();
}

}  // namespace emulator

using namespace emulator;

DRIVER_API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) {
  Entry entry;
  if (!entry) return entry.error;
  if (flags & ~CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  *stream = streams.add(new Stream{!(flags & CU_STREAM_NON_BLOCKING), false, {}, nullptr, {}, 0});
  in_order.push_back(*stream);
  return CUDA_SUCCESS;
}
DRIVER_API cuStreamCreate(CUstream *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

DRIVER_API cuStreamDestroy_v2(CUstream stream) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  if (!streams.has(stream)) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    // A captured stream takes its whole capture with it.
    std::shared_ptr<Capture> capture = stream->capture;
    capture->invalidated = true;
    end(*capture);
  }
  // The real one returns at once and lets the work finish.
  CUresult result = drain(*stream);
  in_order.erase(std::find(in_order.begin(), in_order.end(), stream));
  streams.destroy(stream);
  return result;
}

DRIVER_API cuStreamSynchronize(CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (CUresult error = refuse_submission(*stream)) return error;
  synchronizations++;
  return drain(*stream);
}

DRIVER_API cuStreamQuery(CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (stream->pending.empty()) return CUDA_SUCCESS;
  CUresult error = advance(*stream);  // whoever asks again and again sees the end
  return error ? error : CUDA_ERROR_NOT_READY;
}

DRIVER_API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream || !events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->capture) {
    if (!event->moment) return CUDA_SUCCESS;
    if (stream->capture) return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    return submit(handle, [moment = event->moment] { return reach(*moment); });
  }
  if (!event->capture->active) return CUDA_ERROR_INVALID_VALUE;
  if (stream->legacy) return invalidate(*event->capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
  if (!stream->capture) join(*stream, event->capture);
  if (stream->capture != event->capture) {
    invalidate(*stream->capture, CUDA_SUCCESS);
    return invalidate(*event->capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
  }
  merge(stream->before, event->before);
  return CUDA_SUCCESS;
}

DRIVER_API cuEventCreate(CUevent *event, unsigned flags) {
  Entry entry;
  if (!entry) return entry.error;
  *event = events.add(new Event{!(flags & CU_EVENT_DISABLE_TIMING), nullptr, nullptr, {}});
  return CUDA_SUCCESS;
}

DRIVER_API cuEventDestroy_v2(CUevent event) {
  Entry entry(Entry::Init);
  if (!entry) return entry.error;
  return events.destroy(event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

DRIVER_API cuEventRecord(CUevent event, CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream || !events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (CUresult error = refuse_submission(*stream)) return error;
  event->capture = stream->capture;
  event->before = stream->before;
  if (stream->capture) return CUDA_SUCCESS;
  event->moment = std::make_shared<Moment>(Moment{handle});
  return submit(handle, [moment = event->moment] {
    moment->time = std::chrono::steady_clock::now();
    moment->passed = true;
    return CUDA_SUCCESS;
  });
}

DRIVER_API cuEventSynchronize(CUevent event) {
  Entry entry;
  if (!entry) return entry.error;
  if (!events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) return invalidate(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
  synchronizations++;
  return event->moment ? reach(*event->moment) : CUDA_SUCCESS;
}

DRIVER_API cuEventQuery(CUevent event) {
  Entry entry;
  if (!entry) return entry.error;
  if (!events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) return invalidate(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
  if (!event->moment || event->moment->passed) return CUDA_SUCCESS;
  bool nothing_left;
  CUresult error = approach(*event->moment, &nothing_left);
  return error ? error : CUDA_ERROR_NOT_READY;
}

DRIVER_API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  Entry entry;
  if (!entry) return entry.error;
  for (CUevent event : {start, end}) {
    if (!events.has(event) || !event->timing) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
    if (!event->moment) return CUDA_ERROR_INVALID_HANDLE;
    if (!event->moment->passed) return CUDA_ERROR_NOT_READY;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->moment->time - start->moment->time).count();
  return CUDA_SUCCESS;
}
DRIVER_API cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
