//! 2. Automatic differentiation in one file: the real engine, with scalars for tensors.
//!
//! Every value remembers the operation that made it and that operation's inputs. Ids grow with creation, so walking
//! from the largest id to the smallest meets every value after all that was made from it: then its gradient is
//! complete, and the chain rule hands `∂L/∂y · ∂y/∂x` on to each input. The derivative rules are written in the same
//! values, so a derivative has a history too and can be differentiated again.
//!
//! `cargo run --release --example 02_scalar_autodiff` prints
//!
//! ```text
//! f(x) = x³ tanh(x) at 0.5: 0.0577646
//! f'(x)  = 0.4448938, finite differences 0.4448938
//! f''(x) = 2.4751653, finite differences 2.4751653
//! the framework's engine: 0.4448938 and 2.4751653
//! ```
use std::collections::{BTreeMap, HashMap};
use std::ops::{Add, Mul, Sub};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with the history of how it was made. In the framework: `Var`.
#[derive(Clone)]
struct Value(Rc<Inner>);

struct Inner {
    id: u64,
    number: f64,
    node: Option<Node>,
}

/// One application of an operation. In the framework: `Node`.
struct Node {
    op: Rc<dyn Function>,
    inputs: Vec<Value>,
}

/// A differentiable operation. In the framework it has n inputs, m outputs, and chooses what to save.
trait Function {
    fn forward(&self, x: &[f64]) -> f64;
    /// From `g = ∂L/∂y` to `∂L/∂x` for each input x.
    fn backward(&self, x: &[Value], y: &Value, g: &Value) -> Vec<Value>;
}

fn new(number: f64, node: Option<Node>) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Value(Rc::new(Inner { id: NEXT.fetch_add(1, Ordering::Relaxed), number, node }))
}
fn leaf(number: f64) -> Value {
    new(number, None)
}
fn apply(op: impl Function + 'static, inputs: &[&Value]) -> Value {
    let inputs: Vec<Value> = inputs.iter().map(|&v| v.clone()).collect();
    let numbers: Vec<f64> = inputs.iter().map(|v| v.0.number).collect();
    let number = op.forward(&numbers);
    new(number, Some(Node { op: Rc::new(op), inputs }))
}

struct Sum;
impl Function for Sum {
    fn forward(&self, x: &[f64]) -> f64 {
        x[0] + x[1]
    }
    fn backward(&self, _: &[Value], _: &Value, g: &Value) -> Vec<Value> {
        vec![g.clone(), g.clone()]
    }
}
struct Difference;
impl Function for Difference {
    fn forward(&self, x: &[f64]) -> f64 {
        x[0] - x[1]
    }
    fn backward(&self, _: &[Value], _: &Value, g: &Value) -> Vec<Value> {
        vec![g.clone(), &leaf(0.0) - g]
    }
}
struct Product;
impl Function for Product {
    fn forward(&self, x: &[f64]) -> f64 {
        x[0] * x[1]
    }
    fn backward(&self, x: &[Value], _: &Value, g: &Value) -> Vec<Value> {
        vec![g * &x[1], g * &x[0]]
    }
}
struct Tanh;
impl Function for Tanh {
    fn forward(&self, x: &[f64]) -> f64 {
        x[0].tanh()
    }
    fn backward(&self, _: &[Value], y: &Value, g: &Value) -> Vec<Value> {
        vec![g * &(&leaf(1.0) - &(y * y))]
    }
}

impl Add for &Value {
    type Output = Value;
    fn add(self, other: &Value) -> Value {
        apply(Sum, &[self, other])
    }
}
impl Sub for &Value {
    type Output = Value;
    fn sub(self, other: &Value) -> Value {
        apply(Difference, &[self, other])
    }
}
impl Mul for &Value {
    type Output = Value;
    fn mul(self, other: &Value) -> Value {
        apply(Product, &[self, other])
    }
}

/// `∂y/∂x`, as a value that can be differentiated again.
fn grad(y: &Value, x: &Value) -> Value {
    let mut pending = BTreeMap::from([(y.0.id, y.clone())]);
    let mut gradients = HashMap::from([(y.0.id, leaf(1.0))]);
    // Largest id first: no recursion, however deep the graph.
    while let Some((id, value)) = pending.pop_last() {
        let g = gradients[&id].clone();
        let Some(node) = &value.0.node else { continue };
        for (input, g) in node.inputs.iter().zip(node.op.backward(&node.inputs, &value, &g)) {
            let sum = gradients.get(&input.0.id).map_or(g.clone(), |old| old + &g);
            gradients.insert(input.0.id, sum);
            pending.insert(input.0.id, input.clone());
        }
    }
    gradients.get(&x.0.id).cloned().unwrap_or_else(|| leaf(0.0))
}

fn f(x: &Value) -> Value {
    &(&(x * x) * x) * &apply(Tanh, &[x])
}

fn main() {
    let (x, h) = (leaf(0.5), 1e-4);
    let y = f(&x);
    let dy = grad(&y, &x);
    let d2y = grad(&dy, &x);
    let at = |d: f64| f(&leaf(0.5 + d)).0.number;
    println!("f(x) = x³ tanh(x) at 0.5: {:.7}", y.0.number);
    println!("f'(x)  = {:.7}, finite differences {:.7}", dy.0.number, (at(h) - at(-h)) / (2.0 * h));
    println!("f''(x) = {:.7}, finite differences {:.7}", d2y.0.number, (at(h) - 2.0 * at(0.0) + at(-h)) / (h * h));

    use ferrograd::prelude::{GradOptions, Tensor, Var, grad_with};
    let x = Var::leaf(Tensor::scalar(0.5));
    let dy = grad_with(&[&(x.powi(3) * x.tanh())], &[&x], GradOptions::create_graph());
    let d2y = ferrograd::autograd::grad(&dy[0], &[&x]);
    println!("the framework's engine: {:.7} and {:.7}", dy[0].item::<f64>(), d2y[0].item::<f64>());
}
