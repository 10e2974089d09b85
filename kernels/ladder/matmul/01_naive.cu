// Step 1: a thread for each element of C.
//
// C[i, j] = Σ_p A[i, p] · B[p, j], as it stands in the book. Here neighbouring threads have neighbouring rows: at each p the 32
// threads of a warp read 32 numbers of A that lie K apart and write 32 numbers of C that lie N apart. Memory answers in
// pieces of 32 bytes, of which each thread takes 4.
#include "types.cuh"

extern "C" __global__ void __launch_bounds__(256) matmul(const f32* a, const f32* b, f32* c, int m, int n, int k) {
    int i = blockIdx.x * 32 + threadIdx.x % 32, j = blockIdx.y * 8 + threadIdx.x / 32;
    if (i >= m || j >= n) return;
    f32 sum = 0;
    for (int p = 0; p < k; p++) sum += a[(i64)i * k + p] * b[(i64)p * n + j];
    c[(i64)i * n + j] = sum;
}
