use super::*;
use crate::cpu::test_util::{
    assert_close, assert_same_for_any_thread_count, inner, integers, numeric_gradient, values,
};
use proptest::prelude::*;

fn indices(len: usize, seed: u64, n: usize) -> Vec<i64> {
    integers(len, seed, n as u64).into_iter().map(|i| i as i64).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn match_the_textbook_and_are_adjoint(
        outer in 0usize..4, n in 1usize..6, m in 0usize..7, width in 0usize..12, seed: u64,
    ) {
        let shape = (outer, n, width);
        let x = values(outer * n * width, 1);
        let dy = values(outer * m * width, 2);
        let (list, full) = (indices(m, seed, n), indices(dy.len(), seed, n));
        let (mut y, mut g) = (vec![f64::NAN; dy.len()], vec![f64::NAN; dy.len()]);
        index_select(shape, &x, &list, &mut y).unwrap();
        gather(shape, m, &x, &full, &mut g).unwrap();
        let (mut added, mut scattered) = (vec![0.5; x.len()], vec![0.5; x.len()]);
        let (mut expected_added, mut expected_scattered) = (added.clone(), scattered.clone());
        index_add(shape, &list, &dy, &mut added).unwrap();
        scatter_add(shape, m, &full, &dy, &mut scattered).unwrap();
        for (o, j, i) in (0..outer).flat_map(|o| (0..m).flat_map(move |j| (0..width).map(move |i| (o, j, i)))) {
            let at = (o * m + j) * width + i;
            let selected = (o * n + list[j] as usize) * width + i;
            let gathered = (o * n + full[at] as usize) * width + i;
            prop_assert_eq!(y[at], x[selected]);
            prop_assert_eq!(g[at], x[gathered]);
            expected_added[selected] += dy[at];
            expected_scattered[gathered] += dy[at];
        }
        prop_assert_eq!(&added, &expected_added); // the same order of additions, hence the same bits
        prop_assert_eq!(&scattered, &expected_scattered);
        added.iter_mut().chain(&mut scattered).for_each(|v| *v -= 0.5);
        prop_assert!((inner(&y, &dy) - inner(&x, &added)).abs() < 1e-12);
        prop_assert!((inner(&g, &dy) - inner(&x, &scattered)).abs() < 1e-12);
    }

    #[test]
    fn out_of_range(m in 1usize..20, n in 0usize..5, at in 0usize..20, high: bool, also in 0usize..20) {
        let at = at % m;
        let wrong = if high { n as i64 } else { -1 };
        // With n = 0 every index is wrong.
        let mut list = if n == 0 { vec![0; m] } else { indices(m, 3, n) };
        list[at] = wrong;
        list[at + also % (m - at)] = wrong;
        let first = if n == 0 { 0 } else { at };
        let expected = Err((first, list[first]));
        let (x, dy) = (vec![1.0; n * 2], vec![1.0; m * 2]);
        let (mut y, mut dx) = (vec![7.0; m * 2], vec![7.0; n * 2]);
        prop_assert_eq!(index_select((1, n, 2), &x, &list, &mut y), expected);
        prop_assert_eq!(gather((1, n, 1), m, &x[..n], &list, &mut y[..m]), expected);
        prop_assert_eq!(index_add((1, n, 2), &list, &dy, &mut dx), expected);
        prop_assert_eq!(scatter_add((1, n, 1), m, &list, &dy[..m], &mut dx[..n]), expected);
        prop_assert!(y.iter().chain(&dx).all(|&v| v == 7.0));
    }
}

#[test]
fn checks_extreme_and_long_lists() {
    assert_eq!(check_indices(&[i64::MIN], 3), Err((0, i64::MIN)));
    assert_eq!(check_indices(&[2, i64::MAX], 3), Err((1, i64::MAX)));
    let mut list = vec![1; 100_000];
    assert_eq!(check_indices(&list, 2), Ok(()));
    list[70_001] = 2;
    list[90_000] = -1;
    assert_eq!(check_indices(&list, 2), Err((70_001, 2)));
}

#[test]
fn parallel_additions_keep_their_order() {
    // Large enough for every parallel path; f32 sums show any change of order.
    let single = |n| values(n, 9).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    for (outer, n, m, width, distinct) in [
        (1, 500, 4000, 16, 500),
        (1, 500, 3000, 16, 1),
        (2, 50, 3000, 32, 3),
        (1, 900, 90_000, 1, 900),
        (40, 9, 50, 40, 9),
    ] {
        let (x, list) = (single(outer * m * width), indices(m, 4, distinct));
        let full = indices(x.len(), 5, distinct);
        let run = || {
            let mut y = (vec![0.0; outer * n * width], vec![0.0; outer * n * width]);
            index_add((outer, n, width), &list, &x, &mut y.0).unwrap();
            scatter_add((outer, n, width), m, &full, &x, &mut y.1).unwrap();
            y
        };
        assert_same_for_any_thread_count(run);
        let mut expected = (vec![0.0; outer * n * width], vec![0.0; outer * n * width]);
        for (at, &x) in x.iter().enumerate() {
            let (o, j, i) = (at / (m * width), at / width % m, at % width);
            expected.0[(o * n + list[j] as usize) * width + i] += x;
            expected.1[(o * n + full[at] as usize) * width + i] += x;
        }
        assert!(run() == expected);
    }
}

#[test]
fn central_differences() {
    let (list, dy) = (indices(6, 1, 4), values(18, 2));
    let weight = values(12, 3);
    let mut grad = vec![0.0; 12];
    index_add((1, 4, 3), &list, &dy, &mut grad).unwrap();
    let forward = |w: &[f64]| {
        let mut y = vec![0.0; 18];
        index_select((1, 4, 3), w, &list, &mut y).unwrap();
        y
    };
    assert_close(&grad, &numeric_gradient(&weight, &dy, forward), 1e-8);
}

#[test]
fn integers_wrap() {
    let mut y = [250u8, 0];
    index_add((1, 2, 1), &[0, 1, 0], &[5, 1, 5], &mut y).unwrap();
    assert_eq!(y, [4, 1]);
    scatter_add((1, 2, 1), 1, &[1], &[255], &mut y).unwrap();
    assert_eq!(y, [4, 0]);
}

#[test]
fn any_copy_type_gathers() {
    let x = [("a", true), ("b", false)];
    let mut y = [("", false); 3];
    index_select((1, 2, 1), &x, &[1, 0, 1], &mut y).unwrap();
    assert_eq!(y, [x[1], x[0], x[1]]);
}
