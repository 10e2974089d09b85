//! Einsum against its definition, the sum over all letters.

mod layouts;

use ferrograd_tensor::{DType, Tensor};
use layouts::{Random, error, ravel, unravel};
use proptest::prelude::*;

/// The definition, for equations of letters only: a loop over all of them.
fn definition(inputs: &[&str], output: &str, operands: &[&Tensor], extent: impl Fn(char) -> usize) -> Vec<f64> {
    let mut letters: Vec<char> = output.chars().collect();
    for c in inputs.iter().flat_map(|s| s.chars()) {
        if !letters.contains(&c) {
            letters.push(c);
        }
    }
    let all: Vec<usize> = letters.iter().map(|&c| extent(c)).collect();
    let shape = &all[..output.len()];
    let values: Vec<Vec<f64>> = operands.iter().map(|x| x.to_f64_vec()).collect();
    let mut out = vec![0.0; shape.iter().product()];
    for i in 0..all.iter().product() {
        let index = unravel(i, &all);
        let of = |c: char| index[letters.iter().position(|&l| l == c).unwrap()];
        let term: f64 = inputs
            .iter()
            .enumerate()
            .map(|(k, s)| values[k][ravel(&s.chars().map(of).collect::<Vec<_>>(), operands[k].dims())])
            .product();
        out[ravel(&index[..output.len()], shape)] += term;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_equation(seed: u64) {
        let mut random = Random(seed);
        let extents: Vec<usize> = (0..5).map(|_| if random.below(8) == 0 { 0 } else { 1 + random.below(3) }).collect();
        let extent = |c: char| extents[(c as u8 - b'a') as usize];
        let letter = |random: &mut Random| (b'a' + random.below(5) as u8) as char;
        let inputs: Vec<String> =
            (0..1 + random.below(3)).map(|_| (0..random.below(4)).map(|_| letter(&mut random)).collect()).collect();
        let mut output = String::new();
        for c in inputs.iter().flat_map(|s| s.chars()) {
            if !output.contains(c) && random.below(2) == 0 {
                output.insert(random.below(output.len() + 1), c);
            }
        }
        let operands: Vec<Tensor> = inputs
            .iter()
            .map(|s| random.strided(&s.chars().map(extent).collect::<Vec<_>>(), DType::F64))
            .collect();
        let operands: Vec<&Tensor> = operands.iter().collect();
        let equation = format!("{} -> {output}", inputs.join(", "));
        let y = Tensor::einsum(&equation, &operands);
        prop_assert_eq!(y.dims(), &output.chars().map(extent).collect::<Vec<_>>()[..]);
        let parts: Vec<&str> = inputs.iter().map(|s| &s[..]).collect();
        // Sums of a few products of eighths are exact.
        prop_assert_eq!(y.to_f64_vec(), definition(&parts, &output, &operands, extent), "{}", equation);
    }
}

#[test]
fn ellipsis_repetition_and_the_implicit_result() {
    let mut random = Random(3);
    let a = random.strided(&[2, 1, 3, 4], DType::F64);
    let b = random.strided(&[5, 4, 6], DType::F64);
    let c = Tensor::einsum("...ij,...jk->...ik", &[&a, &b]);
    assert_eq!(c.to_f64_vec(), a.matmul(&b).to_f64_vec());
    assert_eq!(Tensor::einsum("...ij,...jk", &[&a, &b]).to_f64_vec(), c.to_f64_vec());
    assert_eq!(*Tensor::einsum("i...->...i", &[&a]).shape(), [1, 3, 4, 2]);
    assert_eq!(*Tensor::einsum("...->", &[&a]).shape(), []);
    // A dimension of extent 1 is repeated.
    let row = random.values(&[1, 4], DType::F64);
    let full = random.values(&[3, 4], DType::F64);
    assert_eq!(Tensor::einsum("ij,ij->ij", &[&row, &full]).to_f64_vec(), (&row * &full).to_f64_vec());
    assert_eq!(*Tensor::einsum("ba", &[&full]).shape(), [4, 3]);
    assert_eq!(*Tensor::einsum("Ba", &[&full]).shape(), [3, 4]);
    let cube = random.strided(&[3, 3, 3], DType::F64);
    let trace: f64 = (0..3).map(|i| cube.select(0, i).select(0, i).select(0, i).item::<f64>()).sum();
    assert_eq!(Tensor::einsum("iii->", &[&cube]).item::<f64>(), trace);
    let (x, y) = (Tensor::new([[1i64, 2], [3, 4]]), Tensor::new([[0i64, 1], [1, 0]]));
    assert_eq!(Tensor::einsum("ij,jk", &[&x, &y]).to_vec::<i64>(), [2, 1, 4, 3]);
}

#[test]
fn mistakes_are_named() {
    let (a, b) = (Tensor::zeros([2, 3]), Tensor::zeros([4, 5]));
    assert_eq!(error(|| Tensor::einsum("ij,jk->ik", &[&a, &b])), "einsum: \"ij,jk->ik\": 'j' is 3, but 4 in operand 1");
    assert_eq!(error(|| Tensor::einsum("ij->ij", &[&a, &b])), "einsum: \"ij->ij\" names 1 operands, got 2");
    assert_eq!(
        error(|| Tensor::einsum("ijk->i", &[&a])),
        "einsum: \"ijk->i\" names 3 dimensions of operand 0, which has 2: [2, 3]"
    );
    assert_eq!(error(|| Tensor::einsum("ij->ik", &[&a])), "einsum: \"ij->ik\": the result's 'k' is in no operand");
    assert_eq!(error(|| Tensor::einsum("ij->ii", &[&a])), "einsum: \"ij->ii\": the result has 'i' more than once");
    assert_eq!(error(|| Tensor::einsum("i1", &[&a])), "einsum: \"i1\": '1' is neither a letter nor part of \"...\"");
    assert_eq!(
        error(|| Tensor::einsum("...i...", &[&a])),
        "einsum: \"...i...\": more than one ellipsis in \"...i...\""
    );
    assert_eq!(error(|| Tensor::einsum("ii", &[&a])), "einsum: \"ii\": 'i' is 2 and 3 in operand 0: [2, 3]");
    assert_eq!(
        error(|| Tensor::einsum("...i,...i", &[&a, &Tensor::zeros([4, 3])])),
        "einsum: \"...i,...i\": dimension -1 of the ellipsis is 2, but 4 in operand 1"
    );
}
