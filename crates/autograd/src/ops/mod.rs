//! The derivatives: one file per op, each a [`Function`](crate::Function) and the `Var` method that applies it.

mod activation;
mod arithmetic;
mod cast;
mod conv;
mod identity;
mod interpolate;
mod matmul;
mod plane_map;
mod pool;
mod sum;
mod view;

pub(crate) use identity::identity;
