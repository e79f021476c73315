use super::*;

#[test]
fn numbers_are_short_and_keep_what_matters() {
    for (x, text) in [
        (0.0, "0"),
        (81.594, "81.59"),
        (-0.5, "−0.5"),
        (100.0, "100"),
        (0.01152, "0.0115"),
        (12345.6, "12346"),
        (3.2e-7, "3.20e−7"),
        (2.5e9, "2.50e9"),
        (1.0, "1"),
    ] {
        assert_eq!(number(x), text);
    }
}
