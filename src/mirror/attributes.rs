//! What `.gitattributes` say about each path, in the terms of what has to be done.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix_attributes::glob::pattern::Case;
use gix_attributes::search::{MetadataCollection, Outcome};
use gix_attributes::{Search, StateRef};

use super::convert::{Encoding, Eol};
use super::lfs::Object;

/// git reads no longer lines.
const LONGEST_LINE: usize = 2048;

/// What is done to a file's content on its way to the disk, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Conversion {
    /// `$Id$` becomes the blob's id.
    pub ident: bool,
    /// Line ends.
    pub eol: Option<Eol>,
    /// From UTF-8 to this.
    pub encoding: Option<Encoding>,
    /// `$Format:…$` becomes facts about the commit.
    pub substitute: bool,
    /// A program that is not run.
    pub filter: Option<String>,
    /// The content is not the blob's, which is a pointer of Git LFS, but this. Nothing else is
    /// done to it then.
    pub lfs: Option<Object>,
}

/// All attributes of a tree.
pub(super) struct Attributes {
    search: Search,
    ignore: Outcome,
    content: Outcome,
    /// Files with lines that cannot be read, and how many.
    pub ignored_lines: Vec<(String, usize)>,
}

const IGNORE: [&str; 1] = ["export-ignore"];
/// The order in which `of_file` looks at them.
const CONTENT: [&str; 7] =
    ["text", "crlf", "eol", "ident", "working-tree-encoding", "export-subst", "filter"];

impl Attributes {
    /// From the content of all `.gitattributes`, each with its directory.
    pub(super) fn new(mut files: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut collection = MetadataCollection::default();
        let mut search = Search::default();
        let mut ignored_lines = Vec::new();
        let mut add = |text: &[u8], path: PathBuf, macros: bool| {
            let root = Some(Path::new(""));
            // Fails for a path without a parent only.
            let _ = search.add_patterns_buffer(text, path, root, &mut collection, macros);
        };
        add(b"[attr]binary -diff -merge -text", "builtin".into(), true);
        // The deeper ones count more; those that come later do so here.
        files.sort_by_key(|(directory, _)| directory.split(|b| *b == b'/').count());
        files.sort_by_key(|(directory, _)| !directory.is_empty());
        for (directory, text) in &files {
            let path = Path::new(OsStr::from_bytes(directory)).join(".gitattributes");
            let (text, left_out) = readable(text);
            if left_out > 0 {
                ignored_lines.push((path.display().to_string(), left_out));
            }
            add(&text, path, directory.is_empty());
        }
        let (mut ignore, mut content) = (Outcome::default(), Outcome::default());
        ignore.initialize_with_selection(&collection, IGNORE);
        content.initialize_with_selection(&collection, CONTENT);
        Self { search, ignore, content, ignored_lines }
    }

    /// Whether `git archive` leaves the path out.
    pub(super) fn is_ignored(&mut self, path: &[u8], is_directory: bool) -> bool {
        look(&self.search, &mut self.ignore, path, is_directory);
        self.ignore.iter_selected().any(|found| found.assignment.state == StateRef::Set)
    }

    /// What is done to a file.
    ///
    /// # Errors
    /// The name of an encoding that is not known.
    pub(super) fn of_file(&mut self, path: &[u8]) -> Result<Conversion, String> {
        look(&self.search, &mut self.content, path, false);
        let mut states = [StateRef::Unspecified; CONTENT.len()];
        for found in self.content.iter_selected() {
            let name = found.assignment.name.as_str();
            if let Some(at) = CONTENT.iter().position(|known| *known == name) {
                states[at] = found.assignment.state;
            }
        }
        let [text, crlf, eol, ident, encoding, subst, filter] = states;
        let encoding = match encoding {
            StateRef::Unspecified => None,
            StateRef::Value(name) if name.as_bstr().is_empty() => None,
            StateRef::Value(name) => {
                let name = String::from_utf8_lossy(name.as_bstr()).into_owned();
                Encoding::named(&name).ok_or(name)?
            }
            StateRef::Set => return Err("true".into()),
            StateRef::Unset => return Err("false".into()),
        };
        let filter = match filter {
            StateRef::Value(name) => Some(String::from_utf8_lossy(name.as_bstr()).into_owned()),
            _ => None,
        };
        Ok(Conversion {
            ident: ident == StateRef::Set,
            eol: Eol::from_attributes(text, crlf, eol),
            encoding,
            substitute: subst == StateRef::Set,
            filter,
            lfs: None,
        })
    }
}

fn look(search: &Search, outcome: &mut Outcome, path: &[u8], is_directory: bool) {
    outcome.reset();
    search.pattern_matching_relative_path(
        path.into(),
        Case::Sensitive,
        Some(is_directory),
        outcome,
    );
}

/// The lines that git reads, and the number of those it does not.
fn readable(text: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let too_long = |line: &&[u8]| line.len() >= LONGEST_LINE;
    let left_out = text.split(|b| *b == b'\n').filter(too_long).count();
    if left_out == 0 {
        return (Cow::Borrowed(text), 0);
    }
    let kept: Vec<_> = text.split(|b| *b == b'\n').filter(|line| !too_long(line)).collect();
    (Cow::Owned(kept.join(&b'\n')), left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_files_count_more_and_macros_count_at_the_root() {
        let file = |directory: &str, text: &str| (directory.into(), text.into());
        let mut attributes = Attributes::new(vec![
            file("docs/deep", "*.txt -export-ignore\n[attr]mine export-ignore\nx mine\n"),
            file(
                "",
                "[attr]secret export-ignore\ndocs/** export-ignore\n*.key secret\nbuild/ export-ignore\n",
            ),
            file("docs", "keep !export-ignore\n"),
        ]);
        for (path, is_directory, ignored) in [
            ("docs/a", false, true),
            ("docs/keep", false, false),
            ("docs/deep/a.txt", false, false),
            ("docs/deep/a.md", false, true),
            ("a.key", false, true),
            ("sub/a.key", false, true),
            ("build", true, true),
            ("build", false, false),
            ("a.txt", false, false),
        ] {
            assert_eq!(attributes.is_ignored(path.as_bytes(), is_directory), ignored, "{path}");
        }
    }

    #[test]
    fn lines_that_git_would_not_read_are_left_out() {
        let long = format!("*.a export-ignore\n{} export-ignore\n", "x".repeat(3000));
        let mut attributes = Attributes::new(vec![(Vec::new(), long.into_bytes())]);
        assert!(attributes.is_ignored(b"b.a", false));
        assert_eq!(attributes.ignored_lines, [(".gitattributes".to_owned(), 1)]);
    }

    #[test]
    fn unknown_encodings_are_told() {
        let text = b"a working-tree-encoding=EBCDIC\nb working-tree-encoding\nc working-tree-encoding=UTF-8\n";
        let mut attributes = Attributes::new(vec![(Vec::new(), text.to_vec())]);
        assert_eq!(attributes.of_file(b"a"), Err("EBCDIC".into()));
        assert_eq!(attributes.of_file(b"b"), Err("true".into()));
        assert_eq!(attributes.of_file(b"c"), Ok(Conversion::default()));
    }
}
