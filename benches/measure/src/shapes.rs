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

/// `M, K, N` of the product with a weight stored as layers store it, `N × K`: the head of GPT-2 for one token.
pub const GEMM_WEIGHT: (usize, usize, usize) = (1, 768, 50257);

/// `B, H, T, D` of attention.
pub const ATTENTION: [usize; 4] = [4, 12, 512, 64];

/// Elements of the elementwise cases.
pub const ELEMENTS: usize = 1 << 24;

/// Embedding, hidden size and length of the LSTM's training steps.
pub const LSTM: [(usize, usize, usize); 4] = [(32, 32, 120), (128, 128, 120), (32, 32, 256), (128, 128, 256)];
