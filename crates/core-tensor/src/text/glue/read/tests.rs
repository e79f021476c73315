//! A file of every task in the published layout, and what must be refused.

use super::*;
use proptest::prelude::*;

fn read_text(task: Task, split: Split, text: &[u8]) -> Result<TaskSet> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(task.name());
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join(task.file(split).unwrap()), text).unwrap();
    task.load(folder.path(), split)
}

fn one(task: Task, split: Split, text: &str) -> Sentences {
    let set = read_text(task, split, text.as_bytes()).unwrap();
    assert_eq!((set.task, set.split, set.rows.len(), set.skipped), (task, split, 1, 0));
    set.rows.into_iter().next().unwrap()
}

fn row(first: &str, second: Option<&str>, label: Option<Label>) -> Sentences {
    Sentences { first: first.to_owned(), second: second.map(str::to_owned), label }
}

fn refused(task: Task, split: Split, text: &[u8]) -> String {
    let error = read_text(task, split, text).unwrap_err().to_string();
    // The temporary folder's name changes.
    error[error.find(task.file(split).unwrap()).unwrap()..].to_owned()
}

#[test]
fn every_task_is_read_in_its_published_layout() {
    let (one_of, two_of) = (|class| Some(Label::Class(class)), Some("b"));
    let cases = [
        (Task::Cola, "gj04\t0\t*\ta\n", row("a", None, one_of(0))),
        (Task::Sst2, "sentence\tlabel\na \t1\n", row("a ", None, one_of(1))),
        (
            Task::Mrpc,
            "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\ta\tb\n",
            row("a", two_of, one_of(1)),
        ),
        (
            Task::StsB,
            "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n\
             0\tg\tf\t2012\t0\tn\tn\ta\tb\t2.400\n",
            row("a", two_of, Some(Label::Score(2.4))),
        ),
        (
            Task::Qqp,
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n",
            row("a", two_of, one_of(0)),
        ),
        (
            Task::Mnli,
            "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t\
             sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n0\t1\t2\tg\tp\tp\tp\tp\ta\tb\tneutral\tcontradiction\n",
            row("a", two_of, one_of(0)),
        ),
        (Task::Qnli, "index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n", row("a", two_of, one_of(1))),
        (Task::Rte, "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n", row("a", two_of, one_of(0))),
        (Task::Wnli, "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1", row("a", two_of, one_of(1))),
    ];
    for (task, text, expected) in cases {
        assert_eq!(one(task, Split::Train, text), expected, "{task}");
    }
}

#[test]
fn test_splits_have_no_labels() {
    assert_eq!(one(Task::Cola, Split::Test, "index\tsentence\n0\ta\n"), row("a", None, None));
    let text = "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\ta\tb\n";
    assert_eq!(one(Task::Mrpc, Split::Test, text), row("a", Some("b"), None));
    assert_eq!(one(Task::Diagnostic, Split::Test, "index\tsentence1\tsentence2\n0\ta\tb\n"), row("a", Some("b"), None));
}

#[test]
fn a_quotation_mark_is_a_character_like_any_other() {
    let set = read_text(Task::Sst2, Split::Dev, b"sentence\tlabel\n\" never closed\t0\na \"b\t1\n").unwrap();
    assert_eq!(
        set.rows,
        [row("\" never closed", None, Some(Label::Class(0))), row("a \"b", None, Some(Label::Class(1))),]
    );
}

#[test]
fn short_rows_of_qqp_are_counted_and_left_out() {
    let text = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\n1\t2\t3\ta\tb\t1\n";
    let set = read_text(Task::Qqp, Split::Train, text).unwrap();
    assert_eq!((set.rows.len(), set.skipped), (1, 1));
}

#[test]
fn bad_files_are_refused_with_file_and_line() {
    let of = |text: &[u8]| refused(Task::Sst2, Split::Train, text);
    assert_eq!(of(b"sentence\tlabel\na\t0\nb\n"), "train.tsv:3: expected 2 tab-separated columns, found 1");
    assert_eq!(of(b"sentence\tlabel\na\tb\t0\n"), "train.tsv:2: expected 2 tab-separated columns, found 3");
    assert_eq!(of(b"sentence\tlabel\na\t2\n"), "train.tsv:2: expected one of [\"0\", \"1\"], found label `2`");
    assert_eq!(of(b"sentence\tlabel\na\t0\nb\xff\t1\n"), "train.tsv:3: not UTF-8 from byte 1 of the line on");
    let expected = "train.tsv:1: the header has no column `label`, only [\"sentence\", \"lable\"]";
    assert_eq!(of(b"sentence\tlable\na\t0\n"), expected);
    assert_eq!(of(b""), "train.tsv is empty");
    assert_eq!(of(b"sentence\tlabel\n"), "train.tsv is empty");
    let header = b"sentence1\tsentence2\tscore\n";
    for score in ["5.1", "-0.1", "NaN", "high", ""] {
        let text = [header.as_slice(), b"a\tb\t", score.as_bytes(), b"\n"].concat();
        let expected = format!("train.tsv:2: expected a score from 0 to 5, found label `{score}`");
        assert_eq!(refused(Task::StsB, Split::Train, &text), expected);
    }
}

#[test]
fn rows_become_labelled_inputs() {
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].map(str::to_owned);
    let pieces = WordPiece::from_tokens(tokens.to_vec(), crate::text::Casing::Lower, "letters").unwrap();
    let text = b"index\tsentence1\tsentence2\tlabel\n0\ta a\tb\tentailment\n1\tb\tz\tnot_entailment\n";
    let set = read_text(Task::Rte, Split::Dev, text).unwrap();
    let labelled = set.labelled(&pieces, 16).unwrap();
    assert_eq!(labelled[0].encoded, Encoded { ids: vec![2, 5, 5, 3, 6, 3], types: vec![0, 0, 0, 0, 1, 1] });
    assert_eq!(labelled[1].encoded.ids, [2, 6, 3, 1, 3]);
    assert_eq!(labelled[1].label, Label::Class(1));
    assert_eq!(set.encode(&pieces, 5).unwrap()[0].ids, [2, 5, 3, 6, 3]);

    let test = read_text(Task::Sst2, Split::Test, b"index\tsentence\n0\ta\n").unwrap();
    assert_eq!(test.labelled(&pieces, 16).unwrap_err().to_string(), "labels of SST-2 test is empty");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_a_reader_panic(text in prop::collection::vec(any::<u8>(), 0..200), task in 0_usize..9) {
        let _ = read_text(Task::ALL[task], Split::Train, &text);
    }

    #[test]
    fn what_is_written_is_read(rows in prop::collection::vec(("[^\t\r\n\u{feff}]{0,20}", 0_i64..2), 1..20)) {
        let mut text = "sentence\tlabel\n".to_owned();
        for (sentence, label) in &rows {
            text.push_str(&format!("{sentence}\t{label}\n"));
        }
        let set = read_text(Task::Sst2, Split::Train, text.as_bytes()).unwrap();
        let found: Vec<_> = set.rows.into_iter().map(|row| (row.first, row.label)).collect();
        let expected: Vec<_> = rows.into_iter().map(|(text, label)| (text, Some(Label::Class(label)))).collect();
        prop_assert_eq!(found, expected);
    }
}
