#include "wgmma.h"

#include <cstring>

#include "scheduler.h"

#define DEVICE_API extern "C" __attribute__((visibility("default")))

namespace emulator {

namespace {

// Of K a product takes so many bytes, two chunks; `most_depth` is that in numbers of 16 bits.
constexpr int rows = 16, depth_bytes = 32, most_depth = 16, most_columns = 256, chunk_bytes = 16;
size_t wgmma_count = 0;

[[noreturn]] void fail_here(const std::string &message) {
  gang.fail(message, gang.current->file, gang.current->line);
}

// A matrix in shared memory, as its descriptor says; "rows" are those of A and the columns of B.
class Operand {
 public:
  Operand(uint64_t descriptor, bool transposed)
      : start_(unsigned(descriptor & 0x3FFF) << 4),
        leading_(unsigned(descriptor >> 16 & 0x3FFF) << 4),
        stride_(unsigned(descriptor >> 32 & 0x3FFF) << 4),
        // 1, 2, 3 stand for 128, 64, 32 bytes.
        chunks_(descriptor >> 62 ? 16u >> (descriptor >> 62) : 1),
        transposed_(transposed) {
    if (descriptor >> 49 & 7 || start_ >> 7 & (chunks_ - 1))
      fail_here("a matrix that does not begin where its swizzle does");
  }

  // Calls `set(row, k, number)` for `count` rows from `first` on.
  template <class Set>
  void read(int first, int count, const MatrixProducts::Number &number, Set set) const {
    // A chunk is eight numbers (of 16 bits) along K of one row, or at one place of K those of eight rows.
    const int chunk = chunk_bytes / number.bytes, depth = depth_bytes / number.bytes;
    const int chunks_along = transposed_ ? count / chunk : depth / chunk, lines = transposed_ ? depth : count;
    for (int line = 0; line < lines; line++)
      for (int c = 0; c < chunks_along; c++) {
        const unsigned address = transposed_ ? place(first / chunk + c, line) : along_k(first + line, c);
        const unsigned char *from = gang.shared_at(*gang.current->block, address, chunk_bytes);
        if (!from) fail_here("a matrix that does not lie in shared memory");
        if (gang.current->block->unfenced.overlaps(address, chunk_bytes))
          fail_here("multiplies what stmatrix wrote, and fence.proxy.async is missing");
        for (int e = 0; e < chunk; e++) {
          uint32_t bits = 0;
          memcpy(&bits, from + e * number.bytes, size_t(number.bytes));
          if (transposed_)
            set(c * chunk + e, line, number.value(bits));
          else
            set(line, c * chunk + e, number.value(bits));
        }
      }
  }

 private:
  unsigned swizzled(unsigned address) const { return address ^ (address >> 7 & (chunks_ - 1)) << 4; }
  // The layouts are in the PTX manual under "Shared Memory Matrix Layout".
  unsigned along_k(int row, int c) const {
    const unsigned line = unsigned(row % 8) * chunks_ * 16 + unsigned(row / 8) * stride_;
    return swizzled(start_ + line + unsigned(c) * (chunks_ == 1 ? leading_ : 16));
  }
  unsigned place(int eight_rows, int k) const {
    const unsigned n = unsigned(eight_rows), line = unsigned(k % 8) * chunks_ * 16, groups = unsigned(k / 8);
    if (chunks_ == 1) return start_ + n * stride_ + line + groups * leading_;
    return swizzled(start_ + n % chunks_ * 16 + n / chunks_ * leading_ + line + groups * stride_);
  }

  unsigned start_, leading_, stride_, chunks_;
  bool transposed_;
};

// d [16, columns] += a [16, depth] b [depth, columns].
#if defined(__x86_64__)
__attribute__((optimize("O3"), target_clones("default", "avx2")))
#endif
void multiply(float (*d)[most_columns], const float (&a)[rows][most_depth], const float (*b)[most_columns], int depth,
              int columns) {
  for (int i = 0; i < rows; i++)
    for (int k = 0; k < depth; k++)
      for (int j = 0; j < columns; j++) d[i][j] += a[i][k] * b[k][j];
}

// Calls `use(lane, register, row, column)` for all registers of the sums.
template <class Use>
void for_each_sum(int count, Use use) {
  for (int lane = 0; lane < 32; lane++)
    for (int i = 0; i < count; i++)
      use(lane, i, lane / 4 + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2 + i % 2);
}

}  // namespace

void MatrixProducts::issue(EmulatorWgmma *const *parts, const Number &number) {
  const EmulatorWgmma &first = *parts[0];
  if (!fenced_) fail_here("wgmma after a wait, or as the first, without wgmma.fence");
  for (int lane = 1; lane < 32; lane++)
    if (parts[lane]->b != first.b || parts[lane]->a != first.a || parts[lane]->accumulate != first.accumulate)
      fail_here("lanes disagree on what wgmma multiplies");
  Product product = {first, {}, {}, number, committed_, hide(parts)};
  if (first.a_registers)
    for (int lane = 0; lane < 32; lane++) {
      product.a_registers[lane] = parts[lane]->a_registers;
      memcpy(product.a_values[lane], parts[lane]->a_registers, 16);
    }
  pending_.push_back(product);
  wgmma_count++;
  if (schedule.asynchrony == Schedule::Asynchrony::Eager) complete_first(), show_finished();
}

std::shared_ptr<MatrixProducts::Sums> MatrixProducts::hide(EmulatorWgmma *const *parts) {
  for (const auto &sums : sums_)
    if (sums->registers[0] == parts[0]->d) return sums;
  auto sums = std::make_shared<Sums>();
  sums->count = parts[0]->columns / 2;
  for (int lane = 0; lane < 32; lane++) {
    float *d = sums->registers[lane] = parts[lane]->d;
    sums->values.insert(sums->values.end(), d, d + sums->count);
    memset(d, 0xFF, size_t(sums->count) * sizeof *d);
  }
  sums_.push_back(sums);
  return sums;
}

// Registers that no product will change any more can be seen again.
void MatrixProducts::show_finished() {
  size_t kept = 0;
  for (auto &sums : sums_) {
    if (sums.use_count() > 1) {
      std::swap(sums_[kept++], sums);
      continue;
    }
    const size_t count = size_t(sums->count);
    for (size_t lane = 0; lane < 32; lane++)
      memcpy(sums->registers[lane], &sums->values[lane * count], count * sizeof(float));
  }
  sums_.resize(kept);
}

void MatrixProducts::complete_first() {
  const Product product = pending_.front();
  pending_.erase(pending_.begin());
  const EmulatorWgmma &how = product.how;
  static float a[rows][most_depth], b[most_depth][most_columns], d[rows][most_columns];
  if (how.a_registers) {
    for (int lane = 0; lane < 32; lane++) {
      if (memcmp(product.a_registers[lane], product.a_values[lane], 16))
        fail_here("registers of a left operand have other contents before wgmma is done with them");
      for (int i = 0; i < 8; i++)
        a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] =
            product.number.value(product.a_values[lane][i / 2] >> 16 * (i % 2) & 0xFFFF);
    }
  } else {
    const int warp = int(gang.current->id / warp_size % 4);
    const Operand operand(how.a, how.transpose_a);
    operand.read(warp * rows, rows, product.number, [](int row, int k, float x) { a[row][k] = x; });
  }
  const Operand operand(how.b, how.transpose_b);
  operand.read(0, how.columns, product.number, [](int column, int k, float x) { b[k][column] = x; });
  Sums &sums = *product.sums;
  auto value = [&](int lane, int i) -> float & { return sums.values[size_t(lane * sums.count + i)]; };
  for_each_sum(sums.count, [&](int lane, int i, int row, int column) {
    d[row][column] = how.accumulate ? value(lane, i) : 0;
  });
  multiply(d, a, b, depth_bytes / product.number.bytes, how.columns);
  for_each_sum(sums.count, [&](int lane, int i, int row, int column) { value(lane, i) = d[row][column]; });
}

void MatrixProducts::wait(unsigned groups_left) {
  while (!pending_.empty() && pending_.front().group + groups_left < committed_) complete_first();
  show_finished();
  fenced_ = false;
}

void MatrixProducts::complete_some() {
  while (!pending_.empty() && schedule.below(8) == 0) complete_first();
}

void MatrixProducts::forget() {
  pending_.clear();
  sums_.clear();
  committed_ = 0;
  fenced_ = false;
}

namespace {

float from_bf16(uint32_t bits) {
  bits <<= 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
float from_f16(uint32_t bits) { return emulator_f16_to_f32(uint16_t(bits)); }
// The tensor cores of a warpgroup do not look at the last bits of f32.
float from_tf32(uint32_t bits) {
  bits &= ~0x1FFFu;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
constexpr MatrixProducts::Number bf16 = {2, from_bf16}, f16 = {2, from_f16}, tf32 = {4, from_tf32};

MatrixProducts &products() { return gang.current->block->warps[gang.current->id / warp_size].products; }

template <void (*act)(void **parts)>
void collective(void **parts, unsigned lanes) {
  if (lanes != ~0u) fail_here("wgmma needs all lanes of the warp");
  act(parts);
}
template <const MatrixProducts::Number &number>
void issue(void **parts) {
  products().issue(reinterpret_cast<EmulatorWgmma *const *>(parts), number);
}
void fence(void **) { products().fence(); }
void commit(void **) { products().commit(); }
void wait(void **parts) { products().wait(*static_cast<unsigned *>(parts[0])); }

}  // namespace
}  // namespace emulator

using namespace emulator;

// How many products warpgroups have asked for, counted for each of their warps.
DEVICE_API size_t emulator_count_wgmma() { return wgmma_count; }

DEVICE_API const EmulatorCollective emulator_wgmma_bf16 = {"wgmma.mma_async (bf16)", collective<issue<bf16>>};
DEVICE_API const EmulatorCollective emulator_wgmma_f16 = {"wgmma.mma_async (f16)", collective<issue<f16>>};
DEVICE_API const EmulatorCollective emulator_wgmma_tf32 = {"wgmma.mma_async (tf32)", collective<issue<tf32>>};
DEVICE_API const EmulatorCollective emulator_wgmma_fence = {"wgmma.fence", collective<fence>};
DEVICE_API const EmulatorCollective emulator_wgmma_commit = {"wgmma.commit_group", collective<commit>};
DEVICE_API const EmulatorCollective emulator_wgmma_wait = {"wgmma.wait_group", collective<wait>};
