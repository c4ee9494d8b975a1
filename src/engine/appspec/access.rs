//! The words of a permissions entry: mode, owner, patterns, access control lists, SELinux
//! context.

use std::fmt;

/// Permission bits, and the text the agent writes for them into its instruction file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// All twelve bits.
    pub bits: u32,
    /// Three or four octal digits.
    pub text: String,
}

impl Mode {
    /// Reads up to four octal digits; fewer than three are filled with zeros in front.
    ///
    /// # Errors
    /// A lower-case fragment that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = format!("{text:0>3}");
        if text.chars().count() > 4 {
            return Err(format!("the mode `{text}` has more than four digits"));
        }
        if let Some(c) = text.chars().find(|c| !c.is_digit(8)) {
            return Err(format!("the mode `{text}` contains {c:?}; only digits from 0 to 7 may"));
        }
        let bits = u32::from_str_radix(&text, 8).map_err(|e| e.to_string())?;
        Ok(Self { bits, text })
    }
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// By name; a name of digits only may also be a number.
    Name(String),
    /// By number.
    Id(u32),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// Whether `name`, which has no slash, matches `pattern`, where only `*` is special.
pub fn matches_simple_glob(pattern: &str, name: &str) -> bool {
    if name.contains('/') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(i) => rest = &rest[i + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whom an access control entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AceKind {
    /// A user, or the owner.
    User,
    /// A group, or the owning group.
    Group,
    /// The upper limit for all but owner and others.
    Mask,
    /// Everyone else.
    Other,
}

/// One entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ace {
    /// Inherited by what is made inside a directory, instead of applying to itself.
    pub default: bool,
    /// Whom it is about.
    pub kind: AceKind,
    /// The user's or group's name; empty for the owner's entries.
    pub name: String,
    /// Read 4, write 2, execute 1.
    pub bits: u8,
}

impl Ace {
    /// Reads `[d[efault]:][u|user|g|group|m|mask|o|other:]NAME:PERMISSIONS`, as setfacl
    /// writes it. The owner's own entries are refused: they are what `mode` is for.
    ///
    /// # Errors
    /// A lower-case fragment that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "the acl entry `{text}` is not of the form `[default:]user|group|mask|other:NAME:rwx`"
            )
        };
        let mut parts: Vec<&str> = text.split(':').collect();
        if !(2..=4).contains(&parts.len()) {
            return Err(bad());
        }
        let permissions = parts.pop().unwrap_or_default();
        let mut default = false;
        let is_default = |part: &str| matches!(part, "d" | "default");
        if parts.len() >= 2 && is_default(parts[0]) {
            default = true;
            parts.remove(0);
        }
        if parts.len() > 2 {
            return Err(bad());
        }
        let kind_of = |part: &str| {
            Some(match part {
                "u" | "user" => AceKind::User,
                "g" | "group" => AceKind::Group,
                "m" | "mask" => AceKind::Mask,
                "o" | "other" => AceKind::Other,
                _ => return None,
            })
        };
        let (kind, name) = match parts.as_slice() {
            [kind, name] => (kind_of(kind).ok_or_else(bad)?, *name),
            [one] => match kind_of(one) {
                Some(kind @ (AceKind::Mask | AceKind::Other)) => (kind, ""),
                _ => (AceKind::User, *one),
            },
            _ => return Err(bad()),
        };
        if matches!(kind, AceKind::Mask | AceKind::Other) && !name.is_empty() {
            return Err(bad());
        }
        if !default && kind != AceKind::Mask && name.is_empty() {
            return Err(format!(
                "the acl entry `{text}` is the owner's, the group's or everybody's; use `mode` for those"
            ));
        }
        Ok(Self {
            default,
            kind,
            name: name.to_owned(),
            bits: permission_bits(permissions).ok_or_else(bad)?,
        })
    }

    /// One of the base entries, made from a mode.
    pub fn base(default: bool, kind: AceKind, bits: u32) -> Self {
        let bits = u8::try_from(bits & 7).unwrap_or_default();
        Self { default, kind, name: String::new(), bits }
    }
}

fn permission_bits(text: &str) -> Option<u8> {
    if let [digit @ b'0'..=b'7'] = text.as_bytes() {
        return Some(digit - b'0');
    }
    text.bytes().try_fold(0, |bits, c| {
        Some(
            bits | match c {
                b'r' => 4,
                b'w' => 2,
                b'x' => 1,
                b'-' => 0,
                _ => return None,
            },
        )
    })
}

impl fmt::Display for Ace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.default { "default:" } else { "" };
        let kind = match self.kind {
            AceKind::User => "user",
            AceKind::Group => "group",
            AceKind::Mask => "mask",
            AceKind::Other => "other",
        };
        let bit = |bit, c| if self.bits & bit == 0 { '-' } else { c };
        let (r, w, x) = (bit(4, 'r'), bit(2, 'w'), bit(1, 'x'));
        write!(f, "{default}{kind}:{}:{r}{w}{x}", self.name)
    }
}

/// The whole list for an object of this mode: the entries as declared, and what setfacl
/// needs beside them (the base entries, a mask as wide as the group's bits, and the
/// same for entries that are inherited).
pub fn full_acl(declared: &[Ace], mode: u32) -> Vec<Ace> {
    let mut all = declared.to_vec();
    for default in [false, true] {
        let ours: Vec<&Ace> = declared.iter().filter(|a| a.default == default).collect();
        if default && ours.is_empty() {
            break;
        }
        let has = |kind| ours.iter().any(|a| a.kind == kind && a.name.is_empty());
        let group = ours.iter().find(|a| a.kind == AceKind::Group && a.name.is_empty());
        let group_bits = group.map_or(mode >> 3, |a| u32::from(a.bits));
        let mut add = |kind, bits| all.push(Ace::base(default, kind, bits));
        if !has(AceKind::User) {
            add(AceKind::User, mode >> 6);
        }
        if !has(AceKind::Group) {
            add(AceKind::Group, mode >> 3);
        }
        if !has(AceKind::Other) {
            add(AceKind::Other, mode);
        }
        if ours.iter().any(|a| !a.name.is_empty()) && !has(AceKind::Mask) {
            add(AceKind::Mask, group_bits);
        }
    }
    all
}

/// An SELinux context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The SELinux user.
    pub user: Option<String>,
    /// The type.
    pub kind: String,
    /// Sensitivity and categories, in semanage's form.
    pub range: Option<String>,
}

/// Checks `s0[-s1][:c0[.c1][,…]]` and gives it in its shortest form.
///
/// # Errors
/// A lower-case fragment that says what is wrong.
pub(super) fn normal_range(text: &str) -> Result<String, String> {
    let bad = || format!("the range `{text}` is not of the form `s0-s1:c0.c3,c5`");
    let number = |part: &str, letter: char, max: u32| -> Result<u32, String> {
        let digits = part.strip_prefix(letter).ok_or_else(bad)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        digits.parse().ok().filter(|n| *n <= max).ok_or_else(bad)
    };
    let (levels, categories) = match text.split_once(':') {
        Some((levels, categories)) => (levels, Some(categories)),
        None => (text, None),
    };
    let (low, high) = levels.split_once('-').unwrap_or((levels, levels));
    let (low, high) = (number(low, 's', u32::MAX)?, number(high, 's', u32::MAX)?);
    if high < low {
        return Err(bad());
    }
    let mut result = format!("s{low}");
    if high != low {
        result += &format!("-s{high}");
    }
    let Some(categories) = categories else { return Ok(result) };
    let mut all = Vec::new();
    for part in categories.split(',') {
        let (low, high) = part.split_once('.').unwrap_or((part, part));
        let (low, high) = (number(low, 'c', 1023)?, number(high, 'c', 1023)?);
        if high < low {
            return Err(bad());
        }
        all.extend(low..=high);
    }
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(format!("the range `{text}` names a category twice"));
    }
    let mut separator = ':';
    let mut rest = all.as_slice();
    while let Some(first) = rest.first() {
        let run = rest.iter().zip(*first..).take_while(|(a, b)| **a == *b).count();
        result += &format!("{separator}c{first}");
        if run > 1 {
            result += &format!(".c{}", rest[run - 1]);
        }
        rest = &rest[run..];
        separator = ',';
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_filled_and_checked() {
        let show = |t| Mode::parse(t).map(|m| format!("{} {:o}", m.text, m.bits));
        assert_eq!(show("5"), Ok("005 5".into()));
        assert_eq!(show(""), Ok("000 0".into()));
        assert_eq!(show("0755"), Ok("0755 755".into()));
        assert_eq!(show("4755"), Ok("4755 4755".into()));
        for bad in ["04755", "999", "u+x", "7.5", "-1", "٣٣٣"] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_star_is_special() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("*", ".a", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*c*e", "abcde", true),
            ("a*a", "a", false),
            ("?", "a", false),
            ("[a]", "a", false),
            ("", "a", false),
            ("**", "abc", true),
            ("*", "a/b", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches_simple_glob(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn access_control_entries_take_setfacls_forms() {
        let show = |t: &str| Ace::parse(t).map(|a| a.to_string());
        assert_eq!(show("u:daemon:rw"), Ok("user:daemon:rw-".into()));
        assert_eq!(show("daemon:7"), Ok("user:daemon:rwx".into()));
        assert_eq!(show("d:g::r-x"), Ok("default:group::r-x".into()));
        assert_eq!(show("default:user:a:x"), Ok("default:user:a:--x".into()));
        assert_eq!(show("m::rx"), Ok("mask::r-x".into()));
        assert_eq!(show("m:rx"), Ok("mask::r-x".into()));
        for bad in ["u::rw", "o::r", "x:y:r", "u:a:q", "rwx", "d:d:u:a:r", "m:a:r", "u:a:b:r"] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_is_completed_from_the_mode() {
        let full = |entries: &[&str], mode| {
            let aces: Vec<_> = entries.iter().map(|e| Ace::parse(e).unwrap()).collect();
            full_acl(&aces, mode).iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(
            full(&["u:daemon:rw"], 0o640),
            "user:daemon:rw-,user::rw-,group::r--,other::---,mask::r--"
        );
        assert_eq!(
            full(&["d:u:daemon:rw"], 0o750),
            "default:user:daemon:rw-,user::rwx,group::r-x,other::---,\
             default:user::rwx,default:group::r-x,default:other::---,default:mask::r-x"
        );
    }

    #[test]
    fn ranges_are_checked_and_shortened() {
        assert_eq!(normal_range("s0"), Ok("s0".into()));
        assert_eq!(normal_range("s0-s3:c0,c1,c2,c5"), Ok("s0-s3:c0.c2,c5".into()));
        assert_eq!(normal_range("s1-s1:c5.c7"), Ok("s1:c5.c7".into()));
        for bad in ["", "s", "s3-s1", "s0:", "s0:c2000", "s0:c1,c1", "x0", "s0:c3.c1"] {
            assert!(normal_range(bad).is_err(), "{bad}");
        }
    }
}
