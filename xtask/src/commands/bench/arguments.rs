//! What is handed on to `cargo bench`: cargo's own arguments, and criterion's behind `--`.

/// Cargo's options whose value is the argument behind them; `--bench` is read by itself.
const CARGO_OPTIONS: &[&str] = &[
    "--package",
    "-p",
    "--exclude",
    "--bin",
    "--example",
    "--test",
    "--jobs",
    "-j",
    "--profile",
    "--features",
    "-F",
    "--target",
    "--target-dir",
    "--manifest-path",
    "--lockfile-path",
    "--message-format",
    "--color",
    "--config",
    "-Z",
    "-C",
];

/// Criterion 0.7's options whose value is the argument behind them.
const CRITERION_OPTIONS: &[&str] = &[
    "--color",
    "-c",
    "--save-baseline",
    "-s",
    "--baseline",
    "-b",
    "--baseline-lenient",
    "--load-baseline",
    "--format",
    "--output-format",
    "--plotting-backend",
    "--profile-time",
    "--sample-size",
    "--warm-up-time",
    "--measurement-time",
    "--nresamples",
    "--noise-threshold",
    "--confidence-level",
    "--significance-level",
];

/// Arguments of the user's for `cargo bench`.
pub(super) struct Arguments {
    given: Vec<String>,
    /// The bench programs that `--bench` names; all if it names none.
    programs: Vec<String>,
    /// The rest of cargo's, without a filter.
    cargo: Vec<String>,
    /// Criterion's, without a filter.
    criterion: Vec<String>,
    filter: Option<String>,
    exact: bool,
}

impl Arguments {
    pub(super) fn new(given: &[String]) -> Self {
        let split = given.iter().position(|argument| argument == "--").unwrap_or(given.len());
        let mut programs = Vec::new();
        let mut named = Vec::new();
        let mut arguments = given[..split].iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--bench") {
                Some("") => programs.extend(arguments.next().cloned()),
                Some(value) if value.starts_with('=') => programs.push(value[1..].to_owned()),
                _ => named.push(argument.clone()),
            }
        }
        let (cargo, first) = without_filter(&named, CARGO_OPTIONS);
        let (mut criterion, second) = without_filter(given.get(split + 1..).unwrap_or_default(), CRITERION_OPTIONS);
        let exact = criterion.iter().any(|argument| argument == "--exact");
        criterion.retain(|argument| argument != "--exact");
        Self { given: given.to_vec(), programs, cargo, criterion, filter: first.or(second), exact }
    }

    /// As they were given.
    pub(super) fn given(&self) -> &[String] {
        &self.given
    }

    /// Whether the bench program is one that was asked for.
    pub(super) fn choose(&self, program: &str) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|chosen| chosen == program)
    }

    /// Those for a run of one program: of all benches that the user's filter lets through, or of these only.
    pub(super) fn of_run(&self, only: Option<&[&str]>) -> Vec<String> {
        let mut criterion = self.criterion.clone();
        match only {
            Some(ids) => criterion.push(exactly(ids)),
            None => {
                criterion.extend(self.exact.then(|| "--exact".to_owned()));
                criterion.extend(self.filter.clone());
            }
        }
        let mut arguments = self.cargo.clone();
        if !criterion.is_empty() {
            arguments.push("--".to_owned());
            arguments.append(&mut criterion);
        }
        arguments
    }
}

/// The arguments that are no filter, and the filter: the first that is neither an option nor an option's value.
fn without_filter(arguments: &[String], options: &[&str]) -> (Vec<String>, Option<String>) {
    let (mut kept, mut filter, mut is_value) = (Vec::new(), None, false);
    for argument in arguments {
        if is_value || argument.starts_with('-') || filter.is_some() {
            kept.push(argument.clone());
        } else {
            filter = Some(argument.clone());
        }
        is_value = !is_value && options.contains(&argument.as_str());
    }
    (kept, filter)
}

/// Criterion's filter, a regular expression, that lets these benches through and no others.
fn exactly(ids: &[&str]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| escape(id)).collect();
    format!("^({})$", ids.join("|"))
}

/// What has a meaning in a regular expression, taken literally.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Arguments {
        Arguments::new(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn ids_are_matched_whole_and_literally() {
        assert_eq!(exactly(&["fas/infer_128"]), "^(fas/infer_128)$");
        assert_eq!(
            exactly(&["checkpoint of 100 MB/PyTorch zip: read", "skip_below_0.1", "a|b (x+y)*[1] {2}?"]),
            r"^(checkpoint of 100 MB/PyTorch zip: read|skip_below_0\.1|a\|b \(x\+y\)\*\[1\] \{2\}\?)$"
        );
        assert_eq!(escape(r"a\b^c$d#e&f~g-h × ä"), r"a\\b\^c\$d\#e\&f\~g\-h × ä");
    }

    #[test]
    fn a_first_run_gets_the_arguments_as_they_were_given() {
        assert!(arguments("").of_run(None).is_empty());
        assert_eq!(arguments("forest -- --quick").of_run(None), ["--", "--quick", "forest"]);
        assert_eq!(arguments("-- --exact forest/fit").of_run(None), ["--", "--exact", "forest/fit"]);
    }

    #[test]
    fn a_filter_of_ours_takes_the_place_of_the_users() {
        let ours = |text: &str| arguments(text).of_run(Some(&["x"])).join(" ");
        assert_eq!(ours(""), "-- ^(x)$");
        assert_eq!(ours("forest -- --quick"), "-- --quick ^(x)$");
        assert_eq!(ours("--profile dev forest"), "--profile dev -- ^(x)$");
        assert_eq!(ours("-- --sample-size 10 forest --noplot"), "-- --sample-size 10 --noplot ^(x)$");
        assert_eq!(ours("-- --exact forest/fit"), "-- ^(x)$");
    }

    #[test]
    fn programs_can_be_chosen() {
        let chosen = arguments("--bench forest --bench=lth x");
        assert!(chosen.choose("forest") && chosen.choose("lth") && !chosen.choose("text"));
        assert_eq!(chosen.of_run(None), ["--", "x"]);
        assert!(arguments("forest").choose("text"));
    }
}
