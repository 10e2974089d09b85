// wgmma: matrix products of a warpgroup, which read shared memory and change registers some time before the wait for
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../device/contract.h"

namespace emulator {

// The products of one warp: of each it makes 16 of the 64 rows, as hardware does, with no warp waiting for another.
class MatrixProducts {
 public:
  // What is multiplied: its size, and the value of its bits.
  struct Number {
    int bytes;
    float (*value)(uint32_t);
  };
  // All lanes have come, with these parts.
  void issue(EmulatorWgmma *const *parts, const Number &number);
  void fence() { fenced_ = true; }
  void commit() { committed_++; }
  void wait(unsigned groups_left);
  void perhaps_complete_some() {
    if (!pending_.empty()) complete_some();
  }
  void forget();

 private:
  // Registers that products under way will change: nobody may use them, so they hold poison, and the sums are here.
  struct Sums {
    float *registers[32];
    int count;
    std::vector<float> values;
  };
  struct Product {
    EmulatorWgmma how;
    // Of each lane: where they are, which is read when the product is made, and what they were when it was asked for.
    const unsigned *a_registers[32];
    unsigned a_values[32][4];
    Number number;
    unsigned group;
    std::shared_ptr<Sums> sums;
  };
  std::shared_ptr<Sums> hide(EmulatorWgmma *const *parts);
  void show_finished();
  void complete_first();
  void complete_some();

  std::vector<Product> pending_;
  std::vector<std::shared_ptr<Sums>> sums_;
  unsigned committed_ = 0;
  bool fenced_ = false;
};

}  // namespace emulator
