use super::*;
use crate::device::DeviceKind;
use crate::home::RunStore;

fn run() -> Run {
    Run::new("toy", "arm", 0, &serde_json::json!({}), DeviceKind::Cpu).unwrap()
}

fn open(folder: &Path, run: &Run) -> Result<RunContext> {
    let home = RunStore::at(folder).home(&run.id());
    home.prepare(run)?;
    let data = DataRoot::locate(Some(folder))?;
    RunContext::open(run, home, data, Device::Cpu, Some("abc".into()), Reporter::silent())
}

/// Three epochs of arithmetic whose state is its whole history, one artifact on the way and one at the end.
fn compute(context: &mut RunContext, stop_after: u64) -> anyhow::Result<()> {
    let (mut state, done) = match context.checkpoint() {
        Some(checkpoint) => (fs::read_to_string(&checkpoint.path)?, checkpoint.epoch),
        None => (String::new(), 0),
    };
    for epoch in done + 1..=3 {
        state = format!("{state}{epoch}");
        context.log(epoch, &[("length", state.len() as f64)])?;
        if epoch == 1 {
            context.save_artifact("early", |path| Ok(fs::write(path, &state)?))?;
        }
        if epoch > stop_after {
            return Ok(());
        }
        context.save_checkpoint(epoch, |path| Ok(fs::write(path, &state)?))?;
    }
    context.save_artifact("late", |path| Ok(fs::write(path, &state)?))
}

fn finish(folder: &Path) -> Finished {
    let run = run();
    let mut context = open(folder, &run).unwrap();
    compute(&mut context, 9).unwrap();
    context.finish(&Metrics::from([("length".into(), 3.0)])).unwrap();
    RunStore::at(folder).home(&run.id()).finished(&run).unwrap().unwrap()
}

fn content(folder: &Path) -> Vec<Vec<u8>> {
    let home = RunStore::at(folder).home(&run().id());
    ["metrics.jsonl", "artifacts/early", "artifacts/late"].map(|name| fs::read(home.file(name)).unwrap()).to_vec()
}

#[test]
fn a_run_that_stops_after_any_epoch_ends_like_one_that_never_did() {
    let undisturbed = tempfile::tempdir().unwrap();
    finish(undisturbed.path());
    for stop_after in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        compute(&mut open(folder.path(), &run()).unwrap(), stop_after).unwrap();
        let finished = finish(folder.path());
        assert_eq!(content(folder.path()), content(undisturbed.path()), "stopped after {stop_after}");
        let attempts = if stop_after == 0 { 1 } else { 2 };
        assert_eq!(finished.timing.attempts, attempts);
    }
}

#[test]
fn what_a_kill_left_half_made_goes_and_another_programs_description_in_the_making_stays() {
    let folder = tempfile::tempdir().unwrap();
    compute(&mut open(folder.path(), &run()).unwrap(), 2).unwrap();
    let home = RunStore::at(folder.path()).home(&run().id());
    let halves = [
        ".writing-checkpoint-3",
        ".writing-checkpoint.json-a1b2c3",
        ".writing-done.json-a1b2c3",
        "artifacts/.writing-late",
        "artifacts/.writing-a1b2c3.tmp",
        "artifacts/late",
    ];
    let description = home.file(".writing-run.json-a1b2c3");
    for half in halves.map(|name| home.file(name)).iter().chain([&description]) {
        fs::write(half, "1").unwrap();
    }
    assert_eq!(open(folder.path(), &run()).unwrap().checkpoint().unwrap().epoch, 2);
    assert!(halves.iter().all(|name| !home.file(name).exists()));
    assert!(description.exists() && home.file("artifacts/early").exists());
}

#[test]
fn damage_before_the_checkpoint_starts_the_run_over_and_keeps_what_was_there() {
    let undisturbed = tempfile::tempdir().unwrap();
    finish(undisturbed.path());
    for (name, bytes) in
        [("checkpoint.json", "{"), ("checkpoint-2", ""), ("metrics.jsonl", "{"), ("artifacts/early", "")]
    {
        let folder = tempfile::tempdir().unwrap();
        compute(&mut open(folder.path(), &run()).unwrap(), 2).unwrap();
        let home = RunStore::at(folder.path()).home(&run().id());
        fs::write(home.file(name), bytes).unwrap();
        assert_eq!(open(folder.path(), &run()).unwrap().checkpoint(), None, "{name}");
        finish(folder.path());
        assert_eq!(content(folder.path()), content(undisturbed.path()), "{name}");
        assert!(home.file("checkpoint.json.damaged").exists(), "{name}");
    }
}

#[test]
fn a_finished_run_that_was_damaged_is_not_taken_for_finished() {
    let run = run();
    for name in ["done.json", "metrics.jsonl", "artifacts/late"] {
        let folder = tempfile::tempdir().unwrap();
        finish(folder.path());
        let home = RunStore::at(folder.path()).home(&run.id());
        fs::write(home.file(name), "{").unwrap();
        let error = home.finished(&run).unwrap_err();
        assert!(error.to_string().contains(&format!("{name}: damaged")), "{error}");
    }
}

#[test]
fn a_needed_run_is_read_by_name_with_verified_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let child = Run::new("toy", "child", 0, &(), DeviceKind::Cpu).unwrap().needing("parent", &run());
    assert!(open(folder.path(), &child).err().unwrap().to_string().contains("it has no folder"));

    let parent = finish(folder.path());
    let context = open(folder.path(), &child).unwrap();
    let needed = context.needed("parent").unwrap();
    assert_eq!(needed.metric("length").unwrap(), 3.0);
    assert_eq!(fs::read_to_string(needed.artifact("late").unwrap()).unwrap(), "123");
    assert!(needed.metric("width").unwrap_err().to_string().contains("it reported length"));
    assert!(needed.artifact("x").unwrap_err().to_string().contains("it saved early, late"));
    assert!(context.needed("dense").unwrap_err().to_string().contains("[\"parent\"]"));

    // Same length, other content.
    fs::write(parent.artifact("late").unwrap(), "321").unwrap();
    assert!(open(folder.path(), &child).err().unwrap().to_string().contains("artifacts/late: damaged"));
}

#[test]
fn artifacts_cannot_be_written_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut context = open(folder.path(), &run()).unwrap();
    for bad in ["", "../x", "/tmp/x", "a/b", ".hidden", "nül"] {
        let error = context.save_artifact(bad, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("artifact name"), "{error}");
    }
}

#[test]
fn final_metrics_must_be_finite() {
    let folder = tempfile::tempdir().unwrap();
    let context = open(folder.path(), &run()).unwrap();
    let error = context.finish(&Metrics::from([("loss".into(), f64::NAN)])).unwrap_err();
    assert_eq!(error.to_string(), "final metrics: `loss` is NaN");
}
