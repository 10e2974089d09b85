//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod batch_norm;
mod cast;
mod cross_entropy;
mod cumsum;
mod dropout;
mod einsum;
mod exponential;
mod extremum;
mod group_norm;
mod identity;
mod index;
mod joining;
mod layer_norm;
mod linear;
mod logsumexp;
mod matmul;
mod max;
mod mean;
mod norm;
mod power;
mod prod;
mod rms_norm;
mod rounding;
mod section;
mod selection;
mod softmax;
mod sort;
mod sum;
mod trigonometry;
mod unary;
mod var;
mod view;

pub(crate) use identity::identity;
