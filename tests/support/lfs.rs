//! A server of Git LFS behind a [`GitHttps`]: the batch API of one repository, and the store
//! that its objects are downloaded from, on the same host or another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::hex;
use super::https::{GitHttps, Question, Reply};

const KIND: &str = "application/vnd.git-lfs+json";

/// One download as the store saw it.
#[derive(Debug, Clone)]
pub struct Download {
    /// The object.
    pub oid: String,
    /// Its `Range` header; empty for all of it.
    pub range: String,
    /// All that was sent: query, names and values of the headers.
    pub sent: String,
    /// The status answered.
    pub status: u16,
}

/// What goes wrong with one download.
#[derive(Debug, Clone)]
pub enum Wrong {
    /// The connection is closed after so many bytes.
    Cut(usize),
    /// Nothing comes after so many bytes.
    Stall(usize),
    /// As many bytes as there should be, and others.
    Bytes,
    /// More and more.
    Endless,
    /// A length that is another, and as many bytes.
    Length(usize),
    /// This status.
    Status(u16),
    /// A redirect to this.
    Redirect(String),
    /// All of it whatever part was asked for.
    NoRanges,
    /// The wrong part.
    OtherRange,
}

type Edit = Arc<dyn Fn(&mut Value) + Send + Sync>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    grants: Vec<(String, String)>,
    /// What the store's addresses hold; a new one with each batch.
    keys: Vec<String>,
    batches: Vec<Value>,
    downloads: Vec<Download>,
    wrong: Vec<(String, Wrong)>,
    edit: Option<Edit>,
    basic: bool,
    base: String,
}

/// The server; it lives as long as the [`GitHttps`] it was added to.
#[derive(Clone)]
pub struct LfsServer(Arc<Mutex<State>>);

impl LfsServer {
    /// The batch API of `repository` (`acme/api.git`) on `git`, for everybody, with its store
    /// on `storage`.
    pub fn start(git: &GitHttps, repository: &str, storage: &GitHttps) -> Self {
        let place = format!("/store/{}", repository.replace('/', "-"));
        let base = format!("{}{place}", storage.base());
        let this = Self(Arc::new(Mutex::new(State { base, ..State::default() })));
        let server = this.clone();
        git.serve(&format!("/{repository}/info/lfs/objects/batch"), move |question| {
            server.batch(question)
        });
        let server = this.clone();
        storage.serve(&format!("{place}/"), move |question| server.download(question));
        this
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("the state")
    }

    /// From now on this user and token are asked for; several may be good.
    pub fn require(&self, user: &str, token: &str) {
        let pair = openssl::base64::encode_block(format!("{user}:{token}").as_bytes());
        self.grant("Authorization", &format!("Basic {pair}"));
    }

    /// Nothing that was granted is good any more, and everybody is served.
    pub fn revoke(&self) {
        self.state().grants.clear();
    }

    /// The store takes what the batch API takes, too.
    pub fn allow_basic(&self) {
        self.state().basic = true;
    }

    /// From now on this header is good.
    pub fn grant(&self, name: &str, value: &str) {
        self.state().grants.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    /// Adds an object; answers the pointer to it.
    pub fn put(&self, content: &[u8]) -> String {
        let oid = hex(&openssl::sha::sha256(content));
        self.state().objects.insert(oid.clone(), content.to_vec());
        pointer(&oid, content.len() as u64)
    }

    /// Loses all objects.
    pub fn lose(&self) {
        self.state().objects.clear();
    }

    /// No address given so far is good any more.
    pub fn expire(&self) {
        self.state().keys.clear();
    }

    /// This goes wrong with the next download of an object that begins with these digits.
    pub fn inject(&self, oid: &str, wrong: Wrong) {
        self.state().wrong.push((oid.to_owned(), wrong));
    }

    /// From now on its answers are changed by this.
    pub fn edit(&self, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.state().edit = Some(Arc::new(edit));
    }

    /// All is well again.
    pub fn repair(&self) {
        let mut state = self.state();
        state.edit = None;
        state.wrong.clear();
    }

    /// The questions so far.
    pub fn batches(&self) -> Vec<Value> {
        self.state().batches.clone()
    }

    /// The downloads so far.
    pub fn downloads(&self) -> Vec<Download> {
        self.state().downloads.clone()
    }

    /// Forgets both.
    pub fn forget(&self) {
        let mut state = self.state();
        state.batches.clear();
        state.downloads.clear();
    }

    /// What the addresses held that it has given so far.
    pub fn keys(&self) -> Vec<String> {
        self.state().keys.clone()
    }

    fn batch(&self, question: &Question<'_>) -> Reply {
        let mut state = self.state();
        let granted =
            state.grants.iter().any(|(name, value)| question.header(name) == value.as_str());
        if !granted && !state.grants.is_empty() {
            let message = json!({"message": "Credentials needed", "request_id": "1"});
            let ask = ("LFS-Authenticate".to_owned(), "Basic realm=\"lfs\"".to_owned());
            return Reply { headers: vec![ask], ..reply(401, &message) };
        }
        let base = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_owned();
        if question.method != "POST"
            || base(question.header("accept")) != KIND
            || base(question.header("content-type")) != KIND
        {
            return reply(406, &json!({"message": "only the batch API is served"}));
        }
        let Ok(asked) = serde_json::from_slice::<Value>(question.body) else {
            return reply(422, &json!({"message": "no JSON"}));
        };
        state.batches.push(asked.clone());
        let objects = asked["objects"].as_array().cloned().unwrap_or_default();
        let sound = asked["operation"] == "download"
            && asked["hash_algo"].as_str().is_none_or(|hash| hash == "sha256")
            && asked["transfers"].as_array().is_none_or(|all| all.contains(&json!("basic")))
            && !objects.is_empty()
            && objects.len() <= 100
            && objects.iter().all(|one| one["oid"].is_string() && one["size"].is_u64());
        if !sound {
            return reply(422, &json!({"message": "not a question of the batch API"}));
        }
        let mut random = [0; 12];
        openssl::rand::rand_bytes(&mut random).expect("random bytes");
        let key = hex(&random);
        state.keys.push(key.clone());
        let answered: Vec<_> = objects
            .iter()
            .map(|one| {
                let (oid, size) = (one["oid"].as_str().unwrap_or_default(), one["size"].as_u64());
                match state.objects.get(oid) {
                    None => json!({"oid": oid, "size": size, "error": {
                        "code": 404, "message": "Object does not exist"}}),
                    Some(content) => json!({
                        "oid": oid, "size": content.len(), "authenticated": true,
                        "actions": {"download": {
                            "href": format!("{}/{oid}?X-Signature={key}", state.base),
                            "header": {"Authorization": format!("RemoteAuth {key}"), "X-Key": key},
                            "expires_in": 3600}}}),
                }
            })
            .collect();
        let mut answer = json!({"transfer": "basic", "objects": answered, "hash_algo": "sha256"});
        if let Some(edit) = &state.edit {
            edit(&mut answer);
        }
        reply(200, &answer)
    }

    fn download(&self, question: &Question<'_>) -> Reply {
        let mut state = self.state();
        let oid = question.path.to_owned();
        let range = question.header("range").to_owned();
        let mut sent = format!("{}\n", question.query);
        for (name, value) in question.headers {
            sent.push_str(&format!("{name}: {value}\n"));
        }
        let reply = content(&mut state, question, &oid, &range);
        let status = reply.status;
        state.downloads.push(Download { oid, range, sent, status });
        reply
    }
}

/// A pointer as git-lfs writes it.
pub fn pointer(oid: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

/// The object of a pointer.
pub fn oid_of(pointer: &str) -> String {
    let oid = pointer.lines().find_map(|line| line.strip_prefix("oid sha256:"));
    oid.expect("a pointer").to_owned()
}

fn reply(status: u16, body: &Value) -> Reply {
    let headers = vec![("Content-Type".to_owned(), KIND.to_owned())];
    Reply { status, headers, body: body.to_string().into_bytes(), ..Reply::default() }
}

fn content(state: &mut State, question: &Question<'_>, oid: &str, range: &str) -> Reply {
    let bytes = |status: u16, body: Vec<u8>| Reply {
        status,
        headers: vec![("Content-Type".to_owned(), "application/octet-stream".to_owned())],
        body,
        ..Reply::default()
    };
    let at = state.wrong.iter().position(|(of, _)| oid.starts_with(of.as_str()));
    let wrong = at.map(|at| state.wrong.remove(at).1);
    if let Some(Wrong::Redirect(to)) = &wrong {
        let headers = vec![("Location".to_owned(), to.clone())];
        return Reply { status: 302, headers, ..Reply::default() };
    }
    let key = question.query.strip_prefix("X-Signature=").unwrap_or_default();
    let proven = state.keys.iter().any(|known| known == key)
        && question.header("authorization") == format!("RemoteAuth {key}")
        && question.header("x-key") == key;
    let granted = |(name, value): &(String, String)| question.header(name) == value.as_str();
    if !(proven || state.basic && state.grants.iter().any(granted)) {
        return bytes(403, b"<Error>AccessDenied</Error>".to_vec());
    }
    let Some(content) = state.objects.get(oid).cloned() else {
        return bytes(404, Vec::new());
    };
    let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let start: Option<usize> = start.and_then(|start| start.parse().ok());
    let ranges = !matches!(wrong, Some(Wrong::NoRanges));
    let mut reply = match start.filter(|_| ranges) {
        None => bytes(200, content),
        Some(start) if start < content.len() => {
            let last = content.len() - 1;
            let shown = if matches!(wrong, Some(Wrong::OtherRange)) { start + 1 } else { start };
            let mut reply = bytes(206, content[shown..].to_vec());
            let range = format!("bytes {shown}-{last}/{}", content.len());
            reply.headers.push(("Content-Range".to_owned(), range));
            reply
        }
        Some(_) => bytes(416, Vec::new()),
    };
    match wrong {
        Some(Wrong::Cut(at)) => reply.cut = Some(at.min(reply.body.len())),
        Some(Wrong::Stall(at)) => reply.stall = Some(at.min(reply.body.len())),
        Some(Wrong::Bytes) => reply.body.iter_mut().for_each(|byte| *byte ^= 1),
        Some(Wrong::Endless) => {
            reply.body = vec![b'x'; 1 << 20];
            reply.endless = true;
        }
        Some(Wrong::Length(length)) => reply.body.resize(length, b'x'),
        Some(Wrong::Status(status)) => return bytes(status, b"no".to_vec()),
        Some(Wrong::Redirect(_) | Wrong::NoRanges | Wrong::OtherRange) | None => {}
    }
    reply
}
