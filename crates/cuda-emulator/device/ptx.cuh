#define DYNAMIC_SHARED(t,n) t* n = static_cast<t*>(emulator_dynamic_shared())

__device__ __forceinline__ float f16_to_f32(unsigned short x) {
    _Float16 y;
    __builtin_memcpy(&y, &x, 2);
    return (float)y;
}
__device__ __forceinline__ unsigned short f32_to_f16_rn(float x) {
    _Float16 y = (_Float16)x;
    unsigned short bits;
    __builtin_memcpy(&bits, &y, 2);
    return bits;
}
