// y[o] = x[index[o]] within each plane, 0 where the index is −1, and its adjoint, dx[index[o]] += dy[o]. Indices count a plane's
// elements in row-major order. They are in range unless `index_check.cu` has found out otherwise; one that is not is like −1.
#include "planes.cuh"
#include "reduction.cuh"

// `at`: index, y, of `area` elements in each plane. Planes of x have `height` × `width`.
template <class T>
__device__ __forceinline__ void gather(const i64* index, const T* x, T* y, const Layout<2>& at, i64 area, const Planes& from, i64 height, i64 width) {
    for (i64 o = thread_in_grid(); o < at.numel; o += threads_in_grid()) {
        i64 to[2];
        at.find(o, to);
        i64 place = index[to[0]];
        T value = {};
        if (place >= 0 && place < height * width) {
            i64 u = quotient(place, width);
            value = from.plane(x, quotient(o, area))[u * from.row + (place - u * width) * from.column];
        }
        y[to[1]] = value;
    }
}

// Each warp has a piece of a plane of dx, PIECE places in shared memory, goes through all of the plane's outputs in order and adds
// up those that belong to its piece. So a place has one owner, its sum one order, and dx is written once. What that costs is that the
// indices are read once for each piece; but all of them by warps that run at the same time, from the caches.
constexpr u32 WARPS = 4;
template <class C> constexpr u32 PIECE = 8192 / sizeof(C);

// `at`: index, dy, of `outputs` elements in each plane. Planes of dx have `area` elements and are cut into `pieces`.
template <class X, class C = compute_t<X>>
__device__ __forceinline__ void scatter(const i64* index, const X* dy, X* dx, const Layout<2>& at, i64 outputs, i64 planes, i64 area, i64 pieces) {
    __shared__ C all[WARPS][PIECE<C>];
    i64 piece = (i64)blockIdx.x * WARPS + threadIdx.x / WARP, plane = quotient(piece, pieces);
    if (plane >= planes) return;
    C* sums = all[threadIdx.x / WARP];
    u32 lane = lane_id();
    i64 first = (piece - plane * pieces) * PIECE<C>, count = area - first < PIECE<C> ? area - first : PIECE<C>;
    for (i64 e = lane; e < count; e += WARP) sums[e] = C(0);
    __syncwarp();
    for (i64 start = 0; start < outputs; start += WARP) {
        i64 o = start + lane, from[2] = {0, 0};
        if (o < outputs) at.find(plane * outputs + o, from);
        i64 place = o < outputs ? index[from[0]] - first : -1;
        bool mine = place >= 0 && place < count;
        if (!__any_sync(ALL_LANES, mine)) continue;
        C value = mine ? load(dy[from[1]]) : C(0);
        // Lanes of one place add one after another: each waits for as many as are before it.
        u32 before = __popc(__match_any_sync(ALL_LANES, mine ? (i32)place : -1) & ((1u << lane) - 1));
        for (u32 turn = 0; __any_sync(ALL_LANES, mine && before >= turn); turn++) {
            if (mine && before == turn) sums[place] += value;
            __syncwarp();
        }
    }
    for (i64 e = lane; e < count; e += WARP) dx[plane * area + first + e] = store<X>(sums[e]);
}

#define GATHER(name, T)                                                                                        \
    extern "C" __global__ void plane_gather_##name(const i64* index, const T* x, T* y, Layout<2> at, i64 area, \
                                                   Planes from, i64 height, i64 width) {                       \
        gather<T>(index, x, y, at, area, from, height, width);                                                 \
    }
GATHER(f16, u16)
GATHER(i32, u32)
GATHER(i64, u64)

#define SCATTER(X)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(WARPS * WARP)                                                                 \
        plane_scatter_##X(const i64* index, const X* dy, X* dx, Layout<2> at, i64 outputs, i64 planes, i64 area, i64 pieces) { \
        scatter(index, dy, dx, at, outputs, planes, area, pieces);                                                             \
    }
SCATTER(f32)
SCATTER(f64)
SCATTER(f16)
SCATTER(bf16)
