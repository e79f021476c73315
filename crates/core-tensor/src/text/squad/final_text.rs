//! From pieces back to the words of the paragraph.

use crate::Result;
use crate::text::WordPiece;

/// The part of `words` that `found` stands for.
///
/// `found` is joined pieces: lower case, without accents, with spaces around punctuation. `words` are the words of the
/// paragraph that those pieces come from, and may carry more, such as the `'s` of "Steve Smith's". Both are compared
/// without their spaces; when that fails, `words` is returned as a whole.
pub(super) fn final_text(found: &str, words: &str, pieces: &WordPiece) -> Result<String> {
    let cleaned = pieces.basic_words(words)?.join(" ");
    Ok(project(found, words, &cleaned).unwrap_or_else(|| words.to_owned()))
}

fn project(found: &str, words: &str, cleaned: &str) -> Option<String> {
    let start = cleaned.find(found)?;
    let start = cleaned[..start].chars().count();
    // The last character of what was found; none is found of an empty text.
    let end = (start + found.chars().count()).checked_sub(1).filter(|end| *end >= start)?;
    let (words, cleaned): (Vec<char>, Vec<char>) = (words.chars().collect(), cleaned.chars().collect());
    let solid = |text: &[char]| (0..text.len()).filter(|&at| text[at] != ' ').collect::<Vec<_>>();
    let (of_words, of_cleaned) = (solid(&words), solid(&cleaned));
    if of_words.len() != of_cleaned.len() {
        return None;
    }
    let place = |at: usize| of_cleaned.binary_search(&at).ok().map(|nth| of_words[nth]);
    Some(words[place(start)?..=place(end)?].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Casing;

    fn of(found: &str, words: &str) -> String {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
        let pieces = WordPiece::from_tokens(tokens, Casing::Lower, "none").unwrap();
        final_text(found, words, &pieces).unwrap()
    }

    #[test]
    fn case_accents_and_punctuation_come_back() {
        // Results of the reference's get_final_text (transformers 4.57.6).
        assert_eq!(of("steve smith", "Steve Smith's"), "Steve Smith");
        assert_eq!(of("resume", "Résumé,"), "Résumé");
        assert_eq!(of("u . s", "(U.S.)"), "U.S");
    }

    #[test]
    fn what_cannot_be_found_or_compared_keeps_its_words() {
        assert_eq!(of("smyth", "Steve Smith's"), "Steve Smith's");
        assert_eq!(of("", "Steve"), "Steve");
        // A zero-width space is cleaned away, so that lengths differ.
        assert_eq!(of("ab", "a\u{200b}b"), "a\u{200b}b");
    }
}
