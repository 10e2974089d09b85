//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod cast;
mod cumsum;
mod diagonal;
mod einsum;
mod identity;
mod index;
mod logsumexp;
mod matmul;
mod max;
mod mean;
mod norm;
mod prod;
mod sort;
mod sum;
mod var;
mod view;

pub(crate) use identity::identity;
