//! The `main` of a peer's program: `PROGRAM --seconds S --threads N [--case NAME] GROUP…`.

/// Cases of one group, and its name.
pub type Group = (&'static str, fn(&Bench));

/// How a peer is to be timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    peer: &'static str,
    seconds: f64,
    /// The case that this process is for, if not for all of its groups'.
    only: Option<String>,
    /// Threads it may use. Rayon's pool has as many already: `RAYON_NUM_THREADS` is set.
    pub threads: usize,
}

impl Bench {
    /// Whether this process is to time the case: others need not be prepared.
    pub fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == case)
    }

    /// Times a case, named as ferrograd's is, if it is wanted.
    pub fn case(&self, case: &str, f: impl FnMut()) {
        if self.wants(case) {
            crate::case(self.peer, case, self.seconds, None, self.only.is_some(), f);
        }
    }
}

/// Runs the groups that the command line names and this peer has; the others print nothing.
///
/// # Panics
/// If the command line is wrong: `ferrograd-bench` writes it.
pub fn run(peer: &'static str, groups: &[Group]) {
    let (bench, wanted) = parse(peer, std::env::args().skip(1));
    for name in wanted {
        if let Some((_, group)) = groups.iter().find(|(n, _)| *n == name) {
            group(&bench);
        }
    }
}

fn parse(peer: &'static str, mut args: impl Iterator<Item = String>) -> (Bench, Vec<String>) {
    let mut bench = Bench { peer, seconds: 0.5, only: None, threads: 1 };
    let mut groups = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg}: no value"));
        match arg.as_str() {
            "--seconds" => bench.seconds = value().parse().expect("--seconds: a number"),
            "--threads" => bench.threads = value().parse().expect("--threads: a whole number"),
            "--case" => bench.only = Some(value()),
            _ => groups.push(arg),
        }
    }
    (bench, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let read = |line: &[&str]| parse("us", line.iter().map(|s| s.to_string()));
        let (bench, groups) = read(&["--seconds", "0.1", "gpt", "--threads", "2", "lstm"]);
        assert_eq!(bench, Bench { peer: "us", seconds: 0.1, only: None, threads: 2 });
        assert_eq!(groups, ["gpt", "lstm"]);
        assert!(bench.wants("gpt step f32") && bench.wants("gpt step bf16"));
        let (bench, _) = read(&["--case", "gpt step f32", "gpt"]);
        assert!(bench.wants("gpt step f32") && !bench.wants("gpt step bf16"));
    }
}
