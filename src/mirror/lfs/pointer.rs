//! What stands in a commit for a file that Git LFS keeps elsewhere.

use std::fmt;

/// A larger blob is no pointer, as git-lfs has it.
pub(in crate::mirror) const LONGEST: usize = 1024;
/// The specification, and what the program was called before.
const VERSIONS: [&str; 3] = [
    "https://git-lfs.github.com/spec/v1",
    "https://hawser.github.com/spec/v1",
    "http://git-media.io/v/2",
];

/// The SHA-256 of an object's content, by which it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 32]);

impl ObjectId {
    pub(in crate::mirror) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From 64 digits in lower case.
    pub(in crate::mirror) fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An object that a pointer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// What it is known by.
    pub oid: ObjectId,
    /// Its bytes.
    pub size: u64,
}

/// Reads a pointer as git-lfs does: version, `oid`, `size`, in this order. `None` for what is
/// none, and for one whose content would have to be made by a program (`ext-…`).
pub(in crate::mirror) fn parse(content: &[u8]) -> Option<Object> {
    if content.len() > LONGEST {
        return None;
    }
    let text = std::str::from_utf8(content).ok()?;
    // Of a `\r\n` nobody made a pointer, but `.gitattributes` may.
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let mut value = |key: &str| {
        let (found, value) = lines.next()?.split_once(' ')?;
        (found == key).then_some(value)
    };
    let version = value("version")?;
    let oid = value("oid")?.strip_prefix("sha256:")?;
    let size = value("size")?;
    let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    let object = Object { oid: ObjectId::parse(oid)?, size: size.parse().ok()? };
    let whole = lines.next().is_none() && digits && i64::try_from(object.size).is_ok();
    (whole && VERSIONS.contains(&version)).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    #[test]
    fn pointers_and_what_only_looks_like_one() {
        let pointer = |version: &str, oid: &str, size: &str| {
            format!("version {version}\noid sha256:{oid}\nsize {size}\n")
        };
        let object = Object { oid: ObjectId::parse(OID).unwrap(), size: 12345 };
        assert_eq!(object.oid.to_string(), OID);
        for version in VERSIONS {
            assert_eq!(parse(pointer(version, OID, "12345").as_bytes()), Some(object));
        }
        let good = pointer(VERSIONS[0], OID, "12345");
        for text in [good.replace('\n', "\r\n"), good.trim_end().to_owned(), format!("{good}\n")] {
            assert_eq!(parse(text.as_bytes()), Some(object), "{text:?}");
        }
        let version = VERSIONS[0];
        for text in [
            String::new(),
            format!("x{good}"),
            pointer("https://git-lfs.github.com/spec/v2", OID, "1"),
            pointer(version, &OID.to_uppercase(), "1"),
            pointer(version, &OID[1..], "1"),
            pointer(version, &format!("{OID}0"), "1"),
            pointer(version, OID, ""),
            pointer(version, OID, "+1"),
            pointer(version, OID, "-1"),
            pointer(version, OID, " 1"),
            pointer(version, OID, "0x1"),
            pointer(version, OID, "9223372036854775808"),
            pointer(version, OID, "99999999999999999999999999"),
            good.replace("sha256", "md5"),
            good.replace("oid ", "ext-0-foo sha256:1\noid "),
            format!("size 1\n{good}"),
            format!("{good}x y\n"),
            format!("{good}{}", "\n".repeat(LONGEST)),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(&[good.as_bytes(), b"\xff"].concat()), None);
    }
}
