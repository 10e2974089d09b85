// Streams and events.
#include "stream.h"

namespace emulator {

namespace {
Handles<Stream> streams;
Handles<Event> events;
Stream legacy{true, true, nullptr, {}, 0};
const CUstream legacy_handle = reinterpret_cast<CUstream>(1), per_thread_handle = reinterpret_cast<CUstream>(2);
}  // namespace

Stream *find_stream(CUstream handle) {
  if (!handle || handle == legacy_handle || handle == per_thread_handle) return &legacy;
  return streams.has(handle) ? handle : nullptr;
}

}  // namespace emulator

using namespace emulator;

DRIVER_API cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) {
  Entry entry;
  if (!entry) return entry.error;
  if (flags & ~CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
  *stream = streams.add(new Stream{!(flags & CU_STREAM_NON_BLOCKING), false, nullptr, {}, 0});
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
  streams.destroy(stream);
  return CUDA_SUCCESS;
}

DRIVER_API cuStreamSynchronize(CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  if (CUresult error = refuse_submission(*stream)) return error;
  counts.synchronizations++;
  return CUDA_SUCCESS;
}

DRIVER_API cuStreamQuery(CUstream handle) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
  return CUDA_SUCCESS;
}

DRIVER_API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned) {
  Entry entry;
  if (!entry) return entry.error;
  Stream *stream = find_stream(handle);
  if (!stream || !events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->capture) {
    if (stream->capture && event->recorded)
      return invalidate(*stream->capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    return CUDA_SUCCESS;
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
  *event = events.add(new Event{!(flags & CU_EVENT_DISABLE_TIMING), false, {}, nullptr, {}});
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
  event->recorded = true;
  event->capture = stream->capture;
  event->before = stream->before;
  event->time = std::chrono::steady_clock::now();
  return CUDA_SUCCESS;
}

DRIVER_API cuEventSynchronize(CUevent event) {
  Entry entry;
  if (!entry) return entry.error;
  if (!events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) return invalidate(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
  counts.synchronizations++;
  return CUDA_SUCCESS;
}

DRIVER_API cuEventQuery(CUevent event) {
  Entry entry;
  if (!entry) return entry.error;
  if (!events.has(event)) return CUDA_ERROR_INVALID_HANDLE;
  if (event->capture) return invalidate(*event->capture, CUDA_ERROR_CAPTURED_EVENT);
  return CUDA_SUCCESS;
}

DRIVER_API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
  Entry entry;
  if (!entry) return entry.error;
  for (CUevent event : {start, end}) {
    if (!events.has(event) || !event->timing || !event->recorded) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return CUDA_ERROR_CAPTURED_EVENT;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return CUDA_SUCCESS;
}
DRIVER_API cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime(milliseconds, start, end);
}
