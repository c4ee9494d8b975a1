//! A commit or tag taken apart: what was signed, and the signature.

/// The parts of a signed object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// What the signature is of.
    pub(super) payload: Vec<u8>,
    /// The signature as text; `None` if there is none.
    pub(super) signature: Option<Vec<u8>>,
    /// The committer's or tagger's time, in seconds since 1970.
    pub(super) time: Option<i64>,
}

/// What a signature was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Ssh,
    OpenPgp,
    X509,
    Unknown,
}

/// Armor as git recognises it.
const ARMOR: [(&[u8], Format); 4] = [
    (b"-----BEGIN SSH SIGNATURE-----", Format::Ssh),
    (b"-----BEGIN PGP SIGNATURE-----", Format::OpenPgp),
    (b"-----BEGIN PGP MESSAGE-----", Format::OpenPgp),
    (b"-----BEGIN SIGNED MESSAGE-----", Format::X509),
];

/// What a signature was made with.
pub(super) fn format(signature: &[u8]) -> Format {
    ARMOR
        .iter()
        .find(|(armor, _)| signature.starts_with(armor))
        .map_or(Format::Unknown, |(_, format)| *format)
}

/// Takes a commit apart: the signature is a header of several lines, and what was signed is
/// the rest.
pub(super) fn commit(content: &[u8]) -> Result<Parts, &'static str> {
    let mut payload = Vec::with_capacity(content.len());
    let mut signature: Option<Vec<u8>> = None;
    let mut time = None;
    let mut rest = content;
    let mut inside = Inside::Other;
    while !rest.is_empty() && rest[0] != b'\n' {
        let (line, after) = split_line(rest);
        rest = after;
        if let Some(text) = line.strip_prefix(b" ") {
            match inside {
                Inside::Signature => {
                    if let Some(signature) = &mut signature {
                        signature.extend_from_slice(text);
                    }
                }
                Inside::ForSha256 => {}
                Inside::Other => payload.extend_from_slice(line),
            }
        } else if let Some(text) = line.strip_prefix(b"gpgsig ") {
            if signature.is_some() {
                return Err("it has more than one");
            }
            signature = Some(text.to_vec());
            inside = Inside::Signature;
        } else if line.starts_with(b"gpgsig-sha256 ") {
            inside = Inside::ForSha256;
        } else {
            if line.starts_with(b"committer ") {
                time = time_of(line);
            }
            payload.extend_from_slice(line);
            inside = Inside::Other;
        }
    }
    payload.extend_from_slice(rest);
    Ok(Parts { payload, signature, time })
}

/// The header that a line with a leading space continues.
#[derive(Clone, Copy)]
enum Inside {
    Signature,
    /// Of the same commit in a repository with SHA-256 ids.
    ForSha256,
    Other,
}

/// Takes an annotated tag apart: the signature is the end, beginning with the last line that
/// looks like the beginning of one.
pub(super) fn tag(content: &[u8]) -> Result<Parts, &'static str> {
    let mut begins = None;
    let mut time = None;
    let mut header = true;
    let mut rest = content;
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        if header && line.starts_with(b"tagger ") {
            time = time_of(line);
        }
        if header && line.starts_with(b"gpgsig") {
            return Err("it stands in the header, where a tag has none");
        }
        header &= line != b"\n";
        if format(line) != Format::Unknown {
            begins = Some(content.len() - rest.len());
        }
        rest = after;
    }
    let (payload, signature) = content.split_at(begins.unwrap_or(content.len()));
    let signature = begins.map(|_| signature.to_vec());
    Ok(Parts { payload: payload.to_vec(), signature, time })
}

/// The name in an annotated tag, which a ref that points to it may or may not have too.
pub(super) fn tag_name(content: &[u8]) -> Option<&[u8]> {
    let mut rest = content;
    while !rest.is_empty() && rest[0] != b'\n' {
        let (line, after) = split_line(rest);
        if let Some(name) = line.strip_prefix(b"tag ") {
            return Some(name.strip_suffix(b"\n").unwrap_or(name));
        }
        rest = after;
    }
    None
}

/// The first line with its line feed, and what follows.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |feed| feed + 1);
    text.split_at(end)
}

/// `committer Ada <ada@example.com> 1700000000 +0000`
fn time_of(line: &[u8]) -> Option<i64> {
    let text =
        std::str::from_utf8(&line[line.iter().rposition(|byte| *byte == b'>')? + 1..]).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent a\nauthor A <a> 1 +0000\ncommitter C > <c> 1700000000 +0130\n";

    #[test]
    fn a_commit_without_its_signature_is_what_was_signed() {
        let signed = format!(
            "{COMMIT}gpgsig -----BEGIN SSH SIGNATURE-----\n U1NI\n \n -----END SSH SIGNATURE-----\ngpgsig-sha256 x\n y\nmergetag t\n more\nencoding x\n\ngpgsig no\n header\n"
        );
        let parts = commit(signed.as_bytes()).unwrap();
        let rest = format!("{COMMIT}mergetag t\n more\nencoding x\n\ngpgsig no\n header\n");
        assert_eq!(String::from_utf8(parts.payload).unwrap(), rest);
        let signature = parts.signature.unwrap();
        assert_eq!(
            String::from_utf8(signature.clone()).unwrap(),
            "-----BEGIN SSH SIGNATURE-----\nU1NI\n\n-----END SSH SIGNATURE-----\n"
        );
        assert_eq!(format(&signature), Format::Ssh);
        assert_eq!(parts.time, Some(1_700_000_000));
        let bare = commit(rest.as_bytes()).unwrap();
        assert_eq!((bare.signature, bare.payload), (None, rest.into_bytes()));
        assert!(commit(format!("{COMMIT}gpgsig a\ngpgsig b\n\n").as_bytes()).is_err());
    }

    #[test]
    fn a_tags_signature_is_its_end() {
        let text = "object 1\ntype commit\ntag v1\ntagger T <t> 12 +0000\n\n-----BEGIN PGP SIGNATURE-----\nquoted\n";
        let end = "-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n";
        let parts = tag(format!("{text}{end}").as_bytes()).unwrap();
        assert_eq!((parts.payload.as_slice(), parts.time), (text.as_bytes(), Some(12)));
        assert_eq!(parts.signature.as_deref(), Some(end.as_bytes()));
        assert_eq!(tag_name(text.as_bytes()), Some(b"v1".as_slice()));
        assert_eq!(tag(b"object 1\n\nhello").unwrap().signature, None);
        assert!(tag(b"object 1\ngpgsig x\n\nhello").is_err());
    }

    #[test]
    fn nothing_that_is_cut_or_empty_makes_it_panic() {
        let signed = format!("{COMMIT}gpgsig -----BEGIN SSH SIGNATURE-----\n U1NI\n\nhello\n");
        for end in 0..signed.len() {
            let _ = commit(&signed.as_bytes()[..end]);
            let _ = tag(&signed.as_bytes()[..end]);
            let _ = tag_name(&signed.as_bytes()[..end]);
        }
    }
}
