#include "bulk_copy.h"

#include <algorithm>
#include <cstring>

#include "mbarrier.h"
#include "scheduler.h"

#define DEVICE_API extern "C" __attribute__((visibility("default")))

namespace emulator {

CopyEngine copy_engine;

namespace {

constexpr unsigned box_alignment = 128, piece_bytes = 16;
constexpr unsigned char not_there = 0xFF;

unsigned lane_of(const Thread &thread) { return thread.id % warp_size; }
unsigned warp_of(const Thread &thread) { return thread.id / warp_size; }

// The box that an instruction names, checked as far as it can be now.
Box box_of(const void *map, const void *shared, const int *at, int count, const char *file, int line) {
  Box box;
  memcpy(&box.map, map, sizeof box.map);
  if (box.map.magic != EmulatorTensorMap::the_magic) gang.fail("no tensor map", file, line);
  if (reinterpret_cast<uintptr_t>(map) % 64) gang.fail("a tensor map that is not aligned to 64 bytes", file, line);
  if (box.map.rank != count)
    gang.fail("the tensor map has " + std::to_string(box.map.rank) + " dimensions", file, line);
  const unsigned inner = box.map.box[0] * box.map.element_bytes;
  const auto *strides = box.map.element_strides;
  const bool strided = std::any_of(strides, strides + count, [](int stride) { return stride != 1; });
  if (box.map.interleave || strided || (box.map.swizzle && inner != 16u << box.map.swizzle))
    gang.fail("interleaved or strided boxes, and swizzles that are wider than the box, are not modelled", file, line);
  std::copy(at, at + count, box.at);
  box.shared = gang.shared_address(shared);
  if (!box.shared || !gang.shared_at(*gang.current->block, box.shared, box.bytes()))
    gang.fail("a box that does not lie in shared memory", file, line);
  if (box.shared % box_alignment) gang.fail("a box that is not aligned to 128 bytes", file, line);
  return box;
}

// A run of bytes as a box of 16-byte elements.
Box run_of(const void *global, const void *shared, unsigned bytes, const char *file, int line) {
  if (bytes == 0 || bytes % piece_bytes || reinterpret_cast<uintptr_t>(global) % piece_bytes)
    gang.fail("a run that is no multiple of 16 bytes, or does not begin at one", file, line);
  Box box = {};
  box.map.magic = EmulatorTensorMap::the_magic;
  box.map.rank = 1;
  box.map.element_bytes = piece_bytes;
  box.map.address = const_cast<void *>(global);
  box.map.dims[0] = bytes / piece_bytes;
  box.map.box[0] = static_cast<unsigned short>(bytes / piece_bytes);
  box.shared = gang.shared_address(shared);
  if (box.shared % piece_bytes || !box.shared || !gang.shared_at(*gang.current->block, box.shared, bytes))
    gang.fail("a run that does not lie in shared memory, at a multiple of 16 bytes", file, line);
  return box;
}

// Numbers of 32 bits as TF32 has them, to the nearest. NVIDIA's documents leave open where those halfway between two go; on cards
// others have seen them go to the even one, and what is not finite stay as it is (triton-lang/triton, pull request 11751).
void round_to_tf32(unsigned char *numbers, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i += sizeof(uint32_t)) {
    uint32_t x;
    memcpy(&x, numbers + i, sizeof x);
    if ((x & 0x7F800000) == 0x7F800000) continue;
    x = (x + 0xFFF + (x >> 13 & 1)) & ~0x1FFFu;
    memcpy(numbers + i, &x, sizeof x);
  }
}

void check_fenced(const Box &box, const char *file, int line) {
  if (gang.current->block->unfenced.overlaps(box.shared, box.bytes()))
    gang.fail("stores what stmatrix wrote, and fence.proxy.async is missing", file, line);
}

}  // namespace

size_t Box::bytes() const {
  size_t count = map.element_bytes;
  for (unsigned d = 0; d < map.rank; d++) count *= map.box[d];
  return count;
}

unsigned Box::swizzled(size_t offset) const {
  const unsigned address = unsigned(shared + offset);
  // 16-byte chunks of a line of 32, 64 or 128 bytes change places by the number of the 128-byte line.
  const unsigned chunks = map.swizzle ? (1u << map.swizzle) - 1 : 0;
  return address ^ (address >> 7 & chunks) << 4;
}

template <class Move>
void Box::for_each_piece(Move move) const {
  const unsigned inner = map.box[0] * map.element_bytes;
  const size_t lines = bytes() / inner;
  for (size_t line = 0; line < lines; line++) {
    bool inside = true;
    size_t rest = line;
    char *start = static_cast<char *>(map.address);
    for (unsigned d = 1; d < map.rank; d++) {
      const long at_d = at[d] + long(rest % map.box[d]);
      rest /= map.box[d];
      inside = inside && at_d >= 0 && at_d < long(map.dims[d]);
      start += at_d * long(map.strides[d - 1]);
    }
    const long bytes_0 = long(map.dims[0]) * map.element_bytes;
    for (unsigned i = 0; i < inner;) {
      const long from = long(at[0]) * map.element_bytes + long(i);
      const bool whole = i % piece_bytes == 0 && from >= 0 && from + long(piece_bytes) <= bytes_0;
      const unsigned size = whole ? piece_bytes : map.element_bytes;
      const bool there = inside && from >= 0 && from < bytes_0;
      move(there ? start + from : nullptr, line * inner + i, size);
      i += size;
    }
  }
}

void CopyEngine::load(const Box &box, unsigned barrier, unsigned ranks, const char *file, int line) {
  for (unsigned left = ranks; left; left &= left - 1) {
    Block &into = gang.resident(unsigned(__builtin_ctz(left)), file, line);
    check_mbarrier(into, barrier, file, line);
    Load load = {box, &into, barrier};
    if (schedule.asynchrony == Schedule::Asynchrony::Eager) {
      complete(load);
      continue;
    }
    memset(gang.shared_at(into, box.shared, box.bytes()), not_there, box.bytes());
    pending_.push_back(load);
  }
}

void CopyEngine::complete(const Load &load) {
  const size_t bytes = load.box.bytes();
  unsigned char *shared = gang.shared_at(*load.into, load.box.shared, bytes);
  load.box.for_each_piece([&](const char *global, size_t offset, unsigned size) {
    unsigned char *to = shared + (load.box.swizzled(offset) - load.box.shared);
    if (global)
      memcpy(to, global, size);
    else
      memset(to, load.box.map.fill_nan ? not_there : 0, size);
    if (load.box.map.to_tf32) round_to_tf32(to, size);
  });
  complete_bytes(*load.into, load.barrier, unsigned(bytes));
}

// Every thread throws dice: a load takes about as long as a turn of them all.
void CopyEngine::complete_some() {
  for (size_t i = 0; i < pending_.size();) {
    if (schedule.below(unsigned(gang.threads()))) {
      i++;
      continue;
    }
    const Load load = pending_[i];
    pending_.erase(pending_.begin() + long(i));
    complete(load);
  }
}

bool CopyEngine::complete_one() {
  if (pending_.empty()) return false;
  const size_t which = schedule.shuffled ? schedule.below(unsigned(pending_.size())) : 0;
  const Load load = pending_[which];
  pending_.erase(pending_.begin() + long(which));
  complete(load);
  return true;
}

bool CopyEngine::loads_into(const Block &block) const {
  return std::any_of(pending_.begin(), pending_.end(), [&](const Load &load) { return load.into == &block; });
}

void BulkStores::issue(const Box &box, Kind kind) {
  pending_.push_back({box, kind, committed_, {}});
  if (schedule.asynchrony != Schedule::Asynchrony::Eager) return;
  read(pending_.back());
  write(pending_.back());
  pending_.pop_back();
}

void BulkStores::read(Store &store) {
  const size_t bytes = store.box.bytes();
  const unsigned char *shared = gang.shared_at(*gang.current->block, store.box.shared, bytes);
  store.values.assign(shared, shared + bytes);
}

void BulkStores::write(const Store &store) {
  store.box.for_each_piece([&](char *global, size_t offset, unsigned size) {
    const unsigned char *values = store.values.data() + (store.box.swizzled(offset) - store.box.shared);
    if (!global) return;
    if (store.kind == Kind::Store) {
      memcpy(global, values, size);
      return;
    }
    for (unsigned i = 0; i < size; i += sizeof(float)) {
      float sum, term;
      memcpy(&sum, global + i, sizeof sum);
      memcpy(&term, values + i, sizeof term);
      sum += term;
      memcpy(global + i, &sum, sizeof sum);
    }
  });
}

void BulkStores::wait_read(unsigned groups_left) {
  for (Store &store : pending_)
    if (store.group + groups_left < committed_ && store.values.empty()) read(store);
}

void BulkStores::wait(unsigned groups_left) {
  wait_read(groups_left);
  size_t kept = 0;
  for (Store &store : pending_) {
    if (store.group + groups_left < committed_)
      write(store);
    else
      std::swap(pending_[kept++], store);
  }
  pending_.resize(kept, {});
}

void BulkStores::complete_some() {
  size_t kept = 0;
  for (Store &store : pending_) {
    if (store.values.empty() && schedule.below(8) == 0) read(store);
    if (!store.values.empty() && schedule.below(8) == 0)
      write(store);
    else
      std::swap(pending_[kept++], store);
  }
  pending_.resize(kept, {});
}

const char *BulkStores::write_all() {
  for (const Store &store : pending_) {
    if (store.values.empty()) return "exits while the copy engine may still read shared memory";
    write(store);
  }
  pending_.clear();
  return nullptr;
}

void UnfencedWrites::fence(unsigned warp, unsigned lane) {
  for (Row &row : rows_)
    if (row.warp == warp) row.lanes &= ~(1u << lane);
  rows_.erase(std::remove_if(rows_.begin(), rows_.end(), [](const Row &row) { return row.lanes == 0; }), rows_.end());
}

bool UnfencedWrites::overlaps(unsigned address, size_t bytes) const {
  return std::any_of(rows_.begin(), rows_.end(),
                     [&](const Row &row) { return row.address + 16 > address && row.address < address + bytes; });
}

}  // namespace emulator

using namespace emulator;

DEVICE_API void emulator_tma_load(void *to, const void *map, void *barrier, unsigned ranks, const int *coordinates,
                                  int count, const char *file, int line) {
  gang.come_to("cp.async.bulk.tensor", 0, file, line);
  const Box box = box_of(map, to, coordinates, count, file, line);
  const unsigned own = 1u << gang.current->block->rank;
  copy_engine.load(box, gang.shared_address(barrier), ranks ? ranks : own, file, line);
}

DEVICE_API void emulator_tma_store(const void *map, const void *from, const int *coordinates, int count,
                                   const char *file, int line) {
  gang.come_to("cp.async.bulk.tensor", 0, file, line);
  const Box box = box_of(map, from, coordinates, count, file, line);
  check_fenced(box, file, line);
  gang.current->stores.issue(box, BulkStores::Kind::Store);
}

DEVICE_API void emulator_bulk_load(void *to, const void *from, unsigned bytes, void *barrier, const char *file, int line) {
  gang.come_to("cp.async.bulk", 0, file, line);
  const unsigned own = 1u << gang.current->block->rank;
  copy_engine.load(run_of(from, to, bytes, file, line), gang.shared_address(barrier), own, file, line);
}

DEVICE_API void emulator_bulk_store(void *to, const void *from, unsigned bytes, bool add, const char *file, int line) {
  gang.come_to("cp.async.bulk", 0, file, line);
  const auto kind = add ? BulkStores::Kind::AddF32 : BulkStores::Kind::Store;
  const Box run = run_of(to, from, bytes, file, line);
  check_fenced(run, file, line);
  if (gang.current->acquired) gang.fail("stores behind a flag, and fence.proxy.async.global is missing", file, line);
  gang.current->stores.issue(run, kind);
}

DEVICE_API void emulator_bulk_commit() { gang.current->stores.commit(); }
DEVICE_API void emulator_bulk_wait_read(unsigned groups_left) { gang.current->stores.wait_read(groups_left); }

DEVICE_API void emulator_bulk_wait(unsigned groups_left) { gang.current->stores.wait(groups_left); }

DEVICE_API void emulator_acquire() { gang.current->acquired = true; }
DEVICE_API void emulator_fence_proxy_async_global() { gang.current->acquired = false; }

DEVICE_API void emulator_fence_proxy_async() {
  Thread &self = *gang.current;
  self.block->unfenced.fence(warp_of(self), lane_of(self));
}
