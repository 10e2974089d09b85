// The copy engine (TMA): boxes of tensors between global and shared memory.
#pragma once

#include <cstddef>
#include <vector>

#include "../device/contract.h"

namespace emulator {

struct Block;

// A box of a tensor, and where it lies in shared memory.
struct Box {
  EmulatorTensorMap map;
  int at[5];
  unsigned shared;  // address

  size_t bytes() const;
  // Calls `move(global, offset, bytes)` for all parts of the box, of 16 bytes or an element; global is null outside the
  // tensor.
  template <class Move>
  void for_each_piece(Move move) const;
  // Where the byte at this offset of the box lies: swizzled.
  unsigned swizzled(size_t offset) const;
};

// Loads. An mbarrier says when one is done, so the schedule lets it happen at any time before that: when it is asked
// for, when the dice say so, or when nothing else can.
class CopyEngine {
 public:
  void load(const Box &box, unsigned barrier, unsigned ranks, const char *file, int line);
  void perhaps_complete_some() {
    if (!pending_.empty()) complete_some();
  }
  // False if there is nothing to do.
  bool complete_one();
  // Is anything still on its way there?
  bool loads_into(const Block &block) const;
  void forget() { pending_.clear(); }

 private:
  struct Load {
    Box box;
    Block *into;
    unsigned barrier;
  };
  void complete_some();
  static void complete(const Load &load);

  std::vector<Load> pending_;
};
extern CopyEngine copy_engine;

// Stores of one thread, in groups. A store first reads shared memory and then writes global memory, or adds to it, both as late
// as the schedule likes.
class BulkStores {
 public:
  enum class Kind { Store, AddF32 };
  void issue(const Box &box, Kind kind);
  void commit() { committed_++; }
  // Until at most so many of the latest groups have not read, or not written.
  void wait_read(unsigned groups_left);
  void wait(unsigned groups_left);
  void perhaps_complete_some() {
    if (!pending_.empty()) complete_some();
  }
  // The thread exits: the rest is written. What is wrong, or null.
  const char *finish() { return pending_.empty() ? nullptr : write_all(); }
  void forget() {
    pending_.clear();
    committed_ = 0;
  }

 private:
  struct Store {
    Box box;
    Kind kind;
    unsigned group;
    std::vector<unsigned char> values;  // once it has read them
  };
  void complete_some();
  const char *write_all();
  static void read(Store &store);
  static void write(const Store &store);

  std::vector<Store> pending_;
  unsigned committed_ = 0;
};

// What stmatrix has written to a block's shared memory and the copy engine may not see yet: each row until the lanes
// that wrote it have called fence.proxy.async. (Ordinary stores are not seen here.)
class UnfencedWrites {
 public:
  void add(unsigned address, unsigned warp, unsigned lanes) { rows_.push_back({address, warp, lanes}); }
  void fence(unsigned warp, unsigned lane);
  bool overlaps(unsigned address, size_t bytes) const;
  void forget() { rows_.clear(); }

 private:
  struct Row {
    unsigned address, warp, lanes;
  };
  std::vector<Row> rows_;
};

}  // namespace emulator
