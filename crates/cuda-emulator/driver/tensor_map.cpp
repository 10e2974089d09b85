// cuTensorMapEncodeTiled: the checks of the real one, and a descriptor that the emulator can read.
#include <cstring>

#include "../device/contract.h"
#include "driver.h"

using namespace emulator;

namespace {

enum Interleave : unsigned { interleave_none = 0, interleave_16 = 1, interleave_32 = 2 };

// Indexed by CUtensorMapDataType: u8, u16, u32, i32, u64, i64, f16, f32, f64, bf16, f32 ftz, tf32, tf32 ftz.
constexpr unsigned element_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
constexpr unsigned first_float_type = 6, tf32_type = 11;

}  // namespace

DRIVER_API cuTensorMapEncodeTiled(EmulatorTensorMap *map, unsigned type, unsigned rank, void *address,
                                  const uint64_t *dims, const uint64_t *strides, const unsigned *box,
                                  const unsigned *element_strides, unsigned interleave, unsigned swizzle,
                                  unsigned l2_promotion, unsigned oob_fill) {
  if (card().major < 9) return CUDA_ERROR_NOT_SUPPORTED;
  if (!map || !address || !dims || !box || !element_strides || (rank > 1 && !strides)) return CUDA_ERROR_INVALID_VALUE;
  if (type >= sizeof element_bytes / sizeof *element_bytes || rank == 0 || rank > 5 || interleave > interleave_32 ||
      swizzle > 3 || l2_promotion > 3 || oob_fill > 1)
    return CUDA_ERROR_INVALID_VALUE;
  if (interleave != interleave_none && rank < 3) return CUDA_ERROR_INVALID_VALUE;
  if (oob_fill == 1 && type < first_float_type) return CUDA_ERROR_INVALID_VALUE;  // NaN needs a floating type
  const unsigned alignment = interleave == interleave_32 ? 32 : 16;
  if (reinterpret_cast<uintptr_t>(map) % 64 || reinterpret_cast<uintptr_t>(address) % alignment)
    return CUDA_ERROR_INVALID_VALUE;

  EmulatorTensorMap made = {};
  made.magic = EmulatorTensorMap::the_magic;
  made.address = address;
  made.element_bytes = static_cast<unsigned char>(element_bytes[type]);
  made.rank = static_cast<unsigned char>(rank);
  made.interleave = static_cast<unsigned char>(interleave);
  made.swizzle = static_cast<unsigned char>(swizzle);
  made.fill_nan = oob_fill == 1;
  made.to_tf32 = type >= tf32_type;
  for (unsigned i = 0; i < rank; i++) {
    if (dims[i] == 0 || dims[i] > uint64_t(1) << 32 || box[i] == 0 || box[i] > 256 || element_strides[i] == 0 ||
        element_strides[i] > 8)
      return CUDA_ERROR_INVALID_VALUE;
    made.dims[i] = dims[i];
    made.box[i] = static_cast<unsigned short>(box[i]);
    made.element_strides[i] = static_cast<unsigned char>(element_strides[i]);
    if (i + 1 == rank) break;
    if (strides[i] % alignment || strides[i] >= uint64_t(1) << 40) return CUDA_ERROR_INVALID_VALUE;
    made.strides[i] = strides[i];
  }
  const unsigned inner_bytes = box[0] * element_bytes[type], swizzle_bytes = 16u << swizzle;
  if (interleave == interleave_none && inner_bytes % 16) return CUDA_ERROR_INVALID_VALUE;
  if (interleave == interleave_none && swizzle != 0 && inner_bytes > swizzle_bytes) return CUDA_ERROR_INVALID_VALUE;
  if (interleave == interleave_32 && swizzle != 1) return CUDA_ERROR_INVALID_VALUE;
  *map = made;
  return CUDA_SUCCESS;
}
