//! The reader of the golden files, which other tests rely on.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_tensor::DType;
use golden::Golden;

#[test]
fn the_reader_finds_cases_configurations_and_tensors() {
    let ops = Golden::open("ops");
    assert!(ops.cases().iter().any(|c| c == "conv2d_all"));
    assert_eq!(ops.config("conv2d_all")["groups"], 2);
    assert!(ops.config("conv2d")["groups"].is_null());
    assert_eq!(ops.keys("conv2d_no_bias", "input."), ["input.input", "input.weight"]);
    let x = ops.expect("conv2d_all", "input.input");
    assert_eq!((x.dims(), x.dtype()), (&[2, 4, 8, 9][..], DType::F64));
    assert!(ops.get("conv2d_no_bias", "input.bias").is_none());
    for name in ["layers", "models", "optim"] {
        let file = Golden::open(name);
        file.cases().iter().for_each(|case| assert!(!file.config(case).is_null()));
    }
}
