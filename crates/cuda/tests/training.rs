//! Whole models learn on the card as on the CPU: the same losses but for roundings, and the same seed gives the same bits twice.
//!
//! They need a card, or the emulator: `cargo xtask test-cuda`.

mod common;

use common::cuda;
use ferrograd_autograd::Var;
use ferrograd_models::bert::{BertConfig, BertForMaskedLm};
use ferrograd_models::cnn::{Cnn, CnnConfig};
use ferrograd_models::gpt::{Gpt, GptConfig};
use ferrograd_models::lstm::{LstmClassifier, LstmClassifierConfig, LstmLm, LstmLmConfig};
use ferrograd_nn::Module;
use ferrograd_optim::{AdamW, Optimizer, clip_grad_norm};
use ferrograd_tensor::{DType, Device, Result, Tensor, random::manual_seed};
use std::sync::{Mutex, PoisonError};

/// Losses of a few steps from the seed, dropout included, and the bytes of all parameters after them.
fn train<M: Module>(device: &Device, new: fn() -> Result<M>, loss: fn(&M, &Device) -> Var) -> (Vec<f64>, Vec<u8>) {
    // All threads draw from one stream of random numbers.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    manual_seed(7);
    let model = new().expect("a model").to(device);
    let mut adam = AdamW::new(model.parameters()).lr(1e-2);
    let step = |_| {
        let loss = loss(&model, device);
        let mut gradients = loss.backward();
        clip_grad_norm(&mut gradients, &model.parameters(), 1.0, 2.0);
        adam.step(&gradients);
        loss.item::<f64>()
    };
    let losses = (0..4).map(step).collect();
    (losses, model.parameters().iter().flat_map(|p| p.tensor().to_bytes()).collect())
}

fn learns_alike<M: Module>(new: fn() -> Result<M>, loss: fn(&M, &Device) -> Var) {
    let (here, _) = train(&Device::CPU, new, loss);
    let (there, bits) = train(&cuda(), new, loss);
    assert!(here[3] < here[0], "{here:?}");
    for (here, there) in here.iter().zip(&there) {
        assert!((here - there).abs() <= 1e-4 * here, "{here:?} on the CPU, {there:?} on the card");
    }
    let (again, bits_again) = train(&cuda(), new, loss);
    assert!(there == again && bits == bits_again, "the same seed gave other numbers: {there:?}, {again:?}");
}

/// Tokens below `vocab`, always the same.
fn tokens(rows: usize, columns: usize, vocab: usize, device: &Device) -> Tensor {
    let token = |i: usize| (i * i + 3 * i + i / columns) % vocab;
    Tensor::from_vec((0..rows * columns).map(|i| token(i) as i64).collect(), [rows, columns]).to_device(device)
}

#[test]
fn a_gpt() {
    let new = || {
        let (vocab_size, n_positions, n_embd, n_layer, n_head) = (13, 8, 16, 2, 2);
        Gpt::new(&GptConfig { vocab_size, n_positions, n_embd, n_layer, n_head, ..GptConfig::default() })
    };
    learns_alike(new, |gpt, device| {
        let text = tokens(3, 9, 13, device);
        gpt.loss(&text.narrow(1, 0, 8), &text.narrow(1, 1, 8))
    });
}

#[test]
fn a_bert() {
    let new = || {
        BertForMaskedLm::new(&BertConfig {
            vocab_size: 13,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            max_position_embeddings: 8,
            ..BertConfig::default()
        })
    };
    learns_alike(new, |bert, device| {
        let text = tokens(3, 8, 12, device).add_scalar(1.0);
        let (masked, padding) = (text.eq(&text.full_like(5.0)), Tensor::ones([3, 8]).to_device(device));
        BertForMaskedLm::loss(
            &bert.forward(&masked.where_(&text.full_like(12.0), &text), None, Some(&padding)),
            &masked.where_(&text, &text.full_like(-100.0)),
        )
    });
}

#[test]
fn a_cnn() {
    let new = || {
        let (channels, hidden) = ([4, 5, 6], 8);
        Cnn::new(&CnnConfig { image_size: [18, 18], channels, hidden, dropout: 0.2, ..CnnConfig::default() })
    };
    learns_alike(new, |cnn, device| {
        let images = tokens(2, 18 * 18, 7, device).to_dtype(DType::F32).reshape([2, 1, 18, 18]);
        Cnn::loss(&cnn.forward(&images.into()), &Tensor::new([3i64, 5]).to_device(device))
    });
}

#[test]
fn an_lstm_that_classifies() {
    let new = || {
        LstmClassifier::new(&LstmClassifierConfig {
            vocab_size: 13,
            embed_dim: 8,
            hidden_size: 9,
            dropout: 0.2,
            recurrent_dropout: 0.2,
            ..LstmClassifierConfig::default()
        })
    };
    learns_alike(new, |lstm, device| {
        let logits = lstm.forward(&tokens(3, 7, 13, device), Some(&[7, 3, 5]));
        LstmClassifier::loss(&logits, &Tensor::new([0i64, 1, 1]).to_device(device))
    });
}

#[test]
fn an_lstm_that_writes() {
    let new = || LstmLm::new(&LstmLmConfig { vocab_size: 13, embed_dim: 8, hidden_size: 9, ..LstmLmConfig::default() });
    learns_alike(new, |lstm, device| {
        let text = tokens(3, 9, 13, device);
        LstmLm::loss(&lstm.forward(&text.narrow(1, 0, 8), None).0, &text.narrow(1, 1, 8))
    });
}
