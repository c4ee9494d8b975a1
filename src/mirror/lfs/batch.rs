//! The question for objects, and its answer: git-lfs's batch API, downloads only.
//!
//! Whatever a server answers, for each object that was asked for there is one address that may
//! be used, or a reason why not. What it says of others is not looked at.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::pointer::{Object, ObjectId};
use crate::mirror::failure::harmless;

/// What question and answer are.
pub(in crate::mirror) const KIND: &str = "application/vnd.git-lfs+json";
/// As many objects are asked for at a time, as git-lfs does; some servers take no more.
pub(super) const MOST: usize = 100;
/// Longer addresses, and more headers than these, no server needs.
const LONGEST: usize = 16 << 10;
const HEADERS: usize = 32;

/// Where and how an object is had. All of it may be secret.
#[derive(Clone)]
pub(super) struct Address {
    /// Host in lower case, with `:port` unless it is 443.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// What is to be sent with the request, to this host.
    pub headers: HeaderMap,
    /// The server says that nothing more is needed.
    pub authenticated: bool,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({})", self.authority)
    }
}

/// Why there is no address for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum No {
    /// The server does not have it.
    Missing(String),
    /// Something else is wrong with it there: code and words.
    Refused(u16, String),
    /// The server has another object by this name.
    Size(u64),
    /// The answer does not speak of it, or not in a way that can be used.
    Strange(&'static str),
}

/// The body of the question.
pub(super) fn question(objects: &[Object]) -> Vec<u8> {
    let list: Vec<_> = objects
        .iter()
        .map(|object| json!({"oid": object.oid.to_string(), "size": object.size}))
        .collect();
    let question = json!({
        "operation": "download",
        "transfers": ["basic"],
        "objects": list,
        "hash_algo": "sha256",
    });
    question.to_string().into_bytes()
}

#[derive(Deserialize)]
struct Answer {
    transfer: Option<String>,
    hash_algo: Option<String>,
    objects: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    oid: String,
    size: Option<u64>,
    #[serde(default)]
    authenticated: Option<bool>,
    #[serde(default)]
    actions: Option<Actions>,
    #[serde(default)]
    error: Option<Trouble>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Trouble {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// What the answer says of each object, in the order of the question.
///
/// # Errors
/// It is no answer to a question of this kind.
pub(super) fn read(
    body: &[u8],
    objects: &[Object],
) -> Result<Vec<Result<Address, No>>, &'static str> {
    // Not its own words: they would repeat what may be secret.
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "it is no answer of the batch API")?;
    if answer.transfer.as_deref().is_some_and(|transfer| transfer != "basic") {
        return Err("it offers another way to transfer than `basic`, which was not asked for");
    }
    if answer.hash_algo.as_deref().is_some_and(|hash| hash != "sha256") {
        return Err("it knows objects by another hash than SHA-256");
    }
    let mut said: HashMap<ObjectId, Answered> = HashMap::new();
    for object in answer.objects {
        if let Some(oid) = ObjectId::parse(&object.oid) {
            said.entry(oid).or_insert(object);
        }
    }
    let of = |object: &Object| match said.remove(&object.oid) {
        Some(answered) => address(answered, object),
        None => Err(No::Strange("the answer does not speak of it")),
    };
    Ok(objects.iter().map(of).collect())
}

fn address(answered: Answered, object: &Object) -> Result<Address, No> {
    if let Some(Trouble { code, message }) = answered.error {
        let words = harmless(message.as_bytes());
        return Err(match code {
            404 | 410 => No::Missing(words),
            code => No::Refused(code, words),
        });
    }
    if let Some(size) = answered.size.filter(|size| *size != object.size) {
        return Err(No::Size(size));
    }
    let action = answered.actions.and_then(|actions| actions.download);
    let action = action.ok_or(No::Strange("the answer has no address for it"))?;
    let (authority, target) = place(&action.href).map_err(No::Strange)?;
    let headers = headers(action.header.unwrap_or_default()).map_err(No::Strange)?;
    let authenticated = answered.authenticated.unwrap_or(false);
    Ok(Address { authority, target, headers, authenticated })
}

/// Host, and path with query, of an address that may be used.
pub(super) fn place(href: &str) -> Result<(String, String), &'static str> {
    if href.len() > LONGEST {
        return Err("its address is too long");
    }
    if !href.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) {
        return Err("its address is not `https://`");
    }
    let uri: Uri = href.parse().map_err(|_| "its address is no URL")?;
    let authority = uri.authority().ok_or("its address names no host")?;
    if authority.as_str().contains('@') {
        return Err("its address holds a user name or password");
    }
    let name = authority.as_str().to_ascii_lowercase();
    let name = name.strip_suffix(":443").unwrap_or(&name);
    if name.is_empty() || name.starts_with(':') {
        return Err("its address names no host");
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    Ok((name.to_owned(), target.to_owned()))
}

/// The headers to send, without those that say how the request itself is made.
pub(super) fn headers(given: HashMap<String, String>) -> Result<HeaderMap, &'static str> {
    const OURS: [HeaderName; 9] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TE,
        header::EXPECT,
        header::UPGRADE,
        header::RANGE,
        header::ACCEPT_ENCODING,
    ];
    if given.len() > HEADERS {
        return Err("it wants too many headers");
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        if value.len() > LONGEST {
            return Err("it wants a header that is too long");
        }
        let name: HeaderName = name.parse().map_err(|_| "it wants a header that is none")?;
        let mut value: HeaderValue = value.parse().map_err(|_| "it wants a header that is none")?;
        value.set_sensitive(true);
        if !OURS.contains(&name) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(byte: u8, size: u64) -> Object {
        Object { oid: ObjectId::new([byte; 32]), size }
    }

    #[test]
    fn what_is_asked_for() {
        let body = question(&[object(1, 12)]);
        let question: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(question["operation"], "download");
        assert_eq!(question["transfers"], json!(["basic"]));
        assert_eq!(question["objects"], json!([{"oid": "01".repeat(32), "size": 12}]));
    }

    #[test]
    fn each_object_has_an_address_or_a_reason() {
        let ids: Vec<_> = (1..=9).map(|n| format!("{n:02x}").repeat(32)).collect();
        let good = |href: &str| json!({"download": {"href": href, "header": {"X-A": "b", "Host": "evil"}}});
        let answer = json!({"transfer": "basic", "hash_algo": "sha256", "objects": [
            {"oid": ids[0], "size": 1, "authenticated": true, "actions": good("https://H.example:443/a?b=c")},
            {"oid": ids[1], "size": 1, "error": {"code": 404, "message": "Object\ndoes not exist"}},
            {"oid": ids[2], "size": 1, "error": {"code": 422, "message": "no"}},
            {"oid": ids[3], "size": 7, "actions": good("https://h/")},
            {"oid": ids[4], "size": 1},
            {"oid": ids[5], "size": 1, "actions": good("http://h/")},
            {"oid": ids[6], "size": 1, "actions": good("https://u:p@h/")},
            {"oid": ids[7], "actions": {"download": {"href": "file:///etc/passwd"}}},
            {"oid": "ff".repeat(32), "size": 1, "actions": good("https://other/")},
        ]});
        let objects: Vec<_> = (1..=9).map(|n| object(n, 1)).collect();
        let mut said = read(answer.to_string().as_bytes(), &objects).unwrap().into_iter();
        let first = said.next().unwrap().unwrap();
        assert_eq!((first.authority.as_str(), first.target.as_str()), ("h.example", "/a?b=c"));
        assert_eq!((first.headers.len(), first.authenticated), (1, true));
        let no: Vec<_> = said.map(|one| one.unwrap_err()).collect();
        let strange = No::Strange;
        assert_eq!(
            no,
            [
                No::Missing("Object".into()),
                No::Refused(422, "no".into()),
                No::Size(7),
                strange("the answer has no address for it"),
                strange("its address is not `https://`"),
                strange("its address holds a user name or password"),
                strange("its address is not `https://`"),
                strange("the answer does not speak of it"),
            ]
        );
        assert!(!format!("{:?}", first.headers).contains("\"b\""), "values are not shown");
        assert_eq!(format!("{first:?}"), "Address(h.example)");
    }

    #[test]
    fn answers_that_are_none() {
        for (answer, says) in [
            ("", "no answer"),
            ("{}", "no answer"),
            ("[]", "no answer"),
            (r#"{"objects": [{"oid": 1}]}"#, "no answer"),
            (r#"{"objects": [], "transfer": "tus"}"#, "another way"),
            (r#"{"objects": [], "hash_algo": "sha512"}"#, "another hash"),
        ] {
            assert!(read(answer.as_bytes(), &[]).unwrap_err().contains(says), "{answer}");
        }
        let deep = format!("{{\"objects\": {}", "[".repeat(100_000));
        assert!(read(deep.as_bytes(), &[]).is_err());
    }

    #[test]
    fn headers_that_are_sent_and_headers_that_are_not() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let sent = headers(map(&[("authorization", "x"), ("RANGE", "bytes=0-1"), ("Te", "y")]));
        assert_eq!(sent.unwrap().keys().collect::<Vec<_>>(), ["authorization"]);
        for bad in [("a b", "x"), ("a", "x\r\nb: c"), ("", "x")] {
            assert!(headers(map(&[bad])).is_err(), "{bad:?}");
        }
        assert!(headers((0..99).map(|n| (format!("a{n}"), String::new())).collect()).is_err());
        assert!(headers(map(&[("a", &"x".repeat(LONGEST + 1))])).is_err());
        assert!(place(&format!("https://h/{}", "x".repeat(LONGEST))).is_err());
        for bad in ["https://", "https:///x", "/x", "", "https://:443/", "https://h h/"] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
