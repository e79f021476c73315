//! Exact match and F1 as the official v1.1 script counts them.

use std::collections::HashMap;

use super::SquadSet;
use crate::Result;
use crate::text::TextError;

/// The score of a set of predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquadScores {
    /// Per cent of questions answered with one of the given answers, both [normalised](normalise).
    pub exact_match: f64,
    /// Mean over questions of the best [`f1`] with a given answer, in per cent.
    pub f1: f64,
    /// Questions of the set.
    pub questions: usize,
    /// Questions without a prediction. They score 0; some re-implementations leave them out of the mean instead.
    pub missing: usize,
}

impl SquadSet {
    /// Scores predictions, given by question id.
    ///
    /// # Errors
    /// No question, or a question without any answer.
    pub fn evaluate(&self, predictions: &HashMap<String, String>) -> Result<SquadScores> {
        if self.questions.is_empty() {
            return Err(TextError::Empty { what: "the set of questions".to_owned() }.into());
        }
        let (mut matches, mut overlap, mut missing) = (0.0, 0.0, 0);
        for question in &self.questions {
            if question.answers.is_empty() {
                let what = format!("{}: the answers of question `{}`", self.place(question), question.id);
                return Err(TextError::Empty { what }.into());
            }
            let Some(predicted) = predictions.get(&question.id) else {
                missing += 1;
                continue;
            };
            let answers = || question.answers.iter().map(|answer| answer.text.as_str());
            matches += f64::from(u8::from(answers().any(|answer| exact_match(predicted, answer))));
            overlap += answers().map(|answer| f1(predicted, answer)).fold(0.0, f64::max);
        }
        let share = |sum: f64| 100.0 * sum / self.questions.len() as f64;
        let questions = self.questions.len();
        Ok(SquadScores { exact_match: share(matches), f1: share(overlap), questions, missing })
    }
}

/// Lower case, without ASCII punctuation, then without the words a, an and the, white space collapsed.
///
/// ```
/// use core_tensor::text::squad::normalise;
/// assert_eq!(normalise("The  Denver-Broncos, of an A.B.C!"), "denverbroncos of abc");
/// ```
pub fn normalise(text: &str) -> String {
    let plain: String = text.to_lowercase().chars().filter(|character| !character.is_ascii_punctuation()).collect();
    // Articles end where a word does: at anything that is no letter or digit. Underscores went with the punctuation.
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while !rest.is_empty() {
        let end = rest.find(|character: char| !in_word(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        kept.push_str(if matches!(word, "a" | "an" | "the") { " " } else { word });
        let next = after.chars().next().map_or(0, char::len_utf8);
        kept.push_str(&after[..next]);
        rest = &after[next..];
    }
    kept.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Both say the same once [normalised](normalise).
pub fn exact_match(predicted: &str, answer: &str) -> bool {
    normalise(predicted) == normalise(answer)
}

/// The harmonic mean of the shares of words that each has in common with the other, once [normalised](normalise); 0 without
/// any common word, also when both are empty, as in the official script for v1.1.
pub fn f1(predicted: &str, answer: &str) -> f64 {
    let (predicted, answer) = (normalise(predicted), normalise(answer));
    let (predicted, answer): (Vec<_>, Vec<_>) = (words(&predicted).collect(), words(&answer).collect());
    let mut left = HashMap::<&str, usize>::new();
    for word in &answer {
        *left.entry(word).or_default() += 1;
    }
    let common = predicted.iter().filter(|word| {
        let count = left.get_mut(**word).filter(|count| **count > 0);
        count.map(|count| *count -= 1).is_some()
    });
    let common = common.count() as f64;
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / predicted.len() as f64, common / answer.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

fn in_word(character: char) -> bool {
    character.is_alphanumeric()
}

/// White space as the official script's language sees it, which counts four control characters in.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn answers_are_normalised_as_officially() {
        assert_eq!(normalise("The  Denver-Broncos, of an A.B.C!"), "denverbroncos of abc");
        // Punctuation that is not ASCII stays and ends a word; accents stay; an underscore is punctuation.
        assert_eq!(normalise("a–the_café the\u{a0}an\u{1f}x"), "–thecafé x");
        assert_eq!(normalise("A, an... THE!"), "");
    }

    #[test]
    fn pairs_score_as_officially() {
        let cases = [
            ("Santa Clara, California", "Levi's Stadium in Santa Clara", false, 0.5),
            ("24-10", "24–10", false, 0.0),
            ("to be or not to be", "be to", false, 0.5),
            ("the Cat", "a cat.", true, 1.0),
            ("the", "a", true, 0.0),
        ];
        for (predicted, answer, matches, overlap) in cases {
            assert_eq!(exact_match(predicted, answer), matches, "{predicted}");
            assert!((f1(predicted, answer) - overlap).abs() < 1e-15, "{predicted} {}", f1(predicted, answer));
        }
    }

    fn set() -> SquadSet {
        let json = r#"{"data": [{"paragraphs": [{"context": "The old cat sat in the sun by the sea.", "qas": [
            {"id": "a", "question": "Who?", "answers": [{"text": "The old cat", "answer_start": 0},
                                                        {"text": "old cat", "answer_start": 4}]},
            {"id": "b", "question": "Where?", "answers": [{"text": "in the sun by the sea", "answer_start": 16}]},
            {"id": "c", "question": "Where?", "answers": [{"text": "the sun", "answer_start": 19}]}]}]}]}"#;
        SquadSet::parse(Path::new("cats.json"), json).unwrap()
    }

    #[test]
    fn a_set_scores_as_the_official_script_says() {
        // The official evaluate-v1.1.py on this file and these predictions prints
        // {"exact_match": 33.333333333333336, "f1": 55.55555555555556}: a matches, b shares 2 of 2 and 4 words, c is missing.
        let predictions =
            HashMap::from([("a", "Old cat"), ("b", "sun, sea")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let scores = set().evaluate(&predictions).unwrap();
        assert!((scores.exact_match - 33.333_333_333_333_336).abs() < 1e-12);
        assert!((scores.f1 - 55.555_555_555_555_56).abs() < 1e-12, "{}", scores.f1);
        assert_eq!((scores.questions, scores.missing), (3, 1));
        let none = set().evaluate(&HashMap::new()).unwrap();
        assert_eq!((none.exact_match, none.f1, none.missing), (0.0, 0.0, 3));
    }

    #[test]
    fn a_question_without_answers_cannot_be_scored() {
        let mut set = set();
        set.questions[1].answers.clear();
        let error = set.evaluate(&HashMap::new()).unwrap_err().to_string();
        assert_eq!(error, "cats.json:4: the answers of question `b` is empty");
        set.questions.clear();
        let error = set.evaluate(&HashMap::new()).unwrap_err().to_string();
        assert_eq!(error, "the set of questions is empty");
    }

    proptest! {
        #[test]
        fn f1_is_symmetric_and_1_only_for_the_same_words(a in "[a-c ]{1,9}", b in "[a-c ]{1,9}") {
            prop_assert!((f1(&a, &b) - f1(&b, &a)).abs() < 1e-15);
            let sorted = |text: &str| { let text = normalise(text); let mut words: Vec<_> = words(&text).map(str::to_owned).collect(); words.sort(); words };
            prop_assert_eq!(f1(&a, &b) > 1.0 - 1e-12, sorted(&a) == sorted(&b) && !normalise(&a).is_empty());
        }

        #[test]
        fn normalising_twice_changes_nothing(text in "[a-zA-Z .,'–]{0,40}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }
    }
}
