//! Files of running text.

use std::path::Path;

use crate::Result;
use crate::text::TextError;
use crate::text::lines::{lines, read};

/// A text of its own, such as an encyclopedia's article or a book.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// Its title; empty when the file gives none.
    pub title: String,
    /// Its paragraphs, headings left out.
    pub paragraphs: Vec<String>,
}

/// Reads a file of WikiText-2 or WikiText-103 (Merity et al., arXiv 1609.07843).
///
/// A document starts at a line ` = Title = `; lines with more equals signs are headings inside it and are left out.
/// ` @-@ `, ` @,@ ` and ` @.@ ` become the characters they stand for, `<unk>` becomes `[UNK]`, which a
/// [`WordPiece`](crate::text::WordPiece) reads as its unknown token.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 (with its line) or has no paragraph.
pub fn wikitext(path: &Path) -> Result<Vec<Document>> {
    let bytes = read(path)?;
    let mut documents = Vec::<Document>::new();
    for line in lines(path, &bytes) {
        let (_, line) = line?;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        match heading(line) {
            Some((1, title)) => documents.push(Document { title: title.to_owned(), paragraphs: Vec::new() }),
            Some(_) => {}
            None => {
                if documents.is_empty() {
                    documents.push(Document::default());
                }
                let mut text = line.replace("<unk>", "[UNK]");
                for mark in ["-", ",", "."] {
                    text = text.replace(&format!(" @{mark}@ "), mark);
                }
                // There is a document: one was pushed above.
                if let Some(document) = documents.last_mut() {
                    document.paragraphs.push(text);
                }
            }
        }
    }
    documents.retain(|document| !document.paragraphs.is_empty());
    some(documents, path)
}

/// Equals signs on each side of a heading, and what it says.
fn heading(line: &str) -> Option<(usize, &str)> {
    let words: Vec<_> = line.split(' ').collect();
    let signs = words.iter().take_while(|word| **word == "=").count();
    let after = words.iter().rev().take_while(|word| **word == "=").count();
    let framed = signs > 0 && signs == after && words.len() > 2 * signs;
    framed.then(|| (signs, line[2 * signs..line.len() - 2 * signs].trim()))
}

/// Reads a text whose paragraphs are separated by empty lines, as one document. Of Markdown, headings with `#`, rules and the
/// asterisks of emphasis are left out (underscores, and headings underlined with a rule, stay); the title is the first heading's.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 (with its line) or has no paragraph.
pub fn plain_text(path: &Path) -> Result<Document> {
    let bytes = read(path)?;
    let mut document = Document::default();
    let mut paragraph = String::new();
    for line in lines(path, &bytes) {
        let (_, line) = line?;
        let line = line.trim();
        let title = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim());
        if let Some(title) = title.filter(|_| document.title.is_empty()) {
            document.title = title.to_owned();
        }
        let rule = line.chars().all(|character| matches!(character, '-' | '*' | '_' | '='));
        if rule || title.is_some() {
            finish(&mut paragraph, &mut document);
            continue;
        }
        if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        paragraph.extend(line.chars().filter(|character| *character != '*'));
    }
    finish(&mut paragraph, &mut document);
    some(document.paragraphs, path).map(|paragraphs| Document { title: document.title, paragraphs })
}

fn finish(paragraph: &mut String, document: &mut Document) {
    if !paragraph.is_empty() {
        document.paragraphs.push(std::mem::take(paragraph));
    }
}

fn some<T>(found: Vec<T>, path: &Path) -> Result<Vec<T>> {
    if found.is_empty() {
        return Err(TextError::Empty { what: path.display().to_string() }.into());
    }
    Ok(found)
}

/// The sentences of a paragraph: they end at `.`, `!` or `?`, with closing quotes or brackets after it, before a space and
/// anything but a lower-case letter. A rule of thumb, enough to draw next-sentence pairs from: `Mr. Holmes` is cut in two.
pub fn sentences(paragraph: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let characters: Vec<(usize, char)> = paragraph.char_indices().collect();
    let mut ended = false;
    for (nth, &(at, character)) in characters.iter().enumerate() {
        match character {
            '.' | '!' | '?' => ended = true,
            _ if closing(character) => {}
            ' ' if ended => {
                let mut ahead =
                    characters[nth..].iter().map(|(_, character)| *character).skip_while(|next| *next == ' ');
                let (next, after) = (ahead.next(), ahead.next());
                // WikiText puts a space between the sign and a closing quote, and another one after it.
                let closes = next.is_some_and(closing) && after.is_none_or(|after| after == ' ');
                if !closes && next.is_some_and(|next| !next.is_lowercase()) {
                    found.push(paragraph[start..at].trim());
                    start = at;
                    ended = false;
                }
            }
            ' ' => {}
            _ => ended = false,
        }
    }
    found.push(paragraph[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Quotes and brackets that may follow the sign which ends a sentence.
fn closing(character: char) -> bool {
    matches!(character, '"' | '\'' | ')' | ']' | '”' | '’')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn articles_start_at_their_titles() {
        let (_folder, path) = file(
            " \n = Homarus gammarus = \n \n A <unk> of 0 @.@ 7 – 2 @,@ 200 kg , well @-@ known . \n \n = = Description = = \n \
             = = = Claws = = = \n Large . \n = Next = \n \n Text with = in it . \n",
        );
        let found = wikitext(&path).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].title, "Homarus gammarus");
        assert_eq!(found[0].paragraphs, ["A [UNK] of 0.7 – 2,200 kg , well-known .", "Large ."]);
        assert_eq!((found[1].title.as_str(), found[1].paragraphs.len()), ("Next", 1));
    }

    #[test]
    fn a_book_is_one_document() {
        let (_folder, path) = file("# Title: Dracula\n\n-------\n\n## CHAPTER 1\n\n*3 May.*—Left\nMunich.\n\nThe end.");
        let found = plain_text(&path).unwrap();
        assert_eq!(found.title, "Title: Dracula");
        assert_eq!(found.paragraphs, ["3 May.—Left Munich.", "The end."]);
    }

    #[test]
    fn files_without_text_are_refused() {
        let (_folder, path) = file("# only a heading\n\n---\n");
        assert!(plain_text(&path).unwrap_err().to_string().ends_with("text is empty"));
        let (_folder, path) = file(" = Title = \n");
        assert!(wikitext(&path).unwrap_err().to_string().ends_with("text is empty"));
    }

    #[test]
    fn sentences_end_at_their_signs() {
        assert_eq!(
            sentences("One. Two! \"Three?\" he said. 4.5 is 5."),
            ["One.", "Two!", "\"Three?\" he said.", "4.5 is 5."]
        );
        assert_eq!(sentences("He said \" stop . \" B"), ["He said \" stop . \"", "B"]);
        assert!(sentences("  ").is_empty());
    }

    proptest! {
        #[test]
        fn no_word_is_lost_between_sentences(text in "[a-zA-Z.!? \"]{0,60}") {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(sentences(&text).into_iter().flat_map(words).collect::<Vec<_>>(), words(&text));
        }
    }
}
