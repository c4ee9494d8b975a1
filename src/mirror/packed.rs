//! The file `packed-refs`, read without libgit2, which a run with nothing to do never starts.

use crate::domain::Revision;

/// The refs in it; `None` if a line of it is not one.
pub(crate) fn refs(text: &[u8]) -> Option<Vec<(Revision, &str)>> {
    let lines = text.split(|byte| *byte == b'\n').map(line);
    lines.filter_map(Result::transpose).collect::<Result<_, _>>().ok()
}

/// A line that is none.
pub(super) struct Damaged;

/// One line; no ref in a comment, and in what a tag points to.
pub(super) fn line(line: &[u8]) -> Result<Option<(Revision, &str)>, Damaged> {
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Damaged)?;
    let id = |text: &str| text.trim_end().parse::<Revision>().map_err(|_| Damaged);
    if let Some(peeled) = line.strip_prefix('^') {
        return id(peeled).map(|_| None);
    }
    let (start, name) = line.split_once(' ').ok_or(Damaged)?;
    if !name.starts_with("refs/") || name.ends_with('/') {
        return Err(Damaged);
    }
    Ok(Some((id(start)?, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_counts() {
        let id = "1".repeat(40);
        let text = format!("# pack-refs with: peeled\n{id} refs/a/b\n^{id}\n\n{id} refs/c\n");
        let id: Revision = id.parse().unwrap();
        assert_eq!(refs(text.as_bytes()), Some(vec![(id, "refs/a/b"), (id, "refs/c")]));
        assert_eq!(refs(b""), Some(vec![]));
        for damage in ["nonsense", "1111 refs/x", "\0\0\0", "^abc", &text[..30]] {
            assert_eq!(refs(damage.as_bytes()), None, "{damage:?}");
        }
        assert_eq!(refs(&text.as_bytes()[..100]), None, "cut");
    }
}
