//! The `main` of a peer's program: `PROGRAM --seconds S --threads N GROUP…`.

/// Cases of one group, and its name.
pub type Group = (&'static str, fn(&Bench));

/// How a peer is to be timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    peer: &'static str,
    seconds: f64,
    /// Threads it may use. Rayon's pool has as many already: `RAYON_NUM_THREADS` is set.
    pub threads: usize,
}

impl Bench {
    /// Times a case, named as ferrograd's is.
    pub fn case(&self, case: &str, f: impl FnMut()) {
        crate::case(self.peer, case, self.seconds, None, f);
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
    let mut bench = Bench { peer, seconds: 0.5, threads: 1 };
    let mut groups = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg}: no value"));
        match arg.as_str() {
            "--seconds" => bench.seconds = value().parse().expect("--seconds: a number"),
            "--threads" => bench.threads = value().parse().expect("--threads: a whole number"),
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
        let line = ["--seconds", "0.1", "gpt", "--threads", "2", "lstm"];
        let (bench, groups) = parse("us", line.iter().map(|s| s.to_string()));
        assert_eq!(bench, Bench { peer: "us", seconds: 0.1, threads: 2 });
        assert_eq!(groups, ["gpt", "lstm"]);
    }
}
