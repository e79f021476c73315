//! The whole program, as a person meets it: the `toy` example with its two papers, doubled and damaged.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::{Place, pid, text, wait_until};

#[test]
fn workers_do_not_outlive_the_executor() {
    let place = Place::new();
    let mut child =
        place.command("run momentum --jobs 2").env("TOY_EPOCH_MS", "10000").stderr(Stdio::null()).spawn().unwrap();
    let locks = || -> Vec<PathBuf> {
        fs::read_dir(place.path("runs/.locks")).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    wait_until("two workers", || place.epochs() >= 2);
    let free = |path: &PathBuf| File::open(path).unwrap().try_lock().is_ok();
    assert_eq!(locks().iter().filter(|path| !free(path)).count(), 2);
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    // A lock is let go of when its process is gone.
    wait_until("workers to die", || locks().iter().all(free));
}

#[test]
fn one_worker_or_several_give_the_same_report() {
    let (one, three) = (Place::new(), Place::new());
    assert_eq!(one.report("run momentum --jobs 1"), three.report("run momentum --jobs 3"));
}

#[test]
fn a_finished_run_is_not_computed_again_unless_forced() {
    let place = Place::new();
    let first = place.report("run momentum --seeds 2");
    assert_eq!(place.attempts(), 6);
    assert_eq!(place.report("run momentum --seeds 2"), first);
    assert_eq!(place.attempts(), 6);
    assert_eq!(place.report("report momentum --seeds 2"), first);
    // Three more seeds need nothing of the first two.
    place.report("run momentum --seeds 3");
    assert_eq!(place.attempts(), 9);

    let before: Vec<Vec<u8>> = place.runs().iter().map(|run| fs::read(run.join("metrics.jsonl")).unwrap()).collect();
    fs::write(place.find("plain", 0).join("log.txt"), "before\n").unwrap();
    assert_eq!(place.report("run momentum --seeds 2 --force"), first);
    assert!(!text(&fs::read(place.find("plain", 0).join("log.txt")).unwrap()).contains("before"));
    let after: Vec<Vec<u8>> = place.runs().iter().map(|run| fs::read(run.join("metrics.jsonl")).unwrap()).collect();
    assert_eq!(before, after);
    assert_eq!(fs::read_dir(place.path("runs/.replaced")).unwrap().count(), 0);
}

#[test]
fn what_fails_is_reported_with_its_log_and_sinks_nothing_else() {
    let place = Place::new();
    let output = place.run("run --seeds 2");
    assert_eq!(output.status.code(), Some(3));
    let report = place.read_report();
    let paper = &report["papers"][1];
    let status: Vec<(&str, &str)> = paper["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| (run["kind"].as_str().unwrap(), run["status"].as_str().unwrap()))
        .collect();
    let expected = [
        ("fails", "failed"),
        ("depends", "skipped"),
        ("crashes", "failed"),
        ("diverges", "failed"),
        ("fine", "finished"),
        ("fine", "finished"),
    ];
    assert_eq!(status, expected);
    let reasons: Vec<&str> =
        paper["runs"].as_array().unwrap().iter().filter_map(|run| run["reason"].as_str()).collect();
    assert_eq!(reasons[0], "the optimizer caught fire");
    assert_eq!(reasons[1], "it needs broken fails seed 0, which did not finish");
    assert!(reasons[2].contains("signal: 6"), "{}", reasons[2]);
    assert_eq!(reasons[3], "epoch 1: `loss` is NaN");
    assert_eq!(paper["claims"][0]["verdict"], "not run");
    assert_eq!(paper["claims"][1]["verdict"], "not reproduced");
    // The other paper is whole, and the page shows the log.
    assert_eq!(report["papers"][0]["claims"][0]["verdict"], "reproduced");
    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(page.contains("fails speaks on standard output"));
}

#[test]
fn two_programs_at_once_in_one_folder_share_the_work() {
    let place = Place::new();
    let start = || {
        let mut command = place.command("run momentum --seeds 2 --jobs 2");
        command.env("TOY_EPOCH_MS", "10").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let (first, second) = (start(), start());
    let (first, second) = (first.wait_with_output().unwrap(), second.wait_with_output().unwrap());
    for output in [&first, &second] {
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    assert_eq!(place.attempts(), 6, "each run was computed once");
    let waited = |output: &Output| text(&output.stderr).contains("waiting for process");
    assert!(waited(&first) || waited(&second));
    assert_eq!(place.read_report(), Place::new().report("run momentum --seeds 2"));
}

#[test]
fn damaged_files_are_set_aside_and_computed_again() {
    let place = Place::new();
    let expected = place.report("run momentum --seeds 2");
    let truncate = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    truncate(&place.find("plain", 0).join("done.json"));
    truncate(&place.find("plain", 1).join("metrics.jsonl"));
    truncate(&place.find("momentum", 0).join("artifacts/final.json"));
    truncate(&place.find("momentum", 1).join("run.json"));
    assert_eq!(place.report("run momentum --seeds 2"), expected);
    assert!(place.find("plain", 0).join("done.json.damaged").exists());
    assert!(place.find("plain", 1).join("metrics.jsonl.damaged").exists());
}

#[test]
fn an_artifact_that_changed_is_computed_again_before_what_needs_it() {
    let place = Place::new();
    let expected = place.report("run momentum --seeds 2");
    let attempts = place.attempts();
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[20] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let artifact = place.find("plain", 0).join("artifacts/final.json");
    let whole = fs::read(&artifact).unwrap();
    flip(&artifact);
    // Nobody reads it: it is not looked at.
    assert_eq!(place.report("run momentum --seeds 2"), expected);
    assert_eq!(place.attempts(), attempts);

    fs::remove_file(place.find("continued", 0).join("done.json")).unwrap();
    assert_eq!(place.report("run momentum --seeds 2"), expected);
    assert_eq!(place.attempts(), attempts + 2);
    assert_eq!(fs::read(&artifact).unwrap(), whole);
    assert!(place.find("plain", 0).join("done.json.damaged").exists());
}

#[test]
fn a_report_names_the_commits_whose_programs_computed_its_runs() {
    let place = Place::new();
    place.report("run momentum --seeds 2");
    for (kind, commit) in [("plain", Some("aaaa")), ("momentum", Some("bbbb")), ("continued", None)] {
        let path = place.find(kind, 0).join("done.json");
        let mut done: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let timing = done["timing"].as_object_mut().unwrap();
        // As files of earlier versions, which did not note it.
        timing.remove("commit");
        timing.extend(commit.map(|commit| ("commit".to_owned(), commit.into())));
        fs::write(&path, serde_json::to_vec(&done).unwrap()).unwrap();
    }
    place.report("report momentum --seeds 2");
    let report: Value = serde_json::from_slice(&fs::read(place.path("out/report.json")).unwrap()).unwrap();
    let commits = &report["timing"]["commits"];
    assert!(commits["aaaa"] == 1 && commits["bbbb"] == 1, "{commits}");
    for name in ["report.md", "report.html"] {
        let text = fs::read_to_string(place.path("out").join(name)).unwrap();
        for words in ["1 of commit aaaa", "1 of commit bbbb", "of a commit that was not noted"] {
            assert!(text.contains(words), "{name}: {words}");
        }
    }
}

#[test]
fn a_run_of_another_schema_fails_alone_and_is_kept() {
    let place = Place::new();
    place.report("run momentum --seeds 2");
    let theirs = place.find("momentum", 0).join("run.json");
    let content = fs::read_to_string(&theirs).unwrap().replace("\"schema\": 1", "\"schema\": 2");
    fs::write(&theirs, &content).unwrap();
    for arguments in ["run momentum --seeds 2", "run momentum --seeds 2 --force", "report momentum --seeds 2"] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments}");
        let report = place.read_report();
        let reason = report["papers"][0]["runs"][1]["reason"].as_str().unwrap();
        assert!(reason.contains("schema 2") && reason.contains("schema 1"), "{reason}");
        assert_eq!(report["papers"][0]["claims"][2]["verdict"], "reproduced", "others are not affected");
        assert_eq!(fs::read_to_string(&theirs).unwrap(), content);
    }
}

#[test]
fn requests_that_make_no_sense_name_the_choices_and_compute_nothing() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    for (arguments, words) in [
        ("run dropout", "unknown paper `dropout`; the papers are: momentum, broken"),
        ("run momentum --tier huge", "[possible values: quick, standard, paper]"),
        ("run momentum --device tpu", "expected `cpu` or `cuda:N`"),
        ("run momentum --seeds 0", "0 is not in 1.."),
        ("run momentum --jobs 0", "0 is not in 1..=1024"),
        ("run momentum --data nowhere", "nowhere: read data folder failed"),
        ("run momentum --data file", "file: read data folder failed"),
        ("run momentum --out file", "file: create failed"),
        ("run momentum --out file/out", "file/out: create failed"),
        ("run momentum --runs file", "file: create failed"),
        // Where even the administrator cannot create anything.
        ("run momentum --out /proc/out", "/proc/out: create failed"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(text(&output.stderr).contains(words), "{arguments}: {}", text(&output.stderr));
    }
    assert!(place.runs().is_empty());
}

#[test]
fn a_report_that_cannot_be_written_says_that_the_runs_are_safe() {
    let place = Place::new();
    // A folder where the file should go: the check before the start passes, the writing at the end fails.
    fs::create_dir_all(place.path("out/report.json/in-the-way")).unwrap();
    let output = place.run("run momentum --seeds 2");
    assert_eq!(output.status.code(), Some(2));
    let words = text(&output.stderr);
    assert!(words.contains("report.json: rename failed") && words.contains("the runs are safe in runs"), "{words}");
    fs::remove_dir_all(place.path("out")).unwrap();
    place.report("report momentum --seeds 2");
}

#[test]
fn listing_and_reporting_compute_nothing() {
    let place = Place::new();
    let output = place.run("run --list");
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("momentum              9 runs,    0 finished"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("   3 × plain, about 1 s\n"), "{}", text(&output.stdout));
    // An empty variable names no folder of data.
    let output = place.command("run --list").env("REPRO_DATA", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!place.path("runs").exists() && !place.path("out").exists());

    assert_eq!(place.run("report momentum").status.code(), Some(3));
    let report = place.read_report();
    assert_eq!(report["papers"][0]["claims"][0]["verdict"], "not run");
    assert!(report["papers"][0]["claims"][0]["reason"].as_str().unwrap().contains("it has not been run"));
    assert!(place.runs().is_empty());
}

#[test]
fn strict_turns_a_refuted_claim_into_an_exit_code() {
    let place = Place::new();
    let report = place.report("run momentum");
    assert_eq!(report["papers"][0]["claims"][5]["verdict"], "not reproduced");
    assert_eq!(place.run("run momentum --strict").status.code(), Some(1));
}

#[test]
fn the_page_needs_nothing_else() {
    let place = Place::new();
    place.report("run momentum");
    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    for outside in ["http:", "https:", "<script", "<link", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(outside);
        assert!(!found, "the page mentions {outside}");
    }
    assert!(page.contains("data:image/svg+xml;base64,"));
    for run in place.runs() {
        let events = fs::read(run.join("events.out.tfevents.repro")).unwrap();
        let records = records(&events);
        // The version record and one an epoch.
        assert_eq!(records, 13);
    }
}

/// Walks an event file by its lengths.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes = &bytes[length + 16..];
        count += 1;
    }
    count
}
