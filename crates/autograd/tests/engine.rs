//! The engine: right gradients, any order, any depth.

use ferrograd_autograd::*;
use ferrograd_tensor::{Device, Error, Tensor, catch};

#[test]
fn cube() {
    let x = Var::leaf(Tensor::scalar(3.0));
    let y = x.powi(3);
    let dy = grad_with(&[&y], &[&x], GradOptions::create_graph());
    let d2y = grad_with(&[&dy[0]], &[&x], GradOptions::create_graph());
    let d3y = grad(&d2y[0], &[&x]);
    assert_eq!((dy[0].item::<f64>(), d2y[0].item::<f64>(), d3y[0].item::<f64>()), (27.0, 18.0, 6.0));
}

/// On the CPU, whatever the default device is: the graph is the host's.
#[test]
fn a_million_operations_on_a_small_stack() {
    let run = || {
        let x = Var::leaf(Tensor::scalar(1.0f32).to_device(&Device::CPU));
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y = y + 1.0;
        }
        assert_eq!(y.backward().wrt(&x).item::<f32>(), 1.0);
        drop(y);
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// y = x, with something that lives as long as its node.
struct Holding(std::sync::Arc<()>);
impl Function for Holding {
    fn name(&self) -> &'static str {
        "holding"
    }
    fn forward(&self, x: &[Tensor], _: &mut Saved) -> Vec<Tensor> {
        vec![x[0].clone()]
    }
    fn backward(&self, _: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
        assert!(std::sync::Arc::strong_count(&self.0) > 1, "a node holds what it was made with");
        vec![g[0].clone()]
    }
}

#[test]
fn dropped_nodes_hold_nothing() {
    let token = std::sync::Arc::new(());
    let x = Var::leaf(Tensor::scalar(1.0f32));
    for hooked in [false, true] {
        let y = (0..10).fold(x.clone(), |y, _| {
            let y = Holding(token.clone()).apply1(&[&y]);
            if hooked {
                let token = token.clone();
                y.register_hook(move |_| assert!(std::sync::Arc::strong_count(&token) > 1));
            }
            y
        });
        assert_eq!(std::sync::Arc::strong_count(&token), if hooked { 21 } else { 11 });
        assert_eq!(y.backward().wrt(&x).item::<f32>(), 1.0);
        drop(y);
        assert_eq!(std::sync::Arc::strong_count(&token), 1);
    }
}

#[test]
fn threads_drop_one_graph_together() {
    use std::sync::{Arc, Barrier};
    const THREADS: usize = 4;
    let token = Arc::new(());
    let x = Var::leaf(Tensor::scalar(1.0f32));
    for _ in 0..20 {
        let mut values = vec![x.clone()];
        (0..2000).for_each(|i| values.push(Holding(token.clone()).apply1(&[&values[i]])));
        let start = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (values, start) = (values.clone(), start.clone());
                let run = move || {
                    start.wait();
                    drop(values);
                };
                std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap()
            })
            .collect();
        drop(values);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(Arc::strong_count(&token), 1);
    }
}

#[test]
fn a_thread_ends_with_a_graph_of_its_own() {
    thread_local!(static KEPT: std::cell::RefCell<Option<Var>> = const { std::cell::RefCell::new(None) });
    let token = std::sync::Arc::new(());
    for graph_first in [false, true] {
        let held = token.clone();
        let run = move || {
            let x = Var::leaf(Tensor::scalar(1.0f32));
            if graph_first {
                drop((0..10).fold(x.clone(), |y, _| y + 1.0));
            }
            KEPT.set(None); // which of the two thread locals is destroyed first depends on which was used first
            KEPT.set(Some((0..10).fold(x, |y, _| Holding(held.clone()).apply1(&[&y]))));
        };
        std::thread::spawn(run).join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&token), 1);
    }
}

#[test]
fn matmul_and_broadcast() {
    let x = Var::leaf(Tensor::new([[1.0, 2.0], [3.0, 4.0]]));
    let w = Var::leaf(Tensor::new([[0.5, -1.0], [2.0, 0.0]]));
    let b = Var::leaf(Tensor::new([0.1, 0.2]));
    let loss = (x.matmul(&w) + &b).tanh().sum();
    let grads = loss.backward();
    assert_eq!(*grads.wrt(&b).shape(), [2]);
    let eps = 1e-6;
    let f = |w: &Tensor| (x.tensor().matmul(w) + b.tensor()).tanh().sum().item::<f64>();
    let mut bumped = w.tensor().to_vec::<f64>();
    bumped[1] += eps;
    let numeric = (f(&Tensor::from_slice(&bumped, [2, 2])) - f(w.tensor())) / eps;
    assert!((numeric - grads.wrt(&w).to_vec::<f64>()[1]).abs() < 1e-5);
}

#[test]
fn a_second_backward_is_an_error() {
    let x = Var::leaf(Tensor::scalar(2.0));
    let y = x.exp();
    y.backward();
    assert!(matches!(catch(|| y.backward()), Err(Error::Derivative { op: "exp", .. })));
}

#[test]
fn gradcheck_finds_a_wrong_derivative() {
    struct Wrong;
    impl Function for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }
        fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
            saved.save_input(0);
            vec![x[0].square()]
        }
        fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
            vec![Some(g[0].as_ref().unwrap() * saved.input(0) * 3.0)]
        }
    }
    let x = [Tensor::new([0.5, -1.5])];
    let error = gradcheck(|x| Wrong.apply1(&[&x[0]]), &x).unwrap_err().to_string();
    assert!(error.starts_with("wrong: input 0, element 1: backward gives"), "{error}");
    gradcheck(|x| x[0].gelu(), &x).unwrap();
    gradgradcheck(|x| x[0].gelu() * x[0].tanh(), &x).unwrap();
}

#[test]
fn a_raw_backward_cannot_be_differentiated_again() {
    struct Raw;
    impl Function for Raw {
        fn name(&self) -> &'static str {
            "raw"
        }
        fn forward(&self, x: &[Tensor], saved: &mut Saved) -> Vec<Tensor> {
            saved.save_input(0);
            vec![x[0].square()]
        }
        fn backward(&self, saved: &Saved, g: &[Option<Var>]) -> Vec<Option<Var>> {
            let g = g[0].as_ref().unwrap().tensor() * saved.input(0).tensor() * 2.0;
            vec![Some(Var::constant(g))]
        }
    }
    let x = Var::leaf(Tensor::scalar(3.0));
    let y = Raw.apply1(&[&x]);
    assert_eq!(y.backward_retaining().wrt(&x).item::<f64>(), 6.0);
    let error = catch(|| grad_with(&[&y], &[&x], GradOptions::create_graph())).unwrap_err().to_string();
    assert!(error.starts_with("raw: the second derivative is not defined"), "{error}");
}

#[test]
fn hooks_and_kept_gradients() {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let x = Var::leaf(Tensor::scalar(2.0));
    let y = &x * 3.0;
    y.retain_grad();
    let log = seen.clone();
    y.register_hook(move |g| log.lock().unwrap().push(("y", g.item::<f64>())));
    let log = seen.clone();
    x.register_hook(move |g| log.lock().unwrap().push(("x", g.item::<f64>())));
    let grads = (y.square() + &y).backward();
    assert_eq!(grads.wrt(&y).item::<f64>(), 13.0);
    assert_eq!(grads.wrt(&x).item::<f64>(), 39.0);
    assert_eq!(*seen.lock().unwrap(), [("y", 13.0), ("x", 39.0)]);
}

#[test]
fn anomaly_names_the_operation_and_the_line() {
    let x = Var::leaf(Tensor::scalar(1e200));
    let line = line!() + 1;
    let error = catch(|| detect_anomaly(|| x.powi(3))).unwrap_err().to_string();
    assert!(error.starts_with("powi: the result of shape [] holds inf"), "{error}");
    assert!(error.contains(&format!("engine.rs:{line}")), "{error}");
}

#[test]
fn errors_of_backward_name_the_line_of_the_operation() {
    let x = Var::leaf(Tensor::scalar(1e-200));
    let line = line!() + 1;
    let y = x.sqrt().recip();
    let error = catch(|| detect_anomaly(|| y.powi(3).backward())).err().expect("an error").to_string();
    assert!(error.contains("inf") && error.contains(&format!("engine.rs:{line}")), "{error}");

    let line = line!() + 1;
    let z = x.square();
    z.backward();
    let error = catch(|| z.backward()).err().expect("an error").to_string();
    assert!(error.contains(&format!("engine.rs:{line}")), "{error}");
}
