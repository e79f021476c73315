//! GLUE's tables; the first byte says which task and part.
#![no_main]

use core_tensor::text::glue::{Split, Task};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, table)) = bytes.split_first() else { return };
    let tasks =
        [Task::Cola, Task::Sst2, Task::Mrpc, Task::StsB, Task::Qqp, Task::Mnli, Task::Qnli, Task::Rte, Task::Wnli];
    let task = tasks[usize::from(first) % tasks.len()];
    let split = [Split::Train, Split::Dev, Split::Test][usize::from(first) / tasks.len() % 3];
    let folder = Folder::new();
    if let Ok(set) = task.read(&folder.put("t.tsv", table), split) {
        assert!(!set.rows.is_empty());
        assert!(set.rows.iter().all(|row| row.label.is_some() == (split != Split::Test)));
    }
});
