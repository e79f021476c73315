//! Tokenising and featurising: SST-2's training part and SQuAD v1.1's development part.
//!
//! With `$REPRO_DATA` (or `data/`) holding `glue/`, `squad/` and `bert-base-uncased-vocab.txt` the published files are
//! measured; without it generated ones of the same size, which the names of the benches say.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use benches::record;
use core_tensor::text::glue::{Split, Task};
use core_tensor::text::squad::{FeatureConfig, SquadSet};
use core_tensor::text::{Casing, VocabularyConfig, WordPiece};
use criterion::{Criterion, criterion_group, criterion_main};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn root() -> PathBuf {
    std::env::var_os("REPRO_DATA").map_or_else(|| Path::new("../data").to_path_buf(), PathBuf::from)
}

/// Words of one to three syllables, common ones far more often than rare ones.
fn sentence(words: usize, rng: &mut ChaCha8Rng) -> String {
    const SYLLABLES: [&str; 16] =
        ["ka", "mo", "ri", "ten", "sal", "ve", "no", "lu", "par", "is", "qua", "do", "mer", "fi", "gan", "ost"];
    let word = |rng: &mut ChaCha8Rng| {
        let rare = rng.random::<f64>().powi(3);
        let number = (rare * 4000.0) as usize;
        [SYLLABLES[number % 16], SYLLABLES[number / 16 % 16], SYLLABLES[number / 256]][..1 + number % 3].concat()
    };
    (0..words).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

/// The published vocabulary, without which published texts are not measured either: they would fall into other pieces.
fn published(root: &Path) -> Option<WordPiece> {
    WordPiece::from_file(&root.join("bert-base-uncased-vocab.txt"), Casing::Lower).ok()
}

fn trained(texts: &[String]) -> WordPiece {
    let config = VocabularyConfig { size: 4000, ..VocabularyConfig::default() };
    WordPiece::train(texts.iter(), &config).unwrap()
}

fn glue(c: &mut Criterion) {
    let (root, folder) = (root(), tempfile::tempdir().unwrap());
    let (mut glue, mut name) = (root.join("glue"), "SST-2");
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let texts: Vec<_> = (0..67_349).map(|_| sentence(1 + rng.random_range(0..18_u64) as usize, &mut rng)).collect();
    let vocabulary = published(&root);
    if vocabulary.is_none() || Task::Sst2.load(&glue, Split::Train).is_err() {
        (glue, name) = (folder.path().to_path_buf(), "SST-2-sized");
        std::fs::create_dir(glue.join("SST-2")).unwrap();
        let rows: String = texts.iter().enumerate().map(|(row, text)| format!("{text}\t{}\n", row % 2)).collect();
        std::fs::write(glue.join("SST-2/train.tsv"), format!("sentence\tlabel\n{rows}")).unwrap();
    }
    let pieces = vocabulary.unwrap_or_else(|| trained(&texts));
    let mut group = c.benchmark_group("text");
    group.sample_size(10);
    let labelled = || Task::Sst2.load(&glue, Split::Train).unwrap().labelled(&pieces, 128).unwrap();
    let tokens: usize = labelled().iter().map(|sentence| sentence.encoded.len()).sum();
    record(&format!("text/{name}: read, tokenise, label"), "tokens", tokens as f64);
    group.bench_function(format!("{name}: read, tokenise, label"), |b| b.iter(|| black_box(labelled())));
    group.finish();
}

fn squad(c: &mut Criterion) {
    let (root, folder) = (root(), tempfile::tempdir().unwrap());
    let vocabulary = published(&root);
    let files = ["squad/dev-v1.1.json", "squad/dev-v1.1.rebuilt.json"].map(|name| root.join(name));
    let found = files.into_iter().find(|path| vocabulary.is_some() && path.exists());
    let (path, name) = found.map_or_else(|| (generated(folder.path()), "SQuAD-dev-sized"), |path| (path, "SQuAD dev"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let made = |_| sentence(20, &mut rng);
    let pieces = vocabulary.unwrap_or_else(|| trained(&(0..2000).map(made).collect::<Vec<_>>()));
    let mut group = c.benchmark_group("text");
    group.sample_size(10);
    group.bench_function(format!("{name}: read, features"), |b| {
        b.iter(|| {
            let set = SquadSet::read(&path).unwrap();
            black_box(set.features(&pieces, &FeatureConfig::default()).unwrap())
        });
    });
    group.finish();
}

/// 2,067 paragraphs of 122 words with 5 questions each, as the development part has on average.
fn generated(folder: &Path) -> PathBuf {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let paragraphs: Vec<_> = (0..2067_u64)
        .map(|paragraph| {
            let context = sentence(122, &mut rng);
            let answer = context.split(' ').next().unwrap_or_default();
            let question = |number: u64| {
                let text = sentence(11, &mut ChaCha8Rng::seed_from_u64(paragraph * 8 + number));
                format!(r#"{{"id": "{paragraph}-{number}", "question": "{text}", "answers": [{{"text": "{answer}", "answer_start": 0}}]}}"#)
            };
            let questions: Vec<_> = (0..5).map(question).collect();
            format!(r#"{{"context": "{context}", "qas": [{}]}}"#, questions.join(", "))
        })
        .collect();
    let path = folder.join("dev.json");
    std::fs::write(&path, format!(r#"{{"data": [{{"title": "made", "paragraphs": [{}]}}]}}"#, paragraphs.join(", ")))
        .unwrap();
    path
}

criterion_group!(benches, glue, squad);
criterion_main!(benches);
