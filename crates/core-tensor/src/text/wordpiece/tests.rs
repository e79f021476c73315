//! Pieces against Hugging Face's `BertTokenizer` (transformers 4.57.6, `bert-base-uncased`), on the part of that vocabulary
//! which these cases need.

use super::*;
use proptest::prelude::*;

/// Ids and tokens of the published vocabulary that the cases below use; every other id gets a token that nothing matches.
const PUBLISHED: [(u32, &str); 72] = [
    (0, "[PAD]"),
    (100, "[UNK]"),
    (101, "[CLS]"),
    (102, "[SEP]"),
    (103, "[MASK]"),
    (999, "!"),
    (1005, "'"),
    (1010, ","),
    (1011, "-"),
    (1012, "."),
    (1029, "?"),
    (1037, "a"),
    (1038, "b"),
    (1039, "c"),
    (1040, "d"),
    (1041, "e"),
    (1042, "f"),
    (1043, "g"),
    (1044, "h"),
    (1045, "i"),
    (1046, "j"),
    (1047, "k"),
    (1048, "l"),
    (1049, "m"),
    (1050, "n"),
    (1051, "o"),
    (1052, "p"),
    (1053, "q"),
    (1054, "r"),
    (1055, "s"),
    (1056, "t"),
    (1057, "u"),
    (1058, "v"),
    (1059, "w"),
    (1060, "x"),
    (1061, "y"),
    (1062, "z"),
    (1755, "京"),
    (1781, "北"),
    (1998, "and"),
    (2002, "he"),
    (2003, "is"),
    (2009, "it"),
    (2016, "she"),
    (2017, "you"),
    (2024, "are"),
    (2035, "all"),
    (2050, "##a"),
    (2053, "no"),
    (2056, "said"),
    (2063, "##e"),
    (2094, "##d"),
    (2129, "how"),
    (2139, "de"),
    (2278, "##c"),
    (2290, "##g"),
    (2411, "often"),
    (2497, "##b"),
    (2546, "##f"),
    (2748, "yes"),
    (3468, "##ble"),
    (3900, "##ja"),
    (4990, "journey"),
    (7211, "beijing"),
    (7592, "hello"),
    (7668, "cafe"),
    (11951, "charming"),
    (12473, "affecting"),
    (14477, "una"),
    (15743, "naive"),
    (20961, "##ffa"),
    (24728, "vu"),
];

fn published(casing: Casing) -> WordPiece {
    let mut tokens: Vec<_> = (0..25_000).map(|id| format!("[unused{id}]")).collect();
    for (id, token) in PUBLISHED {
        tokens[id as usize] = token.to_owned();
    }
    WordPiece::from_tokens(tokens, casing, "published").unwrap()
}

#[test]
fn pieces_are_those_of_the_reference() {
    let pieces = published(Casing::Lower);
    let cases: [(&str, &[u32]); 5] = [
        ("unaffable", &[14477, 20961, 3468]),
        ("Naïve café déjà-vu", &[15743, 7668, 2139, 3900, 1011, 24728]),
        ("Hello, y'all! How are you 😁 ?", &[7592, 1010, 1061, 1005, 2035, 999, 2129, 2024, 2017, 100, 1029]),
        ("北京 is Beijing", &[1781, 1755, 2003, 7211]),
        ("\u{0}\u{fffd}is\u{200b} \u{a0}it\t", &[2003, 2009]),
    ];
    for (text, expected) in cases {
        assert_eq!(pieces.pieces(text).unwrap(), expected, "{text}");
    }
    // 100 characters are spelled, 101 are not looked at.
    assert_eq!(pieces.pieces(&"a".repeat(100)).unwrap(), [vec![1037], vec![2050; 99]].concat());
    assert_eq!(pieces.pieces(&"a".repeat(101)).unwrap(), [100]);
}

#[test]
fn inputs_are_those_of_the_reference() {
    let pieces = published(Casing::Lower);
    let encoded = pieces.encode("it 's a charming and often affecting journey . ", 128).unwrap();
    assert_eq!(encoded.ids, [101, 2009, 1005, 1055, 1037, 11951, 1998, 2411, 12473, 4990, 1012, 102]);
    assert_eq!(encoded.types, [0; 12]);
    let encoded = pieces.encode_pair("He said yes .", "She said no .", 16).unwrap();
    assert_eq!(encoded.ids, [101, 2002, 2056, 2748, 1012, 102, 2016, 2056, 2053, 1012, 102]);
    assert_eq!(encoded.types, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
}

#[test]
fn the_longer_text_of_a_pair_is_cut_and_the_second_when_both_are_as_long() {
    let pieces = published(Casing::Lower);
    let ids = |first, second, most| pieces.tokens(&pieces.encode_pair(first, second, most).unwrap().ids).join(" ");
    assert_eq!(ids("a b c d", "e", 6), "[CLS] a b [SEP] e [SEP]");
    assert_eq!(ids("a b", "c d", 6), "[CLS] a b [SEP] c [SEP]");
    assert_eq!(ids("a", "c d e f", 5), "[CLS] a [SEP] c [SEP]");
    assert_eq!(ids("a", "b", 3), "[CLS] [SEP] [SEP]");
    assert_eq!(pieces.tokens(&pieces.encode("a b c", 4).unwrap().ids).join(" "), "[CLS] a b [SEP]");
    let error = pieces.encode_pair("a", "b", 2).unwrap_err().to_string();
    assert_eq!(error, "longest sequence is 2, expected at least 3, the special tokens");
}

#[test]
fn case_and_accents_stay_when_asked() {
    let pieces = published(Casing::Kept);
    assert_eq!(pieces.pieces("is Is").unwrap(), [2003, 100]);
    assert_eq!(pieces.basic_words("Café, no").unwrap(), ["Café", ",", "no"]);
    assert_eq!(published(Casing::Lower).basic_words("Café, no").unwrap(), ["cafe", ",", "no"]);
}

#[test]
fn a_special_token_in_a_text_is_that_token() {
    let pieces = published(Casing::Lower);
    assert_eq!(pieces.pieces("he [MASK] no [UNK]").unwrap(), [2002, 103, 2053, 100]);
}

#[test]
fn pieces_of_split_words_know_their_word() {
    let pieces = published(Casing::Lower);
    let found = pieces.words(&["unaffable", "no.", "\u{200b}", "y'all"]).unwrap();
    assert_eq!(found.ids, [14477, 20961, 3468, 2053, 1012, 1061, 1005, 2035]);
    assert_eq!(found.words, [0, 0, 0, 1, 1, 3, 3, 3]);
    assert_eq!(pieces.join(&found.ids), "unaffable no . y ' all");
}

#[test]
fn a_vocabulary_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let pieces = published(Casing::Lower);
    pieces.save(&path).unwrap();
    let read = WordPiece::from_file(&path, Casing::Lower).unwrap();
    assert_eq!(read.tokens, pieces.tokens);
    assert_eq!(read.special(), SpecialTokens { pad: 0, unknown: 100, cls: 101, sep: 102, mask: 103 });
}

#[test]
fn bad_vocabularies_are_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = WordPiece::from_file(&path, Casing::Lower).unwrap_err().to_string();
        error.replace(&*folder.path().to_string_lossy(), "")
    };
    assert_eq!(refused(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"), "/vocab.txt: no special token `[MASK]`");
    assert_eq!(refused(b"[PAD]\n[UNK]\nx\n[SEP]\nx\n"), "/vocab.txt:5: `x` is there twice");
    assert_eq!(refused(b"[PAD]\n\xc3\x28\n"), "/vocab.txt:2: not UTF-8 from byte 0 of the line on");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(WordPiece::from_file(&path, Casing::Lower), Err(Error::Io { action: "read", .. })));
}

#[test]
fn an_embedding_must_match_the_vocabulary() {
    let tokens = SPECIAL.map(str::to_owned).to_vec();
    let pieces = WordPiece::from_tokens(tokens, Casing::Lower, "five").unwrap();
    pieces.check_embedding(5, false).unwrap();
    pieces.check_embedding(8, true).unwrap();
    let error = pieces.check_embedding(8, false).unwrap_err().to_string();
    assert_eq!(error, "the vocabulary has 5 tokens, the embedding 8 rows");
    assert!(pieces.check_embedding(4, true).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_fits_the_room_it_is_given(first in ".{0,80}", second in ".{0,80}", most in 3_usize..40) {
        let tokens = SPECIAL.iter().map(|&token| token.to_owned());
        let tokens = tokens.chain(('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")])).collect();
        let pieces = WordPiece::from_tokens(tokens, Casing::Lower, "letters").unwrap();
        let encoded = pieces.encode_pair(&first, &second, most).unwrap();
        prop_assert!(encoded.len() <= most);
        prop_assert_eq!(encoded.types.len(), encoded.len());
        prop_assert!(encoded.check(0, pieces.len(), most).is_ok());
        prop_assert_eq!(encoded.ids[0], pieces.special().cls);
        prop_assert_eq!(*encoded.ids.last().unwrap(), pieces.special().sep);
    }

    #[test]
    fn words_one_by_one_are_pieces_of_the_whole(words in prop::collection::vec("[a-z,.é]{1,8}", 1..8)) {
        let tokens = SPECIAL.iter().map(|&token| token.to_owned());
        let tokens = tokens.chain(('a'..='z').flat_map(|c| [c.to_string(), format!("##{c}")])).collect();
        let pieces = WordPiece::from_tokens(tokens, Casing::Lower, "letters").unwrap();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        prop_assert_eq!(pieces.words(&words).unwrap().ids, pieces.pieces(&words.join(" ")).unwrap());
    }
}
