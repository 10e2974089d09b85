//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod cast;
mod dropout;
mod exponential;
mod extremum;
mod identity;
mod joining;
mod matmul;
mod power;
mod rounding;
mod section;
mod selection;
mod sum;
mod trigonometry;
mod unary;
mod view;

pub(crate) use identity::identity;
