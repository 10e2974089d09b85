//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod cast;
mod identity;
mod matmul;
mod sum;
mod view;

pub(crate) use identity::identity;
