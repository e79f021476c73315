//! Reads a split of a GLUE task or a SQuAD file and says what it holds; `--ids` prints the token ids instead, one input a
//! line, to compare them with another tokenizer's.
//!
//! `cargo run --release -p core-tensor --example tokenise -- vocab.txt SST-2 train data/glue`
//! `cargo run --release -p core-tensor --example tokenise -- vocab.txt SQuAD data/squad/dev-v1.1.json`

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use core_tensor::text::glue::{Split, Task};
use core_tensor::text::squad::{FeatureConfig, SquadSet};
use core_tensor::text::{Casing, Encoded, WordPiece};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let ids = arguments.iter().position(|argument| argument == "--ids").map(|at| arguments.remove(at)).is_some();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (encoded, summary) = match arguments.as_slice() {
        [vocabulary, "SQuAD", file] => squad(&pieces(vocabulary)?, Path::new(file))?,
        [vocabulary, task, split, folder] => glue(&pieces(vocabulary)?, task, split, Path::new(folder))?,
        _ => return Err("expected VOCABULARY TASK SPLIT FOLDER, or VOCABULARY SQuAD FILE".into()),
    };
    if !ids {
        print!("{summary}");
        return Ok(());
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for input in encoded {
        let numbers: Vec<_> = input.ids.iter().map(u32::to_string).collect();
        writeln!(out, "{}", numbers.join(" "))?;
    }
    Ok(out.flush()?)
}

fn pieces(vocabulary: &str) -> core_tensor::Result<WordPiece> {
    WordPiece::from_file(Path::new(vocabulary), Casing::Lower)
}

fn glue(
    pieces: &WordPiece,
    task: &str,
    split: &str,
    folder: &Path,
) -> Result<(Vec<Encoded>, String), Box<dyn std::error::Error>> {
    let task: Task = task.parse()?;
    let split = match split {
        "train" => Split::Train,
        "dev" => Split::Dev,
        "dev-mismatched" => Split::DevMismatched,
        "test" => Split::Test,
        other => return Err(format!("no split `{other}`").into()),
    };
    let start = Instant::now();
    let set = task.load(folder, split)?;
    let encoded = set.encode(pieces, 128)?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = encoded.iter().map(Encoded::len).sum();
    let summary = format!(
        "{task} {}: {} rows, {} left out, {tokens} tokens, read and tokenised in {seconds:.2} s\n",
        split.name(),
        set.rows.len(),
        set.skipped
    );
    Ok((encoded, summary))
}

fn squad(pieces: &WordPiece, file: &Path) -> Result<(Vec<Encoded>, String), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let set = SquadSet::read(file)?;
    let made = set.training_features(pieces, &FeatureConfig::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let answers: usize = set.questions.iter().map(|question| question.answers.len()).sum();
    let gold: HashMap<_, _> =
        set.questions.iter().map(|question| (question.id.clone(), question.answers[0].text.clone())).collect();
    let scores = set.evaluate(&gold)?;

    // Does the marked span of each feature read as the answer, spaces and case aside?
    let plain = |text: &str| pieces.basic_words(text).map(|words| words.concat());
    let (mut marked, mut same) = (0, 0);
    let mut found = vec![false; set.questions.len()];
    for feature in made.features.iter().filter(|feature| feature.answer != (0, 0)) {
        let (first, last) = feature.answer;
        let text = pieces.join(&feature.encoded.ids[first..=last]);
        let answer = &set.questions[feature.question].answers[0].text;
        found[feature.question] = true;
        marked += 1;
        same += usize::from(text.replace(' ', "") == plain(answer)?);
    }
    let summary = format!(
        "{} paragraphs, {} questions, {answers} answers, {} features, {} questions left out, in {seconds:.2} s\n\
         {marked} features mark an answer, {same} of them read exactly as it does; {} questions are marked somewhere\n\
         gold answers score {:.2} exact, {:.2} F1\n",
        set.paragraphs.len(),
        set.questions.len(),
        made.features.len(),
        made.dropped.len(),
        found.iter().filter(|found| **found).count(),
        scores.exact_match,
        scores.f1
    );
    Ok((made.features.into_iter().map(|feature| feature.encoded).collect(), summary))
}
