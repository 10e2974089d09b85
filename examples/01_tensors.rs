//! 1. Tensors: arrays of numbers with a shape, and the views, broadcasts and sums that formulas are made of.
//!
//! `cargo run --release --example 01_tensors` prints
//!
//! ```text
//! x =
//! [[0, 1, 2],
//!  [3, 4, 5]]
//! its transpose, the same memory read with other strides:
//! [[0, 3],
//!  [1, 4],
//!  [2, 5]]
//! the last column, every second entry of the first row: [2, 5] [0, 2]
//! columns minus their means:
//! [[-1.5, -1.5, -1.5],
//!  [ 1.5,  1.5,  1.5]]
//! x xᵀ, once as a product and once as Σ_k x_ik x_jk: [[ 5, 14], [14, 50]] = [[ 5, 14], [14, 50]]
//! softmax of each row sums to [1.0000, 1.0000]
//! a mistake says what is wrong: matmul: inner dimensions differ: [2, 3] × [2, 3] (3 ≠ 2)
//! ```
use ferrograd::prelude::*;

fn main() {
    let x = Tensor::arange(0i64, 6, 1).reshape([2, 3]);
    println!("x =\n{x}");
    println!("its transpose, the same memory read with other strides:\n{}", x.t());
    println!("the last column, every second entry of the first row: {} {}", x.slice(s![.., -1]), x.slice(s![0, ..;2]));

    // [2, 3] − [3]: the mean of each column is repeated along the rows.
    let f = x.to_dtype(DType::F32);
    println!("columns minus their means:\n{}", &f - f.mean_dims(0));

    let one_line = |t: &Tensor| t.to_string().replace('\n', "");
    let (product, sum) = (x.matmul(&x.t()), Tensor::einsum("ik,jk->ij", &[&x, &x]));
    println!("x xᵀ, once as a product and once as Σ_k x_ik x_jk: {} = {}", one_line(&product), one_line(&sum));
    println!("softmax of each row sums to {}", f.softmax(-1).sum_dims(-1));

    // A wrong shape panics at this line with a typed error; `catch` makes it a Result.
    let error = catch(|| x.matmul(&x)).unwrap_err();
    println!("a mistake says what is wrong: {error}");
}
