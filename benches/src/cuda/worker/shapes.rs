//! The sizes of all cases: `peers/cuda.json`, which the peer's program reads too.

use serde::Deserialize;

/// Sizes, in full or tiny.
#[derive(Deserialize)]
pub struct Shapes {
    /// The fewest rounds of a case.
    pub rounds: usize,
    /// What is written between rounds, to empty the card's cache.
    pub flush_mib: usize,
    /// What is copied to measure the card's bandwidth.
    pub copy_mib: usize,
    /// Rows and columns of the product that measures its arithmetic.
    pub product: usize,
    /// Rows and columns of square matrices.
    pub squares: Vec<usize>,
    /// The same for the ladder.
    pub ladder: Vec<usize>,
    /// Attention.
    pub attention: Attention,
    /// Rows, and elements of a row.
    pub layer_norm: [usize; 2],
    /// The same.
    pub softmax: [usize; 2],
    /// `B, H, T, D` of the rotary embedding.
    pub rope: [usize; 4],
    /// Rows, and elements of a row, of gated activations.
    pub gated: [usize; 2],
    /// Positions and classes.
    pub cross_entropy: [usize; 2],
    /// Of the elementwise cases.
    pub elements: usize,
    /// The model.
    pub gpt2: Gpt2,
    /// The recurrent layers.
    pub lstm: Vec<Lstm>,
}

/// Every length has the same number of tokens in all sequences, and every head dimension the same width in all heads.
#[derive(Deserialize)]
pub struct Attention {
    pub tokens: usize,
    pub width: usize,
    pub head_dims: Vec<usize>,
    pub times: Vec<usize>,
}

/// A GPT-2 and a batch for it.
#[derive(Deserialize)]
pub struct Gpt2 {
    pub batch: usize,
    pub time: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub vocab: usize,
}

/// LSTM layers and a batch for them.
#[derive(Deserialize)]
pub struct Lstm {
    pub name: String,
    pub batch: usize,
    pub time: usize,
    pub embed: usize,
    pub hidden: usize,
    pub layers: usize,
}

impl Shapes {
    /// Those that are worth timing, or those for a test of the suite.
    pub fn new(tiny: bool) -> Shapes {
        #[derive(Deserialize)]
        struct Both {
            full: Shapes,
            tiny: Shapes,
        }
        let both: Both = serde_json::from_str(include_str!("../../../peers/cuda.json")).expect("as it is checked in");
        if tiny { both.tiny } else { both.full }
    }
}

/// Which operands of a product `[M, K] × [K, N]` are stored transposed, as BLAS names it: in NT the second as `[N, K]`, in TN
/// the first as `[K, M]`.
pub struct Product {
    pub layout: &'static str,
    pub m: usize,
    pub k: usize,
    pub n: usize,
}

impl Gpt2 {
    /// The three products that each linear layer `y = x Wᵀ` takes in a training step: y, `dx = dy W` and `dW = dyᵀ x`.
    pub fn products(&self) -> Vec<Product> {
        let (m, c) = (self.batch * self.time, self.width);
        let layers = [(c, 3 * c), (c, c), (c, 4 * c), (4 * c, c), (c, self.vocab)];
        let passes = |(inputs, outputs)| {
            [
                Product { layout: "NT", m, k: inputs, n: outputs },
                Product { layout: "NN", m, k: outputs, n: inputs },
                Product { layout: "TN", m: outputs, k: m, n: inputs },
            ]
        };
        layers.into_iter().flat_map(passes).collect()
    }
}
