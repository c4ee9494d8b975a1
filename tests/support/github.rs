//! The part of GitHub's API through which an App gets its tokens, strict about its contract.
//!
//! It checks the App's proof as GitHub does (signature, algorithm, issuer and times, by its
//! own clock), and has a [`GitHttps`] accept what it hands out: for the repositories it was
//! asked for, until it expires, and nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::base64::decode_block;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier;
use serde_json::{Value, json};

use super::hex;
use super::https::{GitHttps, Question, Reply};

/// The App's client id.
pub const CLIENT: &str = "Iv23liTestTestTest00";
/// The App's other id.
pub const APP: u64 = 424_242;
/// The number of its installation.
pub const INSTALLATION: u64 = 987_654;

/// An App that is installed on `acme`, for some of its repositories.
pub struct Github {
    /// The App's private key, as GitHub hands it out.
    pub key: String,
    shared: Arc<Shared>,
}

struct Shared {
    git: GitHttps,
    key: PKey<Public>,
    state: Mutex<State>,
}

struct State {
    repositories: BTreeSet<String>,
    life: Duration,
    /// Seconds its clock is ahead of ours.
    clock: i64,
    suspended: bool,
    handed_out: Vec<String>,
    proofs: Vec<String>,
    asked: Vec<String>,
}

impl Github {
    /// Takes over a git server: its repositories below `acme/` are private from now on, and
    /// the API is below `/api/v3/`, as Enterprise Server has it.
    pub fn new(git: GitHttps, repositories: &[&str]) -> Self {
        let rsa = Rsa::generate(2048).expect("a key");
        let key = String::from_utf8(rsa.private_key_to_pem().expect("PEM")).expect("text");
        let public = rsa.public_key_to_pem().expect("PEM");
        git.grant("acme/", None, &random("nobody-"));
        let state = State {
            repositories: repositories.iter().map(|name| (*name).to_owned()).collect(),
            life: Duration::from_secs(3600),
            clock: 0,
            suspended: false,
            handed_out: Vec::new(),
            proofs: Vec::new(),
            asked: Vec::new(),
        };
        let shared = Arc::new(Shared {
            git,
            key: PKey::public_key_from_pem(&public).expect("the key"),
            state: Mutex::new(state),
        });
        let github = Self { key, shared };
        github.serve_on(&github.shared.git, "/api/v3");
        github
    }

    /// The API is on this server, too, below `prefix`.
    pub fn serve_on(&self, server: &GitHttps, prefix: &str) {
        // The server is part of what is shared.
        let shared = Arc::downgrade(&self.shared);
        server.serve(prefix, move |question| match shared.upgrade() {
            Some(shared) => shared.answer(question),
            None => reply(503, &json!({"message": "gone"}), 0),
        });
    }

    /// The server of the repositories.
    pub fn git(&self) -> &GitHttps {
        &self.shared.git
    }

    /// How long the tokens live that it hands out from now on.
    pub fn set_life(&self, life: Duration) {
        self.shared.state.lock().expect("the state").life = life;
    }

    /// Its clock is ahead of ours by so many seconds.
    pub fn set_clock(&self, seconds: i64) {
        self.shared.state.lock().expect("the state").clock = seconds;
    }

    /// The installation is suspended.
    pub fn suspend(&self) {
        self.shared.state.lock().expect("the state").suspended = true;
    }

    /// The tokens handed out so far.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.state.lock().expect("the state").handed_out.clone()
    }

    /// The proofs it was shown so far, good or not.
    pub fn proofs(&self) -> Vec<String> {
        self.shared.state.lock().expect("the state").proofs.clone()
    }

    /// What it was asked so far: method and path, and what a token was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.shared.state.lock().expect("the state").asked.clone()
    }
}

impl Shared {
    fn answer(&self, question: &Question<'_>) -> Reply {
        let mut state = self.state.lock().expect("the state");
        let words = String::from_utf8_lossy(question.body);
        let line = format!("{} {} {words}", question.method, question.path);
        state.asked.push(line.trim_end().to_owned());
        let clock = state.clock;
        let no = |status: u16, message: &str| reply(status, &json!({"message": message}), clock);
        if question.header("user-agent").is_empty() {
            return no(403, "Request forbidden by administrative rules.");
        }
        if question.header("accept") != "application/vnd.github+json"
            || question.header("x-github-api-version") != "2022-11-28"
        {
            return no(415, "Unsupported 'Accept' header");
        }
        let Some(proof) = question.header("authorization").strip_prefix("Bearer ") else {
            return no(401, "A JSON web token could not be decoded");
        };
        state.proofs.push(proof.to_owned());
        if let Err(why) = self.check(proof, now() + clock) {
            return no(401, why);
        }
        let installation = json!({
            "id": INSTALLATION,
            "account": {"login": "acme"},
            "suspended_at": state.suspended.then_some("2026-01-01T00:00:00Z"),
        });
        let parts: Vec<&str> = question.path.trim_start_matches('/').split('/').collect();
        match (question.method, &parts[..]) {
            ("GET", ["repos", "acme", name, "installation"])
                if state.repositories.contains(*name) =>
            {
                reply(200, &installation, clock)
            }
            ("GET", ["orgs", "acme", "installation"]) => reply(200, &installation, clock),
            ("POST", ["app", "installations", id, "access_tokens"])
                if *id == INSTALLATION.to_string() =>
            {
                if state.suspended {
                    return no(403, "This installation has been suspended");
                }
                match self.hand_out(&mut state, question.body) {
                    Ok(granted) => reply(201, &granted, clock),
                    Err(message) => no(422, &message),
                }
            }
            _ => no(404, "Not Found"),
        }
    }

    /// What GitHub checks of a proof, in its words.
    fn check(&self, proof: &str, now: i64) -> Result<(), &'static str> {
        const UNREADABLE: &str = "A JSON web token could not be decoded";
        let parts: Vec<&str> = proof.split('.').collect();
        let [head, claims, signature] = parts[..] else { return Err(UNREADABLE) };
        let part = |text: &str| -> Option<Value> { serde_json::from_slice(&decoded(text)?).ok() };
        let head = part(head).ok_or(UNREADABLE)?;
        if head != json!({"alg": "RS256", "typ": "JWT"}) {
            return Err(UNREADABLE);
        }
        let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key).expect("a verifier");
        let signed = proof.rsplit_once('.').map_or("", |(signed, _)| signed);
        let signature = decoded(signature).ok_or(UNREADABLE)?;
        if !verifier.verify_oneshot(&signature, signed.as_bytes()).unwrap_or(false) {
            return Err(UNREADABLE);
        }
        let claims = part(claims).ok_or(UNREADABLE)?;
        if claims["iss"] != json!(CLIENT) && claims["iss"] != json!(APP.to_string()) {
            return Err("'Issuer' claim ('iss') must be an Integer or the client id");
        }
        let time = |name: &str| claims[name].as_i64();
        let from = time("iat").ok_or("Missing 'issued at' claim ('iat') in assertion")?;
        let to = time("exp").ok_or("Missing 'expiration time' claim ('exp') in assertion")?;
        if from > now {
            return Err(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            );
        }
        if to <= now {
            return Err(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            );
        }
        if to > now + 600 {
            return Err("'Expiration time' claim ('exp') is too far in the future");
        }
        Ok(())
    }

    fn hand_out(&self, state: &mut State, body: &[u8]) -> Result<Value, String> {
        let wish: Value = serde_json::from_slice(body).map_err(|_| "Problems parsing JSON")?;
        if wish["permissions"] != json!({"contents": "read"}) {
            return Err("The permissions requested are not granted to this installation.".into());
        }
        let wanted: BTreeSet<String> = match wish["repositories"].as_array() {
            None => state.repositories.clone(),
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        };
        if wanted.is_empty() || !wanted.is_subset(&state.repositories) {
            return Err("There is at least one repository that does not exist or is not accessible to the parent installation.".into());
        }
        let token = random("ghs_");
        let until = Instant::now() + state.life;
        for name in &wanted {
            let path = format!("acme/{name}.git");
            self.git.grant_until(&path, Some("x-access-token"), &token, Some(until));
        }
        state.handed_out.push(token.clone());
        let life = i64::try_from(state.life.as_secs()).expect("a life in range");
        let end = jiff::Timestamp::from_second(now() + state.clock + life).expect("a time");
        Ok(json!({
            "token": token,
            "expires_at": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "permissions": {"contents": "read", "metadata": "read"},
            "repository_selection": "selected",
        }))
    }
}

fn reply(status: u16, body: &Value, clock: i64) -> Reply {
    let date = jiff::Timestamp::from_second(now() + clock).expect("a time");
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = vec![("Date".to_owned(), date)];
    Reply { status, headers, body: body.to_string().into_bytes(), ..Reply::default() }
}

/// Base64 as RFC 7515 has it: other letters, no padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !text.chars().all(plain) {
        return None;
    }
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    decode_block(&format!("{}{padding}", text.replace('-', "+").replace('_', "/"))).ok()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn random(prefix: &str) -> String {
    let mut bytes = [0; 18];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    format!("{prefix}{}", hex(&bytes))
}
