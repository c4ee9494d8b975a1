//! What a YAML scalar means to the tools that read appspecs.
//!
//! codedeploy-local 1.x loads them with Ruby's YAML 1.1, where `0755` is the number 493,
//! `yes` is true and `1:30` is 90. The differences matter (a mode, a timeout), so they are
//! reproduced here from the text as it was written.

use crate::yaml::{Node, Value};

/// A scalar's meaning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meaning {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
}

/// The meaning of a node, if it is a scalar.
pub(super) fn meaning(node: &Node) -> Option<Meaning> {
    let Value::Scalar(scalar) = &node.value else { return None };
    let text = scalar.text.as_str();
    let tag = node.tag.as_deref().unwrap_or_default();
    if !scalar.plain || tag == "!" || tag.ends_with(":str") || tag == "!str" {
        return Some(Meaning::Text(text.to_owned()));
    }
    if node.is_null() || tag.ends_with(":null") {
        return Some(Meaning::Null);
    }
    let lower = text.to_ascii_lowercase();
    Some(match lower.as_str() {
        "true" | "yes" | "on" => Meaning::Bool(true),
        "false" | "no" | "off" => Meaning::Bool(false),
        ".inf" | "+.inf" => Meaning::Float(f64::INFINITY),
        "-.inf" => Meaning::Float(f64::NEG_INFINITY),
        ".nan" => Meaning::Float(f64::NAN),
        _ => integer(text)
            .map(Meaning::Integer)
            .or_else(|| float(text).map(Meaning::Float))
            .unwrap_or_else(|| Meaning::Text(text.to_owned())),
    })
}

impl Meaning {
    /// The text Ruby makes of it. Where a number came from a text that says the same, the
    /// text itself.
    pub(super) fn to_text(&self, written: &str) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(b) => b.to_string(),
            Self::Integer(i) => i.to_string(),
            Self::Float(_) => written.to_owned(),
            Self::Text(text) => text.clone(),
        }
    }

    /// Ruby's truth: everything but false and nothing.
    pub(super) fn is_true(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }
}

fn split_sign(text: &str) -> (i128, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    }
}

/// Digits of a base, with the separators that YAML 1.1 (`_`) and Ruby (`,`) allow.
fn digits(text: &str, radix: u32) -> Option<i128> {
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(&plain, radix).ok()
}

fn integer(text: &str) -> Option<i128> {
    let (sign, body) = split_sign(text);
    if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = if let Some(binary) = body.strip_prefix("0b") {
        digits(binary, 2)?
    } else if let Some(hex) = body.strip_prefix("0x") {
        digits(hex, 16)?
    } else if body.contains(':') {
        sexagesimal(body)?
    } else if body.len() > 1 && body.starts_with('0') {
        digits(&body[1..], 8)?
    } else {
        digits(body, 10)?
    };
    Some(sign * value)
}

/// `1:30` is 90: at most three parts, all but the first below 60.
fn sexagesimal(body: &str) -> Option<i128> {
    let parts: Vec<&str> = body.split(':').collect();
    if !(2..=3).contains(&parts.len()) || parts[1..].iter().any(|p| p.is_empty() || p.len() > 2) {
        return None;
    }
    parts.iter().try_fold(0_i128, |sum, part| {
        let part = digits(part, 10)?;
        sum.checked_mul(60)?.checked_add(part)
    })
}

/// Only with a point: `0e0` is a text for Ruby.
fn float(text: &str) -> Option<f64> {
    let (_, body) = split_sign(text);
    let (whole, rest) = body.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(i) => (&rest[..i], Some(&rest[i + 1..])),
        None => (rest, None),
    };
    let number = |t: &str| t.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ','));
    if !number(whole) || !fraction.chars().all(|c| c.is_ascii_digit() || c == '_') {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-'])?;
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return None;
        }
    }
    text.replace(['_', ','], "").parse().ok()
}

/// The whole number a text begins with, as C and Ruby read it: `5s` is 5, `abc` is 0.
pub(super) fn leading_integer(text: &str) -> i128 {
    let (sign, body) = split_sign(text.trim_start());
    let mut value: i128 = 0;
    for c in body.chars() {
        match c.to_digit(10) {
            Some(digit) => value = value.saturating_mul(10).saturating_add(i128::from(digit)),
            None if c == '_' => {}
            None => break,
        }
    }
    sign * value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Meaning {
        let root = crate::yaml::parse(format!("x: {text}\n").as_bytes()).unwrap().root.unwrap();
        meaning(root.get("x").unwrap()).unwrap()
    }

    #[test]
    fn plain_scalars_mean_what_ruby_reads() {
        for (text, expected) in [
            ("0755", Meaning::Integer(493)),
            ("755", Meaning::Integer(755)),
            ("6_4_4", Meaning::Integer(644)),
            ("0b111", Meaning::Integer(7)),
            ("0x1F", Meaning::Integer(31)),
            ("1:30", Meaning::Integer(90)),
            ("-1", Meaning::Integer(-1)),
            ("+7", Meaning::Integer(7)),
            ("0", Meaning::Integer(0)),
            ("0.00", Meaning::Float(0.0)),
            ("-0.0", Meaning::Float(-0.0)),
            ("1.", Meaning::Float(1.0)),
            (".5", Meaning::Float(0.5)),
            ("1.5e+3", Meaning::Float(1500.0)),
            ("yes", Meaning::Bool(true)),
            ("Off", Meaning::Bool(false)),
            ("~", Meaning::Null),
            ("", Meaning::Null),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
        for text in ["0888", "0o755", "0e0", "5s", "1.5e3", ".", "u+x", "2026-01-02", "1:2:3:4"] {
            assert_eq!(of(text), Meaning::Text(text.to_owned()), "{text}");
        }
        for (text, expected) in [("'0755'", "0755"), ("!!str 5", "5"), ("\"yes\"", "yes")] {
            assert_eq!(of(text), Meaning::Text(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_text_is_converted_by_its_beginning() {
        for (text, expected) in [("5s", 5), ("abc", 0), (" 12 ", 12), ("-3", -3), ("", 0)] {
            assert_eq!(leading_integer(text), expected, "{text:?}");
        }
    }
}
