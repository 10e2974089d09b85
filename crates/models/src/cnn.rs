//! A small convolutional network for images of digits: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning
//! applied to document recognition", in the form of Keras's MNIST example (ReLU and max pooling).
//!
//! ```text
//! [1, 28, 28] ─conv 3×3─ relu ─max 2×2─ [32, 13, 13] ─conv 3×3─ relu ─max 2×2─ [64, 5, 5] ─conv 3×3─ relu─ [64, 3, 3]
//!             ─flatten─ dense ─ relu ─ dense ─ the classes
//! ```

use ferrograd_autograd::{CrossEntropy, Pool2dOptions, Var};
use ferrograd_nn::{Conv2d, Dropout, Linear, Module};
use ferrograd_tensor::{Error, Result, Tensor, ensure};
use serde::{Deserialize, Serialize};

/// The sizes of a [`Cnn`]; the defaults are those of Keras's example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CnnConfig {
    /// Channels of the images.
    pub in_channels: usize,
    /// Height and width of the images; at least 18.
    pub image_size: [usize; 2],
    /// Channels after each convolution.
    pub channels: [usize; 3],
    /// Width of the dense layer.
    pub hidden: usize,
    /// Number of classes.
    pub num_classes: usize,
    /// Dropout in front of the last layer, in training.
    pub dropout: f64,
}

impl Default for CnnConfig {
    fn default() -> Self {
        CnnConfig {
            in_channels: 1,
            image_size: [28, 28],
            channels: [32, 64, 64],
            hidden: 64,
            num_classes: 10,
            dropout: 0.0,
        }
    }
}

impl CnnConfig {
    /// Are the sizes usable?
    ///
    /// # Errors
    /// If one is zero, the image is smaller than 18 × 18, or the dropout lies outside `[0, 1)`.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::format("CNN configuration", message));
        let [a, b, c] = self.channels;
        if [self.in_channels, a, b, c, self.hidden, self.num_classes].contains(&0) {
            return bad(format!("a size is 0: {self:?}"));
        }
        if self.image_size.iter().any(|&n| n < 18) {
            return bad(format!("image_size {:?}: three convolutions and two poolings need 18 × 18", self.image_size));
        }
        match (0.0..1.0).contains(&self.dropout) {
            true => Ok(()),
            false => bad(format!("dropout {} lies outside [0, 1)", self.dropout)),
        }
    }
    /// Height and width after the last convolution.
    fn final_size(&self) -> [usize; 2] {
        self.image_size.map(|n| ((n - 2) / 2 - 2) / 2 - 2)
    }
}

/// Three convolutions and two dense layers. See the [module](self).
#[derive(Module)]
pub struct Cnn {
    /// 3 × 3.
    pub conv1: Conv2d,
    /// 3 × 3.
    pub conv2: Conv2d,
    /// 3 × 3.
    pub conv3: Conv2d,
    /// The dense layer.
    pub fc1: Linear,
    /// Dropout of the dense layer's activation.
    pub dropout: Dropout,
    /// The classifier.
    pub fc2: Linear,
    #[module(skip)]
    config: CnnConfig,
}

impl Cnn {
    /// A model with PyTorch's initial weights, uniform in ±1/√fan-in.
    ///
    /// # Errors
    /// See [`CnnConfig::check`].
    pub fn new(config: &CnnConfig) -> Result<Cnn> {
        config.check()?;
        let [a, b, c] = config.channels;
        let [h, w] = config.final_size();
        Ok(Cnn {
            conv1: Conv2d::new(config.in_channels, a, 3),
            conv2: Conv2d::new(a, b, 3),
            conv3: Conv2d::new(b, c, 3),
            fc1: Linear::new(c * h * w, config.hidden),
            dropout: Dropout::new(config.dropout),
            fc2: Linear::new(config.hidden, config.num_classes),
            config: config.clone(),
        })
    }
    /// The sizes it was made with.
    pub fn config(&self) -> &CnnConfig {
        &self.config
    }

    /// Images `[B, channels, height, width]` → scores `[B, classes]`.
    ///
    /// # Panics
    /// If the images have other sizes than the config's.
    #[track_caller]
    pub fn forward(&self, images: &Var) -> Var {
        let [_, channels, height, width] = images.dims_of("Cnn");
        let CnnConfig { in_channels, image_size: [h, w], .. } = self.config;
        ensure!(
            [channels, height, width] == [in_channels, h, w],
            Shape,
            "Cnn",
            "images are {}, the model is for [B, {in_channels}, {h}, {w}]",
            images.shape()
        );
        let pool = |x: Var| x.max_pool2d(&Pool2dOptions { kernel: [2, 2], ..Default::default() });
        let x = pool(self.conv1.forward(images).relu());
        let x = pool(self.conv2.forward(&x).relu());
        let x = self.conv3.forward(&x).relu().flatten_dims(1, -1);
        self.fc2.forward(&self.dropout.forward(&self.fc1.forward(&x).relu()))
    }
    /// Mean cross-entropy of scores `[B, classes]` with labels `[B]`.
    #[track_caller]
    pub fn loss(logits: &Var, labels: &Tensor) -> Var {
        logits.cross_entropy(labels, &CrossEntropy::default())
    }
}
