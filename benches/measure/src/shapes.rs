//! Sizes that more than one program runs through.

/// `M, K, N` of the matrix products.
pub const GEMM: [(usize, usize, usize); 10] = [
    (64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (512, 768, 3072),
    (512, 3072, 768),
    (2048, 64, 2048),
    (1, 768, 50257),
];

/// `M, K, N` of the products whose operands may be stored transposed.
pub const LAYOUT_GEMM: [(usize, usize, usize); 5] =
    [(256, 256, 256), (1024, 1024, 1024), (512, 768, 3072), (512, 3072, 768), (2048, 64, 2048)];

/// Which operands of `[M, K] × [K, N]` are stored transposed, the first as `[K, M]`, the second as `[N, K]`, under BLAS's
/// names. NN is what the other products have.
pub const LAYOUTS: [(&str, bool, bool); 3] = [("NT", false, true), ("TN", true, false), ("TT", true, true)];

/// `M, K, N` of the product with a weight stored as layers store it, `N × K`: the head of GPT-2 for one token.
pub const GEMM_WEIGHT: (usize, usize, usize) = (1, 768, 50257);

/// `B, H, T, D` of attention.
pub const ATTENTION: [usize; 4] = [4, 12, 512, 64];

/// The same over more tokens.
pub const LONG_ATTENTION: [usize; 4] = [4, 12, 2048, 64];

/// Elements of the elementwise cases.
pub const ELEMENTS: usize = 1 << 24;

/// Embedding, hidden size and length of the LSTM's training steps.
pub const LSTM: [(usize, usize, usize); 4] = [(32, 32, 120), (128, 128, 120), (32, 32, 256), (128, 128, 256)];
