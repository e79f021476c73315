//! Windows against the reference (transformers 4.57.6, `squad_convert_examples_to_features`), which was run on the same
//! words with a vocabulary of whole words.

use std::path::Path;

use super::*;
use crate::data::BatchSource;
use crate::text::{Casing, TokenLoader, TokenLoaderConfig};
use proptest::prelude::*;

pub(in crate::text::squad) const CONTEXT: &str = "the man went to the store and bought a gallon of milk . then he drove home to cook a late \
     dinner for his family and friends .";

pub(in crate::text::squad) fn vocabulary(texts: &[&str]) -> WordPiece {
    let mut words: Vec<_> = texts.iter().flat_map(|text| text.split_whitespace()).collect();
    words.sort_unstable();
    words.dedup();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    WordPiece::from_tokens(
        special.iter().chain(&words).map(|&token| token.to_owned()).collect(),
        Casing::Lower,
        "words",
    )
    .unwrap()
}

pub(in crate::text::squad) fn asked(context: &str, questions: &[(&str, &str)]) -> SquadSet {
    let questions: Vec<_> = questions
        .iter()
        .enumerate()
        .map(|(id, (question, answer))| {
            let start = context.find(answer).map(|at| context[..at].chars().count());
            serde_json::json!({"id": format!("q{id}"), "question": question,
                               "answers": [{"text": answer, "answer_start": start}]})
        })
        .collect();
    let file = serde_json::json!({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]});
    SquadSet::parse(Path::new("made.json"), &file.to_string()).unwrap()
}

pub(in crate::text::squad) fn shopping() -> (SquadSet, WordPiece, FeatureConfig) {
    let questions = [("what did he buy ?", "a gallon of milk"), ("who ate ?", "his family and friends")];
    let pieces = vocabulary(&[CONTEXT, questions[0].0, questions[1].0]);
    (asked(CONTEXT, &questions), pieces, FeatureConfig { most_tokens: 24, stride: 8, most_question: 64 })
}

#[test]
fn windows_are_those_of_the_reference() {
    let (set, pieces, config) = shopping();
    let made = set.training_features(&pieces, &config).unwrap();
    let found: Vec<_> = made
        .features
        .iter()
        .map(|feature| {
            let most = (0..feature.window.len()).filter(|&at| feature.most_context[at]).map(|at| at + feature.offset);
            let most: Vec<_> = most.collect();
            // In the reference's output every run of positions is without a gap.
            assert!(most.windows(2).all(|pair| pair[1] == pair[0] + 1));
            (feature.question, feature.window.len(), feature.answer, (most[0], *most.last().unwrap()))
        })
        .collect();
    let expected = [
        (0, 16, (15, 18), (7, 18)),
        (0, 16, (7, 10), (11, 18)),
        (0, 12, (0, 0), (11, 18)),
        (1, 18, (0, 0), (5, 17)),
        (1, 18, (0, 0), (10, 17)),
        (1, 12, (12, 15), (10, 16)),
    ];
    assert_eq!(found, expected);
    let second = pieces.join(&made.features[1].encoded.ids);
    let text =
        "[CLS] what did he buy ? [SEP] a gallon of milk . then he drove home to cook a late dinner for his [SEP]";
    assert_eq!(second, text);
    assert_eq!(made.features[1].encoded.types, [vec![0; 7], vec![1; 17]].concat());
    assert!(made.dropped.is_empty());
}

#[test]
fn features_without_answers_mark_none() {
    let (mut set, pieces, config) = shopping();
    set.questions[0].answers.clear();
    let made = set.features(&pieces, &config).unwrap();
    assert_eq!(made.features.len(), 6);
    assert!(made.features.iter().all(|feature| feature.answer == (0, 0)));
    let error = set.training_features(&pieces, &config).unwrap_err().to_string();
    assert_eq!(error, "made.json:1: the answers of question `q0` is empty");
}

#[test]
fn an_answer_inside_a_word_is_shrunk_to_its_pieces() {
    let context = "in 1990–1995 (about five years) he slept";
    let pieces = vocabulary(&["in 1990 – 1995 ( about five years ) he slept how long ?"]);
    let set = asked(context, &[("how long ?", "five years"), ("how long ?", "1995"), ("how long ?", "ve years")]);
    let made = set.training_features(&pieces, &FeatureConfig::default()).unwrap();
    let text = |feature: &Feature| {
        let (start, end) = feature.answer;
        pieces.join(&feature.encoded.ids[start..=end])
    };
    assert_eq!(made.features.iter().map(text).collect::<Vec<_>>(), ["five years", "1995", "five years )"]);
}

#[test]
fn an_answer_that_its_words_do_not_hold_is_left_out_and_counted() {
    // The answer's two line ends become one space on both sides; two spaces inside the words do as well. A no-break space
    // separates words of the answer but not of the context, where it is a character of a word.
    let context = "a big\n\nred\u{a0}dog";
    let pieces = vocabulary(&["a big red dog what ?"]);
    let set = asked(context, &[("what ?", "big\n\nred"), ("what ?", "red\u{a0}dog")]);
    let made = set.training_features(&pieces, &FeatureConfig::default()).unwrap();
    assert_eq!(made.features.len(), 1);
    assert_eq!(made.dropped, [1]);
}

#[test]
fn answers_and_paragraphs_that_a_set_made_by_hand_lacks_are_refused() {
    let (set, pieces, config) = shopping();
    let refused = |change: &dyn Fn(&mut SquadSet)| {
        let mut set = set.clone();
        change(&mut set);
        set.training_features(&pieces, &config).unwrap_err().to_string()
    };
    let error = refused(&|set| set.questions[0].answers[0].start = 1000);
    assert!(error.contains("answer `a gallon of milk` is not at character 1000"), "{error}");
    let error = refused(&|set| set.questions[0].answers[0].text.clear());
    assert!(error.ends_with("there is no word of the context"), "{error}");
    let error = refused(&|set| set.paragraphs[0].context = "  ".repeat(100));
    assert!(error.ends_with("there is no word of the context"), "{error}");
    let error = refused(&|set| set.questions[1].paragraph = 7);
    assert_eq!(error, "paragraph is 7, expected below 1");
}

#[test]
fn settings_that_would_skip_pieces_or_never_end_are_refused() {
    let (set, pieces, config) = shopping();
    let refused = |config| set.features(&pieces, &config).unwrap_err().to_string();
    assert_eq!(refused(FeatureConfig { stride: 0, ..config }), "stride is 0, expected at least 1");
    let found = refused(FeatureConfig { stride: 16, ..config });
    assert_eq!(found, "stride is 16, expected less than the 16 pieces of a window, for question `q0`");
    let found = refused(FeatureConfig { most_tokens: 8, ..config });
    assert_eq!(found, "most_tokens is 8, expected more than the question's 5 + 3, for question `q0`");
    // A question is cut before it takes all the room.
    set.features(&pieces, &FeatureConfig { most_question: 2, most_tokens: 14, ..config }).unwrap();
}

#[test]
fn batches_carry_the_answers_places() {
    let (set, pieces, config) = shopping();
    let made = set.training_features(&pieces, &config).unwrap();
    let loading = TokenLoaderConfig { pool: 1, ..TokenLoaderConfig::evaluation(3) };
    let loader = TokenLoader::new(made.features, pieces.special().pad, loading, 0).unwrap();
    let batch = loader.epoch(0).unwrap().next().unwrap().unwrap();
    assert_eq!(Vec::<i64>::try_from(batch.start).unwrap(), [15, 7, 0]);
    assert_eq!(Vec::<i64>::try_from(batch.end).unwrap(), [18, 10, 0]);
    assert_eq!((batch.input.tokens(), batch.index), (24, vec![0, 1, 2]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_piece_is_shown_and_belongs_to_one_window(
        pieces in 0_usize..120, (room, stride) in (2_usize..40).prop_flat_map(|room| (Just(room), 1..room)),
    ) {
        let windows = windows(pieces, room, stride);
        prop_assert!(windows.iter().all(|window| window.len() <= room));
        prop_assert_eq!(windows.last().unwrap().end, pieces);
        for piece in 0..pieces {
            prop_assert!(windows.iter().any(|window| window.contains(&piece)));
            prop_assert!(best_window(&windows, piece).unwrap().contains(&piece));
        }
    }

    #[test]
    fn a_marked_answer_reads_as_the_answer(from in 0_usize..28, length in 1_usize..6, stride in 1_usize..16) {
        let words: Vec<_> = CONTEXT.split(' ').collect();
        let answer = words[from..(from + length).min(words.len())].join(" ");
        let (_, pieces, config) = shopping();
        let mut set = asked(CONTEXT, &[("what did he buy ?", &answer)]);
        set.questions[0].answers[0].start = words[..from].iter().map(|word| word.len() + 1).sum();
        let made = set.training_features(&pieces, &FeatureConfig { stride, ..config }).unwrap();
        let marked: Vec<_> = made.features.iter().filter(|feature| feature.answer != (0, 0)).collect();
        // A window of 16 pieces holds an answer of up to 5 whenever they overlap enough.
        prop_assert!(!marked.is_empty() || stride > 16 - 5);
        for feature in marked {
            let (start, end) = feature.answer;
            prop_assert_eq!(pieces.join(&feature.encoded.ids[start..=end]), answer.clone());
        }
    }
}
