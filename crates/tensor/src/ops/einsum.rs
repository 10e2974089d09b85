//! Einstein summation: products and sums said in letters.
//!
//! The plan is written against [`Operand`], so that the autograd crate computes by the same one.

use crate::shape::{Dims, Shape};
use crate::{Tensor, ensure, fail};

const OP: &str = "einsum";

/// What einsum computes with: tensors here, variables with history in the autograd crate.
pub trait Operand: Clone {
    /// The extents.
    fn dims(&self) -> &[usize];
    /// The dimensions in another order.
    fn permute_dims(&self, order: &[usize]) -> Self;
    /// The same elements under another shape.
    fn reshape(&self, shape: Shape) -> Self;
    /// `[…, M, K] × […, K, N]`.
    fn matmul(&self, other: &Self) -> Self;
    /// Elementwise, broadcast.
    fn mul(&self, other: &Self) -> Self;
    /// Sum over `dims`, which disappear.
    fn sum_dims(&self, dims: &[usize]) -> Self;
    /// The diagonal of the last two dimensions.
    fn diagonal(&self) -> Self;
}

impl Operand for Tensor {
    fn dims(&self) -> &[usize] {
        Tensor::dims(self)
    }
    fn permute_dims(&self, order: &[usize]) -> Self {
        Tensor::permute_dims(self, order)
    }
    fn reshape(&self, shape: Shape) -> Self {
        Tensor::reshape(self, shape)
    }
    #[track_caller]
    fn matmul(&self, other: &Self) -> Self {
        Tensor::matmul(self, other)
    }
    #[track_caller]
    fn mul(&self, other: &Self) -> Self {
        Tensor::mul(self, other)
    }
    fn sum_dims(&self, dims: &[usize]) -> Self {
        Tensor::sum_dims(self, dims)
    }
    fn diagonal(&self) -> Self {
        Tensor::diagonal(self)
    }
}

impl Tensor {
    /// `Tensor::einsum("bij,bjk->bik", &[&a, &b])`: each letter names a dimension; the operands are multiplied, and what is
    /// not named behind the arrow is summed.
    ///
    /// - A letter twice in one operand takes the diagonal.
    /// - `...` stands for any further dimensions, aligned at their ends and broadcast.
    /// - Without an arrow the result has the dimensions of `...`, then the letters that occur once, in ASCII order.
    /// - Spaces mean nothing.
    ///
    /// Operands are contracted in pairs from left to right, each pair as a matrix product. dtypes as in
    /// [`matmul`](Tensor::matmul).
    ///
    /// # Panics
    /// If the equation is not one, does not fit the operands, or a letter's extents differ.
    #[track_caller]
    pub fn einsum(equation: &str, operands: &[&Tensor]) -> Tensor {
        for pair in operands.windows(2) {
            crate::tensor::same_device(OP, pair);
        }
        einsum(equation, operands)
    }
}

/// A dimension's name: a letter, or a place in the ellipsis counted from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// An operand and the names of its dimensions.
struct Term<X> {
    x: X,
    labels: Vec<Label>,
}

/// The letters of one operand or of the result; `None` stands for `...`.
#[track_caller]
fn parse(equation: &str, part: &str) -> Vec<Option<char>> {
    let mut out = Vec::new();
    let mut rest = part;
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("...") {
            ensure!(!out.contains(&None), Value, OP, "{equation:?}: more than one ellipsis in {part:?}");
            out.push(None);
            rest = tail;
        } else if c.is_ascii_alphabetic() {
            out.push(Some(c));
            rest = &rest[1..];
        } else {
            fail!(Value, OP, "{equation:?}: {c:?} is neither a letter nor part of \"...\"");
        }
    }
    out
}

/// [`Tensor::einsum`] for any [`Operand`].
#[track_caller]
pub fn einsum<X: Operand>(equation: &str, operands: &[&X]) -> X {
    let stripped: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match stripped.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (&stripped[..], None),
    };
    let inputs: Vec<Vec<Option<char>>> = inputs.split(',').map(|part| parse(equation, part)).collect();
    ensure!(
        inputs.len() == operands.len(),
        Value,
        OP,
        "{equation:?} names {} operands, got {}",
        inputs.len(),
        operands.len()
    );
    let mut terms: Vec<Term<X>> =
        inputs.iter().zip(operands).enumerate().map(|(i, (names, &x))| label(equation, i, names, x)).collect();
    let extents = extents(equation, &terms);
    let known = |l: &Label| extents.iter().any(|(k, _)| k == l);
    let mut ellipsis: Vec<Label> =
        extents.iter().map(|&(l, _)| l).filter(|l| matches!(l, Label::Ellipsis(_))).collect();
    ellipsis.sort_by_key(|l| std::cmp::Reverse(if let Label::Ellipsis(k) = l { *k } else { 0 }));

    let output: Vec<Label> = match output {
        Some(output) => {
            let names = parse(equation, output);
            let mut labels = Vec::new();
            for name in names {
                let Some(c) = name else {
                    labels.extend(&ellipsis);
                    continue;
                };
                let l = Label::Letter(c);
                ensure!(known(&l), Value, OP, "{equation:?}: the result's {c:?} is in no operand");
                ensure!(!labels.contains(&l), Value, OP, "{equation:?}: the result has {c:?} more than once");
                labels.push(l);
            }
            labels
        }
        None => {
            let all: Vec<char> = inputs.iter().flatten().flatten().copied().collect();
            let mut once: Vec<char> =
                all.iter().copied().filter(|c| all.iter().filter(|d| *d == c).count() == 1).collect();
            once.sort_unstable();
            ellipsis.iter().copied().chain(once.into_iter().map(Label::Letter)).collect()
        }
    };

    // A repeated dimension (extent 1 where others have more) is the same as one that is not there.
    for term in &mut terms {
        let kept = |d: usize| term.x.dims()[d] == extents.iter().find(|(l, _)| *l == term.labels[d]).expect("known").1;
        let dims: Vec<usize> = (0..term.labels.len()).filter(|&d| kept(d)).collect();
        if dims.len() < term.labels.len() {
            let shape: Shape = dims.iter().map(|&d| term.x.dims()[d]).collect();
            term.labels = dims.iter().map(|&d| term.labels[d]).collect();
            term.x = term.x.reshape(shape);
        }
    }

    let mut rest = terms.into_iter();
    let mut result = rest.next().expect("split gives at least one part");
    let mut rest: Vec<Term<X>> = rest.collect();
    while !rest.is_empty() {
        let mut next = rest.remove(0);
        let later = |l: &Label| output.contains(l) || rest.iter().any(|t| t.labels.contains(l));
        // What only one of the two has and nobody needs later is summed before it makes the product larger.
        result = sum_out(result, |l| later(l) || next.labels.contains(l));
        next = sum_out(next, |l| later(l) || result.labels.contains(l));
        result = contract(result, next, later);
    }
    let result = sum_out(result, |l| output.contains(l));
    arrange(&result, &output).x
}

/// Names the dimensions of operand `i` and takes its diagonals.
#[track_caller]
fn label<X: Operand>(equation: &str, i: usize, names: &[Option<char>], x: &X) -> Term<X> {
    let (rank, letters) = (x.dims().len(), names.iter().flatten().count());
    let has_ellipsis = names.contains(&None);
    ensure!(
        if has_ellipsis { letters <= rank } else { letters == rank },
        Shape,
        OP,
        "{equation:?} names {letters} dimensions of operand {i}{}, which has {rank}: {:?}",
        if has_ellipsis { " besides the ellipsis" } else { "" },
        x.dims()
    );
    let further = rank - letters;
    let mut labels: Vec<Label> = Vec::with_capacity(rank);
    for name in names {
        match name {
            Some(c) => labels.push(Label::Letter(*c)),
            None => labels.extend((0..further).rev().map(Label::Ellipsis)),
        }
    }
    let mut x = x.clone();
    while let Some((first, second)) = repeated(&labels) {
        let (n, m) = (x.dims()[first], x.dims()[second]);
        let Label::Letter(c) = labels[first] else { unreachable!("an ellipsis occurs once") };
        ensure!(n == m, Shape, OP, "{equation:?}: {c:?} is {n} and {m} in operand {i}: {:?}", x.dims());
        let mut order: Vec<usize> = (0..labels.len()).filter(|&d| d != first && d != second).collect();
        order.extend([first, second]);
        x = x.permute_dims(&order).diagonal();
        labels = order[..order.len() - 1].iter().map(|&d| labels[d]).collect();
    }
    Term { x, labels }
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|d| labels[..d].iter().position(|l| *l == labels[d]).map(|first| (first, d)))
}

/// Each label's extent: all operands agree, or have 1.
#[track_caller]
fn extents<X: Operand>(equation: &str, terms: &[Term<X>]) -> Vec<(Label, usize)> {
    let mut extents: Vec<(Label, usize)> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        for (&l, &n) in term.labels.iter().zip(term.x.dims()) {
            match extents.iter_mut().find(|(k, _)| *k == l) {
                None => extents.push((l, n)),
                Some((_, m)) if *m == 1 => *m = n,
                Some((_, m)) => {
                    let name = match l {
                        Label::Letter(c) => format!("{c:?}"),
                        Label::Ellipsis(k) => format!("dimension -{} of the ellipsis", k + 1),
                    };
                    ensure!(n == *m || n == 1, Shape, OP, "{equation:?}: {name} is {m}, but {n} in operand {i}");
                }
            }
        }
    }
    extents
}

/// Sums the labels that are not wanted.
fn sum_out<X: Operand>(term: Term<X>, wanted: impl Fn(&Label) -> bool) -> Term<X> {
    let gone: Vec<usize> = (0..term.labels.len()).filter(|&d| !wanted(&term.labels[d])).collect();
    if gone.is_empty() {
        return term;
    }
    Term { x: term.x.sum_dims(&gone), labels: term.labels.into_iter().filter(|l| wanted(l)).collect() }
}

/// With dimensions in the order of `labels`: those that the term lacks get extent 1.
fn arrange<X: Operand>(term: &Term<X>, labels: &[Label]) -> Term<X> {
    let order: Dims = labels.iter().filter_map(|l| term.labels.iter().position(|k| k == l)).collect();
    debug_assert_eq!(order.len(), term.labels.len());
    let mut x = term.x.clone();
    if !order.iter().copied().eq(0..order.len()) {
        x = x.permute_dims(&order);
    }
    if order.len() < labels.len() {
        let mut dims = x.dims().iter();
        let shape: Shape =
            labels.iter().map(|l| if term.labels.contains(l) { *dims.next().expect("one each") } else { 1 }).collect();
        x = x.reshape(shape);
    }
    Term { x, labels: labels.to_vec() }
}

/// The product of two terms, summed over what both have and is not wanted later.
#[track_caller]
fn contract<X: Operand>(a: Term<X>, b: Term<X>, later: impl Fn(&Label) -> bool) -> Term<X> {
    let both = |l: &&Label| b.labels.contains(l);
    let batch: Vec<Label> = a.labels.iter().filter(both).copied().filter(&later).collect();
    let summed: Vec<Label> = a.labels.iter().filter(both).copied().filter(|l| !later(l)).collect();
    let only = |x: &Term<X>, y: &Term<X>| -> Vec<Label> {
        x.labels.iter().copied().filter(|l| !y.labels.contains(l)).collect()
    };
    let (rows, columns) = (only(&a, &b), only(&b, &a));
    let labels: Vec<Label> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    if summed.is_empty() {
        let (a, b) = (arrange(&a, &labels), arrange(&b, &labels));
        return Term { x: a.x.mul(&b.x), labels };
    }
    // [batch…, M, K] × [batch…, K, N]
    let matrix = |x: Term<X>, first: &[Label], second: &[Label]| {
        let order: Vec<Label> = batch.iter().chain(first).chain(second).copied().collect();
        let x = arrange(&x, &order).x;
        let (lead, inner) = x.dims().split_at(batch.len());
        let (first, second) = inner.split_at(first.len());
        let shape: Shape = lead.iter().copied().chain([first.iter().product(), second.iter().product()]).collect();
        let extents: Vec<usize> = x.dims().to_vec();
        (x.reshape(shape), extents)
    };
    let (x, a_dims) = matrix(a, &rows, &summed);
    let (y, b_dims) = matrix(b, &summed, &columns);
    let shape: Shape =
        a_dims[..batch.len() + rows.len()].iter().chain(&b_dims[batch.len() + summed.len()..]).copied().collect();
    Term { x: x.matmul(&y).reshape(shape), labels }
}
