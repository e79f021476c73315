//! The program against what machines do: killed at any moment, no room on the disk, folders that nobody may write into.

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Signal, kill_process_group};
use support::{Place, pid, text, wait_until};

#[test]
fn killed_with_all_its_workers_at_several_moments_it_ends_in_the_same_report() {
    let undisturbed = Place::new();
    let expected = undisturbed.report("run momentum --seeds 2 --jobs 2");
    assert_eq!(undisturbed.epochs(), 72);

    let place = Place::new();
    for epochs in [0, 5, 12, 31, 50, 71] {
        let mut command = place.command("run momentum --seeds 2 --jobs 2");
        command.env("TOY_EPOCH_MS", "15").stderr(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        wait_until("epochs", || place.epochs() >= epochs);
        kill_process_group(pid(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        // Nothing runs any more, so nothing grows any more.
        assert!(!place.path("out/report.json").exists(), "killed before the end at {epochs} epochs");
    }
    assert_eq!(place.report("run momentum --seeds 2 --jobs 2"), expected);
    for run in undisturbed.runs() {
        let twin = place.path("runs").join(run.file_name().unwrap());
        for name in ["metrics.jsonl", "artifacts/final.json"] {
            assert_eq!(fs::read(run.join(name)).unwrap(), fs::read(twin.join(name)).unwrap(), "{name}");
        }
    }
}

/// Papers that compute for real, on generated data: runs that start over and runs with checkpoints. `KILLED_PAPERS` names
/// others.
fn papers() -> String {
    let papers = std::env::var("KILLED_PAPERS").unwrap_or_else(|_| "smartdeal earlybert".into());
    format!("run {papers} --seeds 1 --jobs 2")
}

#[test]
#[ignore = "minutes of computing: cargo test --release -p repro --test robustness -- --ignored"]
fn papers_killed_at_twenty_random_moments_end_in_the_same_report() {
    let papers = papers();
    let undisturbed = Place::of_papers();
    let since = Instant::now();
    let expected = undisturbed.report(&papers);
    // Twenty pieces that are together about as long as the whole, so that the last ones still find work to do.
    let longest = 2.0 * since.elapsed().as_secs_f64() / 20.0;

    let place = Place::of_papers();
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let mut at_work = 0;
    for _ in 0..20 {
        let moment = Duration::from_secs_f64(random.random_range(0.0..longest));
        let mut command = place.command(&papers);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(moment);
        at_work += usize::from(child.try_wait().unwrap().is_none());
        kill_process_group(pid(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
    }
    assert!(at_work >= 15, "only {at_work} of 20 kills met a program at work");
    assert_eq!(place.report(&papers), expected);
    for run in undisturbed.runs() {
        let twin = place.path("runs").join(run.file_name().unwrap());
        assert_eq!(fs::read(run.join("metrics.jsonl")).unwrap(), fs::read(twin.join("metrics.jsonl")).unwrap());
        same_files(&run.join("artifacts"), &twin.join("artifacts"));
    }
}

fn same_files(folder: &Path, other: &Path) {
    let names = |folder: &Path| -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(folder), names(other));
    for name in names(folder) {
        assert!(fs::read(folder.join(&name)).unwrap() == fs::read(other.join(&name)).unwrap(), "{name:?} differs");
    }
}

#[test]
fn files_that_may_not_grow_fail_by_name_and_a_later_run_completes() {
    let place = Place::new();
    // 512 bytes a file. Without the trap the system would end the program instead of refusing the write.
    let output = place.script("trap '' XFSZ; ulimit -f 1; exec \"$program\" run momentum --seeds 2 --jobs 2");
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("checkpoint.json: write failed: File too large"), "{words}");
    assert!(words.contains("error: out/report.") && words.contains("the runs are safe in runs"), "{words}");
    assert!(!words.contains("its worker ended with"), "{words}");
    assert_eq!(place.report("run momentum --seeds 2"), Place::new().report("run momentum --seeds 2"));
}

#[test]
#[ignore = "mounts file systems, which asks for Linux's user namespaces: run with -- --ignored"]
fn a_full_disk_fails_by_name_and_a_later_run_completes() {
    let expected = Place::new().report("run momentum --seeds 2");
    for size in ["4k", "16k", "40k", "100k"] {
        let place = Place::new();
        // The mount is gone with the script.
        let script = format!(
            "mkdir runs; unshare --map-root-user --mount sh -c '
                mount -t tmpfs -o size={size} tmpfs runs || exit 90
                \"$program\" run momentum --seeds 2 --jobs 2; test $? = 3 || exit 91
                mount -o remount,size=8M runs || exit 92
                echo room >&2
                exec \"$program\" run momentum --seeds 2'"
        );
        let output = place.script(&script);
        let (words, said) = (text(&output.stderr), text(&output.stdout));
        assert_eq!(output.status.code(), Some(0), "{size}: {words}");
        let full = words.split("room").next().unwrap();
        assert!(full.contains(" failed: No space left on device") && full.contains("runs/"), "{size}: {full}");
        assert!(!full.contains("its worker ended with") && !said.contains("its worker ended with"), "{size}: {full}");
        assert_eq!(place.read_report(), expected, "{size}");
    }
}

#[test]
#[ignore = "mounts file systems, which asks for Linux's user namespaces: run with -- --ignored"]
fn folders_on_a_read_only_disk_are_named_before_anything_is_computed() {
    for folder in ["out", "runs"] {
        let place = Place::new();
        let script = format!(
            "mkdir out runs; unshare --map-root-user --mount sh -c '
                mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 90
                exec \"$program\" run momentum --seeds 2'"
        );
        let output = place.script(&script);
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(&format!("error: {folder}: write into failed: Read-only file system")), "{words}");
        assert!(place.runs().is_empty());
    }
}
