// The contract between a compiled kernel and the stand-in driver that runs it: what the driver exports to kernels
// (the coordinates of the thread that runs, and the calls at which a thread may wait), and how a kernel describes
// itself to the driver. Both sides include this file; it may include no other.
#pragma once

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

// Where a call stands in the kernel's source: a default argument is evaluated in the caller's line.
#define EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// A kernel as the driver sees it. `call` reads the arguments through the pointers that cuLaunchKernel was given.
struct EmulatorKernel {
  const char *name;
  void (*call)(void **arguments);
  unsigned argument_count;
  const unsigned long *argument_sizes;
  unsigned max_threads;  // of __launch_bounds__, or 1024
  dim3 cluster;          // of __cluster_dims__, or (0, 0, 0)
};

// An operation in which several threads of a warp take part. Each brings a pointer to its own part, which stays valid
// until all have come; then `complete` runs once for all of them. `lanes` has a bit for each that came.
struct EmulatorCollective {
  const char *name;
  void (*complete)(void **parts, unsigned lanes);
};

// What a barrier with a vote gives to each thread.
struct EmulatorVotes {
  int count, any, all;
};

extern "C" {
// One kernel runs at a time and one of its threads at a time, so its coordinates are plain variables.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// The lane of the running thread in its warp, and the lanes of that warp that have not exited.
unsigned emulator_lane();
unsigned emulator_active_lanes();
// The block's dynamic shared memory.
void *emulator_dynamic_shared();
// Waits until every thread in `mask` that has not exited has come to the same operation.
void emulator_warp(unsigned mask, const EmulatorCollective *operation, void *part, const char *file, int line);
// Waits at barrier `id` (0…15) of the block for `threads` threads in all; 0 means every thread that has not exited.
EmulatorVotes emulator_barrier(unsigned id, unsigned threads, int vote, const char *what, const char *file, int line);
// Arrives at a barrier without waiting.
void emulator_barrier_arrive(unsigned id, unsigned threads, const char *file, int line);
// Lets other threads run: called wherever a thread may spin on memory.
void emulator_yield();
// Ends the launch with an error that quotes the message.
[[noreturn]] void emulator_fail(const char *message, const char *file, int line);

// Asynchronous copies into shared memory; bytes from `bytes` to `size` become zero.
void emulator_copy_async(void *to, const void *from, unsigned size, unsigned bytes, const char *file, int line);
void emulator_copy_commit();
void emulator_copy_wait(unsigned groups_left);

// An address in the block's shared memory, as 32 bits.
unsigned emulator_shared_address(const void *p, const char *file, int line);
// Clusters: this block's rank, and the barrier among all threads.
unsigned emulator_cluster_rank();
void emulator_cluster_arrive(const char *file, int line);
void emulator_cluster_wait(const char *file, int line);
// Barriers in shared memory. `rank` is a block of the cluster.
void emulator_mbarrier_init(void *barrier, unsigned arrivals, const char *file, int line);
void emulator_mbarrier_fence();
void emulator_mbarrier_arrive(void *barrier, unsigned bytes, const char *file, int line);
void emulator_mbarrier_arrive_cluster(void *barrier, unsigned rank, const char *file, int line);
void emulator_mbarrier_wait(void *barrier, unsigned parity, const char *file, int line);
// The copy engine: boxes at `coordinates` from and to shared memory. A load goes to the blocks whose ranks are set, and
// with 0 to this one.
void emulator_tma_load(void *to, const void *map, void *barrier, unsigned ranks, const int *coordinates, int count,
                       const char *file, int line);
void emulator_tma_store(const void *map, const void *from, const int *coordinates, int count, const char *file,
                        int line);
void emulator_bulk_commit();
void emulator_bulk_wait_read(unsigned groups_left);
void emulator_bulk_wait(unsigned groups_left);
// The same of runs of bytes; numbers of 32 bits are stored or added.
void emulator_bulk_load(void *to, const void *from, unsigned bytes, void *barrier, const char *file, int line);
void emulator_bulk_store(void *to, const void *from, unsigned bytes, bool add, const char *file, int line);
void emulator_fence_proxy_async();
// This thread has read a flag with acquire; and what it then knows holds for the copy engine, too.
void emulator_acquire();
void emulator_fence_proxy_async_global();
}

// What a lane brings to the matrix instructions; ptx.cuh says how fragments lie.
struct EmulatorLdmatrix {
  unsigned *fragments;
  const void *row;
  int matrices;
  bool transposed;
};
struct EmulatorMma {
  float *d;
  const unsigned *a, *b;
};
struct EmulatorMmaS8 {
  int *d;
  const unsigned *a, *b;
};
struct EmulatorMmaF64 {
  double *d;
  double a, b;
};
struct EmulatorStmatrix {
  const unsigned *fragments;
  void *row;
};
// Matrices by descriptors, or `a` in registers.
struct EmulatorWgmma {
  float *d;
  int columns;
  const unsigned *a_registers;
  unsigned long long a, b;
  bool transpose_a, transpose_b, accumulate;
};
extern "C" {
extern const EmulatorCollective emulator_stmatrix, emulator_wgmma_bf16, emulator_wgmma_f16,
    emulator_wgmma_tf32;
// Their parts are null, and a number of groups.
extern const EmulatorCollective emulator_wgmma_fence, emulator_wgmma_commit, emulator_wgmma_wait;
extern const EmulatorCollective emulator_ldmatrix, emulator_mma_m16n8k16_bf16, emulator_mma_m16n8k16_f16,
    emulator_mma_m16n8k8_tf32, emulator_mma_m16n8k32_s8, emulator_mma_m8n8k4_f64;
// Conversions of 16-bit numbers, to nearest, ties to even.
float emulator_f16_to_f32(unsigned short bits);
unsigned short emulator_f32_to_f16(float x);
unsigned short emulator_f32_to_bf16(float x);
}

// What cuTensorMapEncodeTiled writes: the tensor in global memory and the box that one TMA instruction moves.
struct EmulatorTensorMap {
  static constexpr unsigned the_magic = 0x7454616D;
  unsigned magic;
  unsigned char rank, element_bytes, interleave, swizzle;
  void *address;
  unsigned long dims[5], strides[4];  // strides in bytes, from the second dimension on
  unsigned short box[5];
  unsigned char element_strides[5];
  bool fill_nan, to_tf32;
};
static_assert(sizeof(EmulatorTensorMap) <= 128);
