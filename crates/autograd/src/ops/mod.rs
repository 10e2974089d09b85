//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod batch_norm;
mod cast;
mod cross_entropy;
mod dropout;
mod exponential;
mod extremum;
mod group_norm;
mod identity;
mod joining;
mod layer_norm;
mod linear;
mod matmul;
mod power;
mod rms_norm;
mod rounding;
mod section;
mod selection;
mod softmax;
mod sum;
mod trigonometry;
mod unary;
mod view;

pub(crate) use identity::identity;
