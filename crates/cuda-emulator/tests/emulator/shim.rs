//! What CUDA C++ has built in, as the emulator's headers define it: the values that the CUDA documentation gives.

use super::common::*;

/// Runs `body` in one block of `threads`, with `long long* out` and `int t` (the thread) in scope, under some
/// schedules; the first `count` numbers of `out` must always be the same.
fn values(threads: u32, count: usize, body: &str) -> Vec<i64> {
    let source = format!(
        "#include \"ptx.cuh\"\nextern \"C\" __global__ void k(long long* out) {{ int t = threadIdx.x; {body} }}"
    );
    let k = kernel(&source, "k");
    let mut results = ["", "7", "lazy"].map(|schedule| {
        set_schedule(schedule);
        let out = upload(&vec![0i64; count]);
        check(launch!(k, 1, threads, 0; out));
        download::<i64>(out, count)
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
    std::mem::take(&mut results[0])
}

/// Values of expressions that each make an integer.
fn expressions(expressions: &[&str]) -> Vec<i64> {
    let body: String = expressions.iter().enumerate().map(|(i, e)| format!("out[{i}] = (long long)({e});\n")).collect();
    values(1, expressions.len(), &body)
}

emulated! {
    fn integers() {
        init();
        assert_eq!(
            expressions(&[
                "__popc(0xF0F0u)", "__popcll(-1ll)", "__clz(1)", "__clz(0)", "__clzll(1)", "__ffs(0)", "__ffs(8)",
                "__brev(1u)", "__umulhi(0x80000000u, 6u)", "__mulhi(-1, 1)", "__umul64hi(1ull << 63, 6)",
                "__mul64hi(-1ll, 1ll)", "__byte_perm(0x33221100, 0x77665544, 0x7410)",
                "__funnelshift_l(0x80000000u, 1u, 1)", "__funnelshift_r(0u, 3u, 1)",
                "__float_as_int(1.0f)", "__double_as_longlong(1.0) >> 52", "__uint_as_float(0x40400000u)",
                "__float2int_rn(2.5f)", "__float2int_rz(-2.7f)", "__float2int_rd(-2.1f)", "__float2int_ru(2.1f)",
                "__float2int_rn(3e9f)", "__float2uint_rn(-1.f)", "__float2int_rn(nanf_)", "min(-1, 2)",
                "max(3u, 2u)", "min(7ll, 9ll)", "sizeof(float4) + alignof(float4) + alignof(float2)",
            ].map(|e| if e.contains("nanf_") { "__float2int_rn(__uint_as_float(0x7fc00000u))" } else { e })),
            [
                8, 64, 31, 32, 63, 0, 4, 0x80000000, 3, -1, 3, -1, 0x77441100, 3, 0x80000001u32 as i64 & 0x80000000,
                0x3f800000, 1023, 3, 2, -2, -3, 3, i32::MAX as i64, 0, 0, -1, 3, 7, 40,
            ]
        );
    }

    fn reals() {
        init();
        // In millionths.
        assert_eq!(
            expressions(&[
                "1e6f * fmaf(2.f, 3.f, 1.f)", "1e6f * rsqrtf(4.f)", "1e6f * __fdividef(1.f, 8.f)", "1e6f * exp2f(3.f)",
                "1e6 * erfinv(erf(0.25)) + .5", "1e6 * normcdfinv(0.975) + .5", "1e6f * sinpif(0.5f)",
                "1e6f * cospif(1.0f)", "cospif(0.5f) == 0", "1e6f * fminf(2.f, 1.f)", "1e6f * max(1.f, 2.f)",
                "isnan(0.f / 0.f)", "isinf(1.f / 0.f)", "signbit(-0.f)", "1e6f * rintf(2.5f)", "1e6f * powf(2.f, 0.5f)",
                "__fadd_rn(__fmul_rn(1.f + 0x1p-12f, 1.f + 0x1p-12f), -1.f) == 0x1p-11f",
                "fmaf(1.f + 0x1p-12f, 1.f + 0x1p-12f, -1.f) == 0x1p-11f + 0x1p-24f",
                "1e6f * abs(-2.f)", "1e6f * sqrt(4.f)", "1e6f * fmodf(7.f, 4.f)", "1e6f * log1pf(0.f)",
            ]),
            [
                7000000, 500000, 125000, 8000000, 250000, 1959964, 1000000, -1000000, 1, 1000000, 2000000, 1, 1, 1,
                2000000, 1414213, 1, 1, 2000000, 2000000, 3000000, 0,
            ]
        );
    }

    fn sixteen_bit_numbers() {
        init();
        // Every f16 survives the way to f32 and back, except that NaNs become one.
        let body = "for (int i = t; i < 65536; i += 64) {
                        float x = f16_to_f32((unsigned short)i);
                        bool nan = (i & 0x7fff) > 0x7c00;
                        if (nan != isnan(x) || (!nan && f32_to_f16_rn(x) != i)) atomicAdd((int*)out, 1);
                    }";
        assert_eq!(values(64, 1, body), [0]);
        assert_eq!(
            expressions(&[
                "f32_to_f16_rn(1.f)", "f32_to_f16_rn(65519.f)", "f32_to_f16_rn(65520.f)", "f32_to_f16_rn(0x1p-25f)",
                "f32_to_f16_rn(0x1.8p-25f)", "f32_to_f16_rn(-2049.f)", "f32_to_bf16_rn(1.f)",
                "f32_to_bf16_rn(1.f + 0x1p-8f)", "f32_to_bf16_rn(1.f + 3 * 0x1p-8f)", "pack_bf16x2_rn(1.f, -2.f)",
                "pack_f16x2_rn(1.f, -2.f)", "f32_to_tf32(1.f + 0x1p-11f) - f32_to_tf32(1.f)",
            ]),
            [0x3c00, 0x7bff, 0x7c00, 0, 1, 0xe800, 0x3f80, 0x3f80, 0x3f82, 0xc0003f80, 0xc0003c00, 0x2000]
        );
    }

    fn warps() {
        init();
        let shuffle = |expression: &str| values(32, 32, &format!("out[t] = {expression};"));
        let lanes = |f: fn(i64) -> i64| (0..32).map(f).collect::<Vec<_>>();
        assert_eq!(shuffle("__shfl_sync(~0u, 10 * t, 3)"), lanes(|_| 30));
        assert_eq!(shuffle("__shfl_sync(~0u, t, 9, 8)"), lanes(|t| t / 8 * 8 + 1));
        assert_eq!(shuffle("__shfl_xor_sync(~0u, (double)t, 5)"), lanes(|t| t ^ 5));
        assert_eq!(shuffle("__shfl_xor_sync(~0u, t, 16, 16)"), lanes(|t| if t < 16 { t } else { t - 16 }));
        assert_eq!(shuffle("__shfl_up_sync(~0u, (long long)t, 3, 16)"), lanes(|t| if t % 16 < 3 { t } else { t - 3 }));
        assert_eq!(shuffle("__shfl_down_sync(~0u, (unsigned)t, 2)"), lanes(|t| if t < 30 { t + 2 } else { t }));
        assert_eq!(shuffle("__ballot_sync(~0u, t % 2)"), lanes(|_| 0xaaaaaaaa));
        assert_eq!(shuffle("__any_sync(~0u, t == 7) + 2 * __all_sync(~0u, t < 31)"), lanes(|_| 1));
        assert_eq!(shuffle("__match_any_sync(~0u, t / 16)"), lanes(|t| if t < 16 { 0xffff } else { 0xffff0000 }));
        assert_eq!(shuffle("__reduce_add_sync(~0u, t)"), lanes(|_| 496));
        assert_eq!(shuffle("__reduce_max_sync(~0u, (unsigned)t)"), lanes(|_| 31));
        // Halves of a warp go their own ways.
        let halves = "unsigned half = t < 16 ? 0xffffu : 0xffff0000u;
                      if (t < 16) out[t] = __shfl_xor_sync(half, t, 1); else out[t] = __reduce_add_sync(half, t);
                      __syncwarp();";
        assert_eq!(values(32, 32, halves), lanes(|t| if t < 16 { t ^ 1 } else { 376 }));
    }

    fn barriers_and_atomics() {
        init();
        let votes = "out[t] = __syncthreads_count(t % 3 == 0) + 1000 * __syncthreads_or(t == 5)
                            + 2000 * __syncthreads_and(t < 99);";
        assert_eq!(values(100, 100, votes), [1034; 100]);
        let producer = "__shared__ int box;
                        if (t < 32) { if (t == 0) box = 5; bar_arrive(1, 64); bar_sync(2, 64); }
                        else if (t < 64) { bar_sync(1, 64); out[t - 32] = box; bar_arrive(2, 64); }";
        assert_eq!(values(96, 32, producer), [5; 32]);
        let atomics = "int* sum = (int*)out; float* f = (float*)(out + 1); unsigned* u = (unsigned*)(out + 2);
                       atomicAdd(sum, t); red_add_f32(f, 0.5f); atomicMax(u, (unsigned)t); atomicInc(u + 1, 2);
                       atomicAdd((double*)(out + 3), 1); atomicCAS((int*)(out + 4), t, t + 1);
                       __syncthreads();
                       if (t == 0) out[1] = (long long)*f, out[3] = (long long)*(double*)(out + 3);";
        let atomics = values(64, 4, atomics);
        assert_eq!(atomics, [2016, 32, 63 | (64 % 3) << 32, 64]);
    }

    fn tensor_cores() {
        init();
        // Products of matrices of small numbers, whose elements come out as written down by hand.
        let tf32 = "int g = t / 4, q = t % 4; float d[4] = {1, 1, 1, 1};
                    auto a = [](int r, int k) { return f32_to_tf32(float(r + 2 * k)); };
                    auto b = [](int k, int c) { return f32_to_tf32(float(k - c)); };
                    mma_m16n8k8_tf32(d, {a(g, q), a(g + 8, q), a(g, q + 4), a(g + 8, q + 4)}, {b(q, g), b(q + 4, g)});
                    for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = (long long)d[i];";
        let product = |rows: i64, inner: i64, start: i64| -> Vec<i64> {
            let element = |r: i64, c: i64| start + (0..inner).map(|k| (r + 2 * k) * (k - c)).sum::<i64>();
            (0..rows).flat_map(|r| (0..8).map(move |c| element(r, c))).collect()
        };
        assert_eq!(values(32, 128, tf32), product(16, 8, 1));
        let f16 = "int g = t / 4, q = t % 4; float d[4] = {};
                   auto a = [](int r, int k) { return pack_f16x2_rn(float(r + 2 * k), float(r + 2 * k + 2)); };
                   auto b = [](int k, int c) { return pack_f16x2_rn(float(k - c), float(k + 1 - c)); };
                   mma_m16n8k16_f16(d, {a(g, 2 * q), a(g + 8, 2 * q), a(g, 2 * q + 8), a(g + 8, 2 * q + 8)},
                                    {b(2 * q, g), b(2 * q + 8, g)});
                   for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = (long long)d[i];";
        assert_eq!(values(32, 128, f16), product(16, 16, 0));
        let s8 = "int g = t / 4, q = t % 4, d[4] = {};
                  auto a = [](int r, int k) { unsigned x = 0; for (int i = 3; i >= 0; i--) x = x << 8 | ((r + 2 * (k + i)) & 255); return x; };
                  auto b = [](int k, int c) { unsigned x = 0; for (int i = 3; i >= 0; i--) x = x << 8 | ((k + i - c) & 255); return x; };
                  mma_m16n8k32_s8(d, {a(g, 4 * q), a(g + 8, 4 * q), a(g, 4 * q + 16), a(g + 8, 4 * q + 16)},
                                  {b(4 * q, g), b(4 * q + 16, g)});
                  for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = d[i];";
        assert_eq!(values(32, 128, s8), product(16, 32, 0));
        let f64 = "int g = t / 4, q = t % 4; double d[2] = {};
                   mma_m8n8k4_f64(d, double(g + 2 * q), double(q - g));
                   for (int i = 0; i < 2; i++) out[g * 8 + 2 * q + i] = (long long)d[i];";
        assert_eq!(values(32, 64, f64), product(8, 4, 0));
        let transposed = "__shared__ __align__(16) unsigned short x[64];
                          for (int i = t; i < 64; i += 32) x[i] = i;
                          __syncwarp();
                          unsigned r[1]; ldmatrix_x1_trans(r, x + t % 8 * 8); out[t] = r[0];";
        let expected: Vec<i64> = (0..32).map(|t| (t % 4 * 16 + t / 4) | (t % 4 * 16 + 8 + t / 4) << 16).collect();
        assert_eq!(values(32, 32, transposed), expected);
    }
}
