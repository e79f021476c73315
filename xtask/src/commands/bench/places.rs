//! Where things lie on this machine, which is nobody else's business.

use std::env;
use std::path::Path;

/// Folders and files with the names that a report calls them by.
pub(super) struct Places(Vec<(String, &'static str)>);

impl Places {
    pub(super) fn new<'a>(named: impl IntoIterator<Item = (&'a Path, &'static str)>) -> Self {
        let named = named.into_iter().map(|(path, name)| (path.to_string_lossy().into_owned(), name));
        let home = env::var("HOME").ok().map(|home| (home, "~"));
        let mut places: Vec<(String, &'static str)> =
            named.chain(home).map(|(path, name)| (path.trim_end_matches('/').to_owned(), name)).collect();
        // A tool that is named without its folder gives nothing away.
        places.retain(|(path, _)| Path::new(path).is_absolute());
        // What lies inside another comes first.
        places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        Self(places)
    }

    /// The text with the places called by their names, and of any other absolute path only its end.
    pub(super) fn hide(&self, text: &str) -> String {
        let mut text = text.replace("file://", "");
        for (path, name) in &self.0 {
            text = replace_path(&text, path, name);
        }
        without_folders(&text)
    }
}

/// Replaces the path where it stands for itself or for what lies below it, and not where a longer name begins with it.
fn replace_path(text: &str, path: &str, name: &str) -> String {
    let mut parts = text.split(path);
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let goes_on = part.starts_with(|next: char| next.is_alphanumeric() || "-_.".contains(next));
        // A full stop may also end a sentence.
        let goes_on = goes_on && !part.trim_start_matches('.').is_empty();
        replaced += if goes_on { path } else { name };
        replaced += part;
    }
    replaced
}

/// Absolute paths, each cut to `…/` and its last name.
fn without_folders(text: &str) -> String {
    let is_in_path = |letter: char| letter.is_alphanumeric() || "/-_.+@~".contains(letter);
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, path) = rest.split_at(at);
        kept += before;
        let path = &path[..path.find(|letter| !is_in_path(letter)).unwrap_or(path.len())];
        rest = &rest[at + path.len()..];
        // Behind a letter or a brace it is a quotient, a relative path, or a place's name; behind a colon an address.
        let begins = kept.chars().last().is_none_or(|last| !(is_in_path(last) || last == '}'));
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if begins && path.matches('/').count() > 1 && !path.starts_with("//") {
            kept += "…/";
            kept += name;
        } else {
            kept += path;
        }
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> String {
        let places = [
            ("/srv/house", "{workspace}"),
            ("/srv/house/target", "{target}"),
            ("/srv/data/", "{data}"),
            ("/", "nothing"),
            ("python3", "nothing"),
        ];
        Places::new(places.map(|(path, name)| (Path::new(path), name))).hide(text)
    }

    #[test]
    fn places_are_called_by_their_names() {
        assert_eq!(
            hidden("OSError: no /srv/data/glue in /srv/house/target/peers"),
            "OSError: no {data}/glue in {target}/peers"
        );
        assert_eq!(hidden("cannot run '/srv/house/x.py'"), "cannot run '{workspace}/x.py'");
        assert_eq!(hidden("nothing below /srv/data."), "nothing below {data}.");
    }

    #[test]
    fn other_paths_lose_their_folders() {
        assert_eq!(hidden("No such file: '/usr/lib/python3/site.py'"), "No such file: '…/site.py'");
        assert_eq!(hidden("(/srv/house-of-others/x, /opt/y/)"), "(…/x, …/y)");
        assert_eq!(hidden("see file:///opt/a/b"), "see …/b");
        assert_eq!(hidden("--cache=/opt/a/b"), "--cache=…/b");
    }

    #[test]
    fn what_is_no_path_of_this_machine_stays() {
        for text in [
            "3 images/s, 1/2",
            "fas/infer_128",
            "https://pypi.org/simple/x",
            "cannot run python3",
            "and/or",
            "a / b",
            "/",
            "{data}/a/b",
        ] {
            assert_eq!(hidden(text), text);
        }
    }
}
