//! Which names in a tree may become files.

/// Refuses what must not become a file on any account.
pub(super) fn check(name: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name == b"." || name == b".." {
        return Err("it leads elsewhere");
    }
    if name.contains(&b'/') {
        return Err("it holds a slash");
    }
    if name.contains(&0) {
        return Err("it holds a NUL");
    }
    if name.len() > 255 {
        return Err("it is longer than 255 bytes");
    }
    if is_dot_git(name) {
        return Err("it means `.git`, on this or another system");
    }
    Ok(())
}

/// Names with control characters, white space at their end, or bytes that are not UTF-8.
pub(super) fn is_odd(name: &[u8]) -> bool {
    match std::str::from_utf8(name) {
        Ok(text) => text.chars().any(char::is_control) || text.ends_with(char::is_whitespace),
        Err(_) => true,
    }
}

/// `.git` as any file system would take it: HFS+ leaves some characters out, NTFS takes a
/// short name, and spaces, dots and stream names at the end.
fn is_dot_git(name: &[u8]) -> bool {
    // Nearly all names: a tree may have a million.
    if name.is_ascii() && !name.first().is_some_and(|first| b".gG".contains(first)) {
        return false;
    }
    let text = String::from_utf8_lossy(name);
    let plain: String = text.chars().filter(|c| !ignored_by_hfs(*c)).collect();
    let plain = plain.to_lowercase();
    let rest = plain.strip_prefix(".git").or_else(|| plain.strip_prefix("git~1"));
    rest.is_some_and(|rest| {
        let rest = rest.trim_start_matches([' ', '.']);
        rest.is_empty() || rest.starts_with([':', '\\'])
    })
}

fn ignored_by_hfs(c: char) -> bool {
    matches!(c,
        '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_must_not_become_files() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\0",
            ".git",
            ".GIT",
            ".GiT",
            "git~1",
            "GIT~1",
            ".git ",
            ".git.",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".git\\hooks",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{206f}T ",
        ] {
            assert!(check(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(check(&[b'x'; 256]).is_err());
        for name in [
            ".gitignore",
            ".gitattributes",
            ".gitmodules",
            "git",
            "...",
            ".github",
            ".git2",
            "a b",
            "a\\b",
            "git~2",
            "\u{200c}",
        ] {
            assert_eq!(check(name.as_bytes()), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn odd_names() {
        for name in ["a\nb", "a\t", "a ", "\u{7f}", "a\u{a0}"] {
            assert!(is_odd(name.as_bytes()), "{name:?}");
        }
        assert!(is_odd(b"\xff"));
        for name in ["a b", " a", "\u{e4}", "-rf"] {
            assert!(!is_odd(name.as_bytes()), "{name:?}");
        }
    }
}
