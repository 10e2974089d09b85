//! Against PyTorch: every case of `golden/data/optim.safetensors`.

#[path = "../../../golden/reader.rs"]
mod golden;

use ferrograd_autograd::Gradients;
use ferrograd_nn::Param;
use ferrograd_optim::*;
use ferrograd_tensor::Tensor;
use golden::Golden;
use serde_json::Value;

#[track_caller]
fn close(have: &Tensor, want: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(have.shape(), want.shape(), "{what}");
    for (i, (a, b)) in have.to_f64_vec().into_iter().zip(want.to_f64_vec()).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{what}[{i}]: {a}, PyTorch has {b}");
    }
}

fn number(v: &Value) -> f64 {
    match v {
        Value::Bool(b) => *b as u8 as f64,
        Value::String(s) if s == "inf" => f64::INFINITY,
        Value::String(s) if s == "match_rms_adamw" => 1.0,
        v => v.as_f64().unwrap_or_else(|| panic!("{v} is no number")),
    }
}

/// PyTorch's arguments as our options.
fn options(config: &Value) -> Vec<(String, f64)> {
    let mut out = Vec::new();
    for (name, value) in config.as_object().expect("an object") {
        match name.as_str() {
            "optimizer" | "groups" => {}
            "betas" => out.extend([("beta1".into(), number(&value[0])), ("beta2".into(), number(&value[1]))]),
            "adjust_lr_fn" => out.push(("scale".into(), number(value))),
            _ => out.push((name.clone(), number(value))),
        }
    }
    out
}

fn build(config: &Value, params: &[(String, Param)]) -> Box<dyn Optimizer> {
    fn with<R: Rule + 'static>(config: &Value, params: &[(String, Param)]) -> Box<dyn Optimizer> {
        let find = |name: &str| params.iter().find(|p| p.0 == name).expect("a parameter").1.clone();
        if let Value::Object(groups) = &config["groups"] {
            let mut groups = groups.iter().map(|(name, own)| {
                options(own).iter().fold(ParamGroup::new([find(name)]), |g, (n, v)| g.option(n, *v))
            });
            // The first group's options become the optimiser's.
            let (name, own) = config["groups"].as_object().and_then(|g| g.iter().next()).expect("a group");
            let first = Stepper::<R>::new([find(name)]);
            let first = options(own).iter().fold(first, |o, (n, v)| o.with_option(n, *v));
            groups.next();
            return Box::new(groups.fold(first, |o, g| o.add_group(g)));
        }
        let all = Stepper::<R>::new(params.iter().map(|p| p.1.clone()));
        Box::new(options(config).iter().fold(all, |o, (n, v)| o.with_option(n, *v)))
    }
    match config["optimizer"].as_str().expect("a name") {
        "SGD" => with::<SgdRule>(config, params),
        "Adam" => with::<AdamRule>(config, params),
        "AdamW" => with::<AdamWRule>(config, params),
        "RMSprop" => with::<RmsPropRule>(config, params),
        "Adagrad" => with::<AdagradRule>(config, params),
        "Adadelta" => with::<AdadeltaRule>(config, params),
        "Lion" => with::<LionRule>(config, params),
        "Muon" => with::<MuonRule>(config, params),
        other => panic!("no optimiser {other}"),
    }
}

fn optimizer(golden: &Golden, case: &str, config: &Value) {
    let names: Vec<String> = golden.keys(case, "param.").iter().map(|k| k["param.".len()..].to_string()).collect();
    let params: Vec<(String, Param)> =
        names.iter().map(|n| (n.clone(), Param::new(golden.expect(case, &format!("param.{n}"))))).collect();
    let mut optimizer = build(config, &params);
    assert_eq!(optimizer.name(), config["optimizer"]);
    for t in 0..10 {
        let mut grads = Gradients::default();
        for (name, p) in &params {
            grads.insert(p, golden.expect(case, &format!("input.grad.{name}")).select(0, t));
        }
        optimizer.step(&grads);
        for (name, p) in &params {
            let want = golden.expect(case, &format!("output.{name}")).select(0, t);
            // Muon's iteration multiplies roundings by about 3.4 five times.
            let tolerance = if optimizer.name() == "Muon" { 1e-11 } else { 1e-13 };
            close(&p.tensor(), &want, tolerance, &format!("{case} {name} step {t}"));
        }
    }
}

fn schedule_of(name: &str, c: &Value) -> Box<dyn Schedule> {
    let count = |key: &str| c[key].as_u64().unwrap_or_else(|| panic!("{key}")) as usize;
    let float = |key: &str| number(&c[key]);
    match name {
        "StepLR" => Box::new(StepLr::new(count("step_size"), float("gamma"))),
        "MultiStepLR" => {
            let milestones = c["milestones"].as_array().expect("milestones").iter();
            let milestones: Vec<usize> = milestones.map(|m| m.as_u64().expect("a step") as usize).collect();
            Box::new(MultiStepLr::new(milestones, float("gamma")))
        }
        "ExponentialLR" => Box::new(ExponentialLr::new(float("gamma"))),
        "CosineAnnealingLR" => {
            let eta_min = c["eta_min"].as_f64().unwrap_or(0.0);
            Box::new(CosineAnnealingLr::new(count("T_max")).eta_min(eta_min))
        }
        "LinearLR" => Box::new(LinearLr::new(float("start_factor"), float("end_factor"), count("total_iters"))),
        "OneCycleLR" => Box::new(
            OneCycleLr::new(float("max_lr"), count("total_steps"))
                .pct_start(float("pct_start"))
                .anneal(if c["anneal_strategy"] == "cos" { Anneal::Cos } else { Anneal::Linear })
                .div_factor(float("div_factor"))
                .final_div_factor(float("final_div_factor"))
                .three_phase(c["three_phase"] == true)
                .momentum_range(Some([float("base_momentum"), float("max_momentum")])),
        ),
        "LambdaLR" => Box::new(NoamLr::new(count("d_model"), count("warmup"))),
        "SequentialLR" => {
            let part = |p: &Value| schedule_of(p[0].as_str().expect("a name"), &p[1]);
            let parts = c["parts"].as_array().expect("parts");
            let milestones = c["milestones"].as_array().expect("milestones");
            let first = SequentialLr::starting_with(part(&parts[0]));
            Box::new(
                parts[1..]
                    .iter()
                    .zip(milestones)
                    .fold(first, |s, (p, m)| s.then(m.as_u64().expect("a step") as usize, part(p))),
            )
        }
        other => panic!("no schedule {other}"),
    }
}

fn schedule(golden: &Golden, case: &str, config: &Value) {
    let mut sgd = Sgd::new([Param::new(Tensor::zeros(1))]).lr(number(&config["lr"])).momentum(0.9);
    let (lrs, momenta) = (golden.expect(case, "output.lr").to_f64_vec(), golden.get(case, "output.momentum"));
    let name = config["schedule"].as_str().expect("a name");
    let near = |a: f64, b: f64, what: &str, t: usize| {
        assert!((a - b).abs() <= 1e-13 * b.abs().max(1e-2), "{case}: {what} at step {t} is {a}, PyTorch's {b}");
    };
    if name == "ReduceLROnPlateau" {
        let mode = if config["mode"] == "min" { PlateauMode::Min } else { PlateauMode::Max };
        let threshold = number(&config["threshold"]);
        let rel = config["threshold_mode"] == "rel";
        let mut plateau = ReduceLrOnPlateau::new(mode)
            .factor(number(&config["factor"]))
            .patience(config["patience"].as_u64().expect("patience"))
            .threshold(if rel { Threshold::Rel(threshold) } else { Threshold::Abs(threshold) })
            .cooldown(config["cooldown"].as_u64().unwrap_or(0))
            .min_lr(config["min_lr"].as_f64().unwrap_or(0.0));
        for (t, metric) in golden.expect(case, "input.metric").to_f64_vec().into_iter().enumerate() {
            near(sgd.get_lr(), lrs[t], "lr", t);
            plateau.step(metric, &mut sgd);
        }
        return;
    }
    let mut scheduler = Scheduler::new(schedule_of(name, config), &mut sgd);
    for t in 0..lrs.len() {
        near(sgd.get_lr(), lrs[t], "lr", t);
        if let Some(momenta) = &momenta {
            near(sgd.option(0, "momentum").expect("SGD has momentum"), momenta.to_f64_vec()[t], "momentum", t);
        }
        scheduler.step(&mut sgd);
    }
}

fn clipping(golden: &Golden, case: &str, config: &Value) {
    let mut grads = Gradients::default();
    let mut params = Vec::new();
    for key in golden.keys(case, "input.grad.") {
        let g = golden.expect(case, &key);
        let p = Param::new(g.zeros_like());
        grads.insert(&p, g);
        params.push((key["input.".len()..].to_string(), p));
    }
    let ps = params.iter().map(|p| &p.1);
    if config["clip"] == "norm" {
        let total = clip_grad_norm(&mut grads, ps, number(&config["max_norm"]), number(&config["norm_type"]));
        let total = total.item::<f64>();
        let want = golden.expect(case, "output.total_norm").item::<f64>();
        assert!((total - want).abs() <= 1e-14 * want, "{case}: norm {total}, PyTorch has {want}");
    } else {
        clip_grad_value(&mut grads, ps, number(&config["clip_value"]));
    }
    for (key, p) in &params {
        close(grads.wrt(p), &golden.expect(case, &format!("output.{key}")), 1e-14, &format!("{case} {key}"));
    }
}

fn average(golden: &Golden, case: &str, config: &Value) {
    let inputs = golden.keys(case, "input.");
    let params: Vec<Param> =
        inputs.iter().map(|key| Param::new(golden.expect(case, key).select(0, 0).zeros_like())).collect();
    let mut ema = Ema::new(params.clone(), number(&config["decay"]));
    for t in 0..10 {
        for (key, p) in inputs.iter().zip(&params) {
            p.set(golden.expect(case, key).select(0, t).copy());
        }
        ema.update();
        for (key, average) in inputs.iter().zip(ema.averages()) {
            let want = golden.expect(case, &key.replace("input.", "output.")).select(0, t);
            close(average, &want, 1e-14, &format!("{case} {key} update {t}"));
        }
    }
}

#[test]
fn every_case() {
    let golden = Golden::open("optim");
    let cases = golden.cases();
    assert!(cases.len() >= 55, "only {} cases", cases.len());
    for case in cases {
        let config = golden.config(&case);
        match () {
            () if config.get("optimizer").is_some() => optimizer(&golden, &case, &config),
            () if config.get("schedule").is_some() => schedule(&golden, &case, &config),
            () if config.get("clip").is_some() => clipping(&golden, &case, &config),
            () if case == "ema" => average(&golden, &case, &config),
            () => panic!("{case}: nothing tests it"),
        }
    }
}
