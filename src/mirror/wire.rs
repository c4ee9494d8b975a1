//! Texts and numbers as SSH writes them: on the wire, in keys, to agents.

/// Reads field after field.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        let (first, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*first))
    }

    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Appends a text, which has less than 4 GiB.
pub(super) fn put(to: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(text);
}

/// Appends a number without sign, given by its bytes.
pub(super) fn put_number(to: &mut Vec<u8>, bytes: &[u8]) {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = bytes.get(first..).unwrap_or_default();
    // Else it would be negative.
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    put(to, &[sign, digits].concat());
}

/// The kind of a public key: its first field, if that is a name as SSH has them (printable, at
/// most 64 characters).
pub(super) fn kind_of(key: &[u8]) -> Option<String> {
    let kind = std::str::from_utf8(Fields::of(key).text()?).ok()?;
    let is_name = kind.len() <= 64 && kind.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| kind.to_owned())
}

/// `SHA256:…` of a public key, as `ssh-keygen -l` shows it.
pub(super) fn fingerprint(key: &[u8]) -> String {
    let hash = openssl::base64::encode_block(&openssl::sha::sha256(key));
    format!("SHA256:{}", hash.trim_end_matches('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_cut_off_are_none() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"ssh-ed25519");
        put_number(&mut bytes, &[0, 0, 0x80]);
        put_number(&mut bytes, &[0, 0x7f]);
        put_number(&mut bytes, &[0]);
        assert_eq!(bytes.get(15..).unwrap(), [0, 0, 0, 2, 0, 0x80, 0, 0, 0, 1, 0x7f, 0, 0, 0, 0]);
        let mut fields = Fields::of(&bytes);
        assert_eq!(fields.text(), Some(&b"ssh-ed25519"[..]));
        assert_eq!(kind_of(&bytes).as_deref(), Some("ssh-ed25519"));
        for end in 0..15 {
            assert_eq!(Fields::of(&bytes[..end]).text(), None);
        }
        assert_eq!(Fields::of(&[0xff; 8]).text(), None);
        assert_eq!(Fields::of(&[]).byte(), None);
    }
}
