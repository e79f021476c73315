//! The JSON file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::Result;
use crate::text::lines::{read, text};
use crate::text::{Place, TextError};

/// Paragraphs and the questions about them.
#[derive(Debug, Clone, PartialEq)]
pub struct SquadSet {
    /// Where it was read from.
    pub path: PathBuf,
    /// The paragraphs.
    pub paragraphs: Vec<Paragraph>,
    /// The questions, in the file's order.
    pub questions: Vec<Question>,
}

/// A text to find answers in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// The article's title, which its paragraphs share.
    pub title: Arc<str>,
    /// The text.
    pub context: String,
}

/// A question about a paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its name, the only one in the file.
    pub id: String,
    /// What is asked.
    pub text: String,
    /// The paragraph's position in [`SquadSet::paragraphs`].
    pub paragraph: usize,
    /// What people answered: one answer in the training part, about three in the development part.
    pub answers: Vec<Answer>,
    /// The line of the file where it stands, from 1. Published files are a single line.
    pub line: usize,
}

/// A span of a paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The words.
    pub text: String,
    /// Where they start in the context, in characters (Unicode scalar values), not bytes.
    pub start: usize,
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Given>,
}

#[derive(Deserialize)]
struct Given {
    text: String,
    answer_start: usize,
}

impl SquadSet {
    /// Reads a file in the layout of SQuAD v1.1.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8 or not JSON (such as a string that never ends) of this layout, has no
    /// question, an id that is there twice, an answer that is empty or not in its context where it claims to be. The errors
    /// name file and line.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        Self::parse(path, text(path, &bytes)?)
    }

    /// The same from a text; `path` is for the errors' sake.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for the reading.
    pub fn parse(path: &Path, json: &str) -> Result<Self> {
        let file: File = serde_json::from_str(json).map_err(|error| TextError::Json {
            place: Place::new(path, error.line()),
            column: error.column(),
            reason: error.to_string(),
        })?;
        let (mut paragraphs, mut questions) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let mut lines = Lines { json, at: 0, line: 1, misses: 0 };
        for article in file.data {
            let title: Arc<str> = article.title.into();
            for Block { context, qas } in article.paragraphs {
                // Answers count characters; byte offsets of all of them make each check one look-up.
                let offsets: Vec<_> = context.char_indices().map(|(offset, _)| offset).chain([context.len()]).collect();
                for Asked { id, question, answers } in qas {
                    let line = lines.of(&id);
                    let place = || Place::new(path, line);
                    for answer in &answers {
                        check(answer, &context, &offsets).map_err(|reason| TextError::Answer {
                            place: place(),
                            question: id.clone(),
                            answer: answer.text.clone(),
                            start: answer.answer_start,
                            reason,
                        })?;
                    }
                    if !seen.insert(id.clone()) {
                        return Err(TextError::Twice { place: place(), name: id }.into());
                    }
                    let answers =
                        answers.into_iter().map(|given| Answer { text: given.text, start: given.answer_start });
                    let (paragraph, answers) = (paragraphs.len(), answers.collect());
                    questions.push(Question { id, text: question, paragraph, answers, line });
                }
                paragraphs.push(Paragraph { title: title.clone(), context });
            }
        }
        if questions.is_empty() {
            return Err(TextError::Empty { what: path.display().to_string() }.into());
        }
        Ok(Self { path: path.to_path_buf(), paragraphs, questions })
    }

    /// The first `count` questions, or all when there are fewer. Keeps every paragraph.
    pub fn take(mut self, count: usize) -> Self {
        self.questions.truncate(count);
        self
    }

    /// The paragraph a question is about.
    pub fn context(&self, question: &Question) -> &str {
        &self.paragraphs[question.paragraph].context
    }

    pub(super) fn place(&self, question: &Question) -> Place {
        Place::new(&self.path, question.line)
    }
}

/// Lines of ids, which come in the order of the file.
struct Lines<'a> {
    json: &'a str,
    at: usize,
    line: usize,
    misses: usize,
}

/// Every id that is not found costs a walk to the end of the file. Published files have none.
const MOST_MISSES: usize = 16;

impl Lines<'_> {
    /// The line of the next `"id"`; the last one found for an id that is written with escapes.
    fn of(&mut self, id: &str) -> usize {
        if self.misses == MOST_MISSES {
            return self.line;
        }
        match self.json[self.at..].find(&format!("\"{id}\"")) {
            Some(found) => {
                let end = self.at + found + id.len() + 2;
                self.line += self.json[self.at..end].bytes().filter(|&byte| byte == b'\n').count();
                self.at = end;
            }
            None => self.misses += 1,
        }
        self.line
    }
}

fn check(answer: &Given, context: &str, offsets: &[usize]) -> Result<(), String> {
    if answer.text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let Some(&start) = offsets.get(answer.answer_start) else {
        return Err(format!("the context has {} characters", offsets.len() - 1));
    };
    if context[start..].starts_with(&answer.text) {
        return Ok(());
    }
    let there: String = context[start..].chars().take(answer.text.chars().count()).collect();
    Err(format!("there is `{there}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use proptest::prelude::*;

    const FILE: &str = r#"{"version": "1.1", "data": [{"title": "Towns", "paragraphs": [
  {"context": "Zürich lies on a lake.", "qas": [
    {"id": "q1", "question": "Where does Zürich lie?", "answers": [
      {"text": "on a lake", "answer_start": 12}, {"text": "a lake", "answer_start": 15}]},
    {"id": "q2", "question": "What lies there?", "answers": [{"text": "Zürich", "answer_start": 0}]}]}]}]}"#;

    fn parse(json: &str) -> Result<SquadSet> {
        SquadSet::parse(Path::new("dev.json"), json)
    }

    #[test]
    fn answers_are_counted_in_characters() {
        let set = parse(FILE).unwrap();
        assert_eq!((set.paragraphs.len(), set.questions.len()), (1, 2));
        assert_eq!(set.questions[0].answers[1], Answer { text: "a lake".to_owned(), start: 15 });
        assert_eq!((set.questions[0].line, set.questions[1].line), (3, 5));
        assert_eq!((&*set.paragraphs[0].title, set.context(&set.questions[1])), ("Towns", "Zürich lies on a lake."));
    }

    #[test]
    fn bad_files_are_refused_with_file_and_line() {
        let refused = |from: &str, to: &str| {
            assert!(FILE.contains(from), "{from}");
            parse(&FILE.replacen(from, to, 1)).unwrap_err().to_string()
        };
        let found = refused("\"answer_start\": 15", "\"answer_start\": 14");
        let expected =
            "dev.json:3: question `q1`: answer `a lake` is not at character 14 of its context: there is ` a lak`";
        assert_eq!(found, expected);
        let found = refused("\"answer_start\": 15", "\"answer_start\": 23");
        assert!(found.ends_with("is not at character 23 of its context: the context has 22 characters"), "{found}");
        let found = refused("\"a lake\"", "\" \"");
        assert!(found.ends_with("it is empty"), "{found}");
        assert_eq!(refused("\"q2\"", "\"q1\""), "dev.json:5: `q1` is there twice");
        let found = refused("lie?\",", "lie?,");
        assert!(found.starts_with("dev.json:3: column"), "{found}");
        let found = refused("there?\", \"answers\": [{\"text\": \"Zürich\", \"answer_start\": 0}]}]}]}]}", "there?");
        assert!(found.starts_with("dev.json:5: column") && found.contains("EOF while parsing a string"), "{found}");
        let found = refused("\"question\": \"What", "\"query\": \"What");
        assert!(found.starts_with("dev.json:5: column") && found.contains("missing field `question`"), "{found}");
        assert_eq!(parse(r#"{"data": []}"#).unwrap_err().to_string(), "dev.json is empty");
    }

    #[test]
    fn a_file_takes_memory_and_time_by_its_length() {
        // Repeating the title for each paragraph would take 40 GB, looking for each id to the end of the file minutes.
        let title = "t".repeat(1 << 20);
        let question = |number: usize| format!(r#"{{"id": "\u0071{number}", "question": "?"}}"#);
        let questions = (0..20_000).map(question).collect::<Vec<_>>().join(",");
        let paragraphs = r#"{"context": "", "qas": []},"#.repeat(40_000);
        let json = format!(
            r#"{{"data": [{{"title": "{title}", "paragraphs": [{paragraphs} {{"context": "", "qas": [{questions}]}}]}}]}}"#
        );
        let set = parse(&json).unwrap();
        assert_eq!((set.paragraphs.len(), set.questions.len()), (40_001, 20_000));
        assert_eq!((set.questions[7].id.as_str(), set.questions[7].line), ("q7", 1));
    }

    #[test]
    fn bad_utf_8_names_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.json");
        std::fs::write(&path, b"{\n\"data\xff\": []}").unwrap();
        let error = SquadSet::read(&path).unwrap_err();
        assert!(matches!(&error, Error::Text(TextError::NotUtf8 { place, byte: 5 }) if place.line == 2), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_makes_the_reader_panic(cut in 0_usize..400, junk in ".{0,10}") {
            let cut = FILE.char_indices().map(|(offset, _)| offset).nth(cut).unwrap_or(FILE.len());
            let _ = parse(&format!("{}{junk}{}", &FILE[..cut], &FILE[cut..]));
        }
    }
}
