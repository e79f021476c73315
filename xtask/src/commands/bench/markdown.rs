//! `bench.md`: the report for a reader.

use super::agreement::describe;
use super::compare::{Comparison, Summary, Verdict};
use super::report::Report;
use super::targets::{Checked, Outcome};

pub(super) fn markdown(report: &Report) -> String {
    [
        head(report),
        origin(report),
        failed_programs(report),
        peers(report),
        notes(report),
        targets(report),
        unmeasured(report),
        benches(report),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n")
}

fn head(report: &Report) -> String {
    let origin = &report.origin;
    let arguments = match origin.arguments.join(" ") {
        none if none.is_empty() => "with no further arguments".to_owned(),
        some => format!("with `{some}` handed to `cargo bench`: not a whole report"),
    };
    let made = format!(
        "Written by `cargo xtask bench --peers`, {arguments}. Both sides were told to use {} threads.",
        origin.threads
    );
    let rounds = format!(
        "Ours and theirs were run in turn, a program of ours at a time, in up to {} rounds. In the first the whole program \
         ran and then its peers' scripts; in the others only the benches that a peer is compared with, and the scripts again. \
         A round has one ratio: the median of our iterations ÷ the median of theirs. Times of several rounds are medians of \
         the rounds' medians, and \"ours ÷ theirs\" is the median of the rounds' ratios, with the lowest and the highest \
         beside it. \"Samples\" counts what the medians are taken of in all rounds: criterion's samples, and the times that \
         a script gave. A script that gives one time, be it a median already, counts as one a round.",
        origin.rounds
    );
    let columns = "\"Met\" is yes if the ratio of every round was within what is wanted, no if that of none was, and open \
                   if those of some were. A bound in seconds is met if the median is within it, and open where \
                   criterion's interval covers it. \"Same result\" shows what both sides computed, ours first, where the \
                   two were compared.";
    format!("# Benches\n\n{}\n{}\n{}", wrapped(&made), wrapped(&rounds), wrapped(columns))
}

/// A paragraph in lines of at most 120 columns.
fn wrapped(text: &str) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 {
            let fits = width + 1 + length <= 120;
            lines.push(if fits { ' ' } else { '\n' });
            width = if fits { width + 1 } else { 0 };
        }
        lines += word;
        width += length;
    }
    lines + "\n"
}

fn origin(report: &Report) -> String {
    let origin = &report.origin;
    let mut text = format!("- commit: {}\n- date: {}\n", origin.commit, origin.date);
    for (key, value) in &origin.machine {
        text += &format!("- {key}: {value}\n");
    }
    text += &format!("- threads: {}\n- rounds: {}\n", origin.threads, origin.rounds);
    let arguments = origin.arguments.join(" ");
    text +=
        &if arguments.is_empty() { "- arguments: none\n".to_owned() } else { format!("- arguments: `{arguments}`\n") };
    for (name, versions) in &report.installed {
        text += &format!("- Python environment `{name}`: {versions}\n");
    }
    text
}

fn failed_programs(report: &Report) -> String {
    let failed = report.failed_programs.iter();
    let items = failed.map(|run| format!("- `{}`, round {}: {}\n", run.program, run.round, one_line(&run.why)));
    list("Failed programs, of which only what they had measured until then is below:", items)
}

fn peers(report: &Report) -> String {
    let header = [
        "what",
        "ours",
        "theirs",
        "samples",
        "ours ÷ theirs",
        "rounds",
        "lowest – highest",
        "wanted",
        "met",
        "same result",
    ];
    table("Ours beside theirs:", &header, report.peers.iter().map(|peer| row(peer, report)))
}

fn row(peer: &Comparison, report: &Report) -> Vec<String> {
    let none = || "–".to_owned();
    let wanted = format!("≤ {}", peer.want);
    match &peer.summary {
        Summary::Compared(figures) => {
            let rounds = peer.rounds.iter().filter(|round| round.outcome.loss().is_none()).count();
            let [low, high] = figures.range.map(quotient);
            let mut met = verdict(figures.verdict).to_owned();
            for round in &peer.rounds {
                if let Some(why) = round.outcome.loss() {
                    met += &format!("; not run in round {}: {why}", round.round);
                }
            }
            vec![
                peer.name.clone(),
                time(figures.our_seconds),
                time(figures.their_seconds),
                format!("{}, {}", figures.our_samples, figures.their_samples),
                quotient(figures.ratio),
                rounds.to_string(),
                if rounds > 1 { format!("{low} – {high}") } else { none() },
                wanted,
                met,
                describe(&figures.results),
            ]
        }
        Summary::NotRun { not_run } => {
            let ours = report.benches.iter().find(|bench| bench.id == peer.ours);
            vec![
                peer.name.clone(),
                ours.map_or_else(none, |bench| time(bench.seconds)),
                none(),
                ours.map_or_else(none, |bench| format!("{}, –", bench.samples)),
                none(),
                "0".to_owned(),
                none(),
                wanted,
                format!("not run: {not_run}"),
                none(),
            ]
        }
    }
}

fn notes(report: &Report) -> String {
    let noted = report.peers.iter().filter_map(|peer| Some((&peer.name, peer.note.as_ref()?)));
    list("Notes:", noted.map(|(name, note)| format!("- {}: {}\n", one_line(name), one_line(note))))
}

fn targets(report: &Report) -> String {
    table("Targets of our own:", &["what", "measured", "wanted", "met"], report.targets.iter().map(target_row))
}

fn target_row(target: &Checked) -> Vec<String> {
    let what = match (&target.name, &target.of) {
        (Some(name), _) => name.clone(),
        (None, None) => format!("`{}`", target.bench),
        (None, Some(other)) => format!("`{}` ÷ `{other}`", target.bench),
    };
    let written = |value| if target.of.is_some() { quotient(value) } else { time(value) };
    let (measured, met) = match &target.outcome {
        Outcome::Measured { measured, verdict: found } => (written(*measured), verdict(*found).to_owned()),
        Outcome::NotRun { not_run } => ("–".to_owned(), format!("not run: {not_run}")),
    };
    vec![what, measured, format!("≤ {}", written(target.at_most)), met]
}

fn unmeasured(report: &Report) -> String {
    let items = report.unmeasured.iter();
    list("Not measured:", items.map(|goal| format!("- {}: {}\n", one_line(&goal.name), one_line(&goal.why))))
}

fn benches(report: &Report) -> String {
    let rows = report.benches.iter().map(|bench| {
        let [low, high] = bench.interval.map(time);
        let rounds = bench.rounds.len().to_string();
        vec![bench.id.clone(), time(bench.seconds), format!("{low} – {high}"), bench.samples.to_string(), rounds]
    });
    table("All of our benches:", &["bench", "median", "interval", "samples", "rounds"], rows)
}

/// Nothing if it has no rows.
fn table(title: &str, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = String::new();
    for row in rows {
        if text.is_empty() {
            text = format!("{title}\n\n| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len()));
        }
        let cells: Vec<String> = row.iter().map(|cell| one_line(cell).replace('|', "/")).collect();
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// Nothing if it has no items.
fn list(title: &str, items: impl Iterator<Item = String>) -> String {
    let items: String = items.collect();
    if items.is_empty() { items } else { format!("{title}\n\n{items}") }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Yes => "yes",
        Verdict::No => "**no**",
        Verdict::Open => "open",
    }
}

/// A quotient to three decimals, or, where they would hide it, to two digits.
fn quotient(x: f64) -> String {
    if x < 1e-3 { format!("{x:.1e}") } else { format!("{x:.3}") }
}

/// Seconds in the unit that keeps the number readable.
fn time(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        s if s >= 1.0 => (1.0, "s"),
        s if s >= 1e-3 => (1e3, "ms"),
        s if s >= 1e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    format!("{:.3} {unit}", seconds * scale)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::agreement::Recorded;
    use super::super::manifest::Manifest;
    use super::super::measure::Measurement;
    use super::super::origin::Origin;
    use super::super::rounds::{Log, Run};
    use super::*;

    const MANIFEST: &str = "[environments]\ndefault = ['numpy']\n\
        [[peer]]\nname = 'fit'\nscript = 'good.py'\nours = 'forest/fit'\nwant = 0.5\nagree = { accuracy = 0.01 }\nnote = 'a  note'\n\
        [[peer]]\nname = 'bad | pipe'\nscript = 'bad.py'\nours = 'forest/fit'\nwant = 0.5\n\
        [[peer]]\nname = 'without data'\nscript = 'good.py'\nours = 'forest/images'\nwant = 0.5\n\
        [[peer]]\nname = 'long'\nscript = 'long.py'\nours = 'forest/fit'\nwant = 1e-6\nrounds = 1\n\
        [[target]]\nname = 'a fit'\nbench = 'forest/fit'\nat_most = 0.95\n\
        [[target]]\nbench = 'forest/fit'\nof = 'forest/one'\nat_most = 1.1\n\
        [[unmeasured]]\nname = 'memory'\nwhy = 'no bench reads it'\n";

    fn measured(id: &str, seconds: f64) -> Measurement {
        Measurement { id: id.into(), seconds, interval: [seconds, seconds], confidence: 0.95, samples: 10 }
    }

    /// Two rounds; the script `bad.py` fails in those named.
    fn report(bad_rounds: &[usize], arguments: &[&str]) -> Report {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let (mut log, mut round, mut bad) = (Log::default(), 0, 0);
        let recorded = Recorded::from([("forest/fit".to_owned(), BTreeMap::from([("accuracy".to_owned(), 0.871)]))]);
        log.take_turns(
            &manifest,
            2,
            "forest",
            |_| {
                round += 1;
                let measured = vec![measured("forest/fit", [0.8, 1.0][round - 1]), measured("forest/one", 0.9)];
                let failure = (round == 2).then(|| "exit status: 101".to_owned());
                Run { measured, recorded: recorded.clone(), failure }
            },
            |peer| match peer.script.as_str() {
                "bad.py" => {
                    bad += 1;
                    if bad_rounds.contains(&bad) {
                        Err("bad.py\nfailed".to_owned())
                    } else {
                        Ok("{\"seconds\": 4}".to_owned())
                    }
                }
                "long.py" => Ok("{\"seconds\": 800.0}".to_owned()),
                _ => Ok("{\"seconds\": [1.9, 2.0, 2.1], \"accuracy\": 0.872}".to_owned()),
            },
        );
        let origin = Origin {
            commit: "abc".into(),
            date: "2024-02-29".into(),
            machine: BTreeMap::from([("cores", "2".to_owned())]),
            threads: 2,
            rounds: 2,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        };
        Report::new(origin, &manifest, log, BTreeMap::new())
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|there| there == line), "no line\n{line}\nin\n{text}");
    }

    #[test]
    fn every_peer_is_a_row() {
        let text = markdown(&report(&[1], &[]));
        // 0.8 ÷ 2 and 1 ÷ 2, of which the median is 0.45.
        assert_has(
            &text,
            "| fit | 900.000 ms | 2.000 s | 20, 6 | 0.450 | 2 | 0.400 – 0.500 | ≤ 0.5 | yes | accuracy 0.871, 0.872 |",
        );
        assert_has(
            &text,
            "| bad / pipe | 1.000 s | 4.000 s | 10, 1 | 0.250 | 1 | – | ≤ 0.5 | yes; not run in round 1: bad.py failed | – |",
        );
        assert_has(&text, "| without data | – | – | – | – | 0 | – | ≤ 0.5 | not run: no bench `forest/images` | – |");
        assert_has(&text, "| long | 800.000 ms | 800.000 s | 10, 1 | 0.001 | 1 | – | ≤ 0.000001 | **no** | – |");
        let text = markdown(&report(&[1, 2], &[]));
        assert_has(&text, "| bad / pipe | 900.000 ms | – | 20, – | – | 0 | – | ≤ 0.5 | not run: bad.py failed | – |");
    }

    #[test]
    fn notes_targets_failures_and_what_is_not_measured_are_told() {
        let text = markdown(&report(&[], &[]));
        assert_has(&text, "- fit: a note");
        assert_has(&text, "- memory: no bench reads it");
        assert_has(&text, "- `forest`, round 2: exit status: 101");
        assert_has(&text, "| a fit | 900.000 ms | ≤ 950.000 ms | open |");
        assert_has(&text, "| `forest/fit` ÷ `forest/one` | 1.000 | ≤ 1.100 | yes |");
        assert_has(&text, "| forest/fit | 900.000 ms | 800.000 ms – 1.000 s | 20 | 2 |");
    }

    #[test]
    fn the_head_says_how_the_report_was_made() {
        let text = markdown(&report(&[], &[]));
        let words = one_line(&text);
        for told in [
            "in up to 2 rounds",
            "in turn",
            "to use 2 threads",
            "with no further arguments",
            "medians of the rounds' medians",
            "open if those of some were",
        ] {
            assert!(words.contains(told), "{told} is not in\n{text}");
        }
        assert!(text.lines().take_while(|line| !line.starts_with("- ")).all(|line| line.chars().count() <= 120));
        assert_has(&text, "- arguments: none");
        assert_has(&text, "- threads: 2");
        let text = markdown(&report(&[], &["forest", "--", "--quick"]));
        assert_has(&text, "- arguments: `forest -- --quick`");
        let told = "with `forest -- --quick` handed to `cargo bench`: not a whole report";
        assert!(one_line(&text).contains(told), "{text}");
    }

    #[test]
    fn times_are_written_in_readable_units() {
        assert_eq!(time(1.5), "1.500 s");
        assert_eq!(time(0.0025), "2.500 ms");
        assert_eq!(time(2e-8), "20.000 ns");
    }

    #[test]
    fn small_quotients_keep_their_digits() {
        // 1.511 µs ÷ 295.859 s.
        assert_eq!(quotient(1.511e-6 / 295.859), "5.1e-9");
        assert_eq!(quotient(0.0116), "0.012");
    }
}
