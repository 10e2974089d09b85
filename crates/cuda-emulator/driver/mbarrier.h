// Barriers in shared memory, as kernels/hopper.cuh describes them.
#pragma once

namespace emulator {

struct Block;

// The copy engine has brought bytes for the barrier at this shared address of a block.
void complete_bytes(Block &block, unsigned barrier, unsigned bytes);
// Fails unless there is a barrier that the copy engine and other blocks may use.
void check_mbarrier(Block &block, unsigned barrier, const char *file, int line);
void forget_mbarriers();

}  // namespace emulator
