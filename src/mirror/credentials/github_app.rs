//! Tokens of a GitHub App.
//!
//! With its private key the App signs a proof of who it is that holds for some minutes (a JSON
//! Web Token); for that GitHub gives a token of an hour for what one installation of the App
//! may do. It is asked for the reading of contents only, and only for the repositories of
//! this run. GitHub's documentation has the steps under "Authenticating as a GitHub App
//! installation" and the requests under "REST API endpoints for GitHub Apps".

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use ureq::http::Method;

use super::{World, jwt, read_secret};
use crate::domain::{RepoUrl, Secret};
use crate::hosts::GithubApp;
use crate::mirror::failure::Failure;
use crate::mirror::http::Http;
use crate::mirror::http::api::Answer;
use crate::mirror::watch::Watch;
use crate::mirror::{Limits, Progress, Proxy, Remote, proxy, retry};
use crate::sync::lock;

/// How long one request may take, with all that is tried again.
const TIME: Duration = Duration::from_secs(60);
/// A clock that is off by less is right.
const CLOCK: i64 = 30;
/// GitHub's tokens live for an hour; nobody believes in more than a day (in seconds).
const LONGEST_LIFE: i64 = 86_400;
/// How many repositories GitHub lets one token be restricted to.
const MOST: usize = 500;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is not one of GitHub's.
    #[error("a GitHub App has tokens for `https://HOST/OWNER/REPOSITORY`, not for `{url}`")]
    NotGithub {
        /// The source.
        url: RepoUrl,
    },
    /// The API could not be asked.
    #[error("the API cannot be asked for a token of the GitHub App `{app}`")]
    Api {
        /// The App's id.
        app: String,
        /// Why.
        source: Box<Failure>,
    },
    /// The proof was refused.
    #[error("`{api}` does not accept the GitHub App `{app}` with this key (it says: {said}){}", off(*.clock))]
    Unknown {
        /// Where the API is.
        api: String,
        /// The App's id.
        app: String,
        /// The API's words.
        said: String,
        /// How many seconds the API's clock is ahead of ours.
        clock: i64,
    },
    /// No installation of the App covers the repository.
    #[error("the GitHub App `{app}` is not installed on `{on}`")]
    NotInstalled {
        /// The App's id.
        app: String,
        /// The account, or the repository.
        on: String,
    },
    /// The installation that was given is not one of this App.
    #[error("the GitHub App `{app}` has no installation {id}")]
    NoInstallation {
        /// The App's id.
        app: String,
        /// The installation.
        id: u64,
    },
    /// The installation is suspended.
    #[error("the installation of the GitHub App `{app}` on `{on}` is suspended")]
    Suspended {
        /// The App's id.
        app: String,
        /// The account.
        on: String,
    },
    /// Any other answer that is no good.
    #[error("`{url}` answers with HTTP status {status} (it says: {said})")]
    Status {
        /// What was asked.
        url: RepoUrl,
        /// The status.
        status: u16,
        /// The API's words.
        said: String,
    },
    /// Something answers, but not GitHub.
    #[error("what answers at `{url}` is not GitHub's API: {answer}")]
    Strange {
        /// What was asked.
        url: RepoUrl,
        /// The start of what it sent.
        answer: String,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotGithub { url: RepoUrl::Ssh { .. } } => {
                "use a `github://` or `https://` source; ssh wants a key".into()
            }
            Self::NotGithub { .. } => {
                "correct the source, or give this host another kind of `auth`".into()
            }
            Self::Api { source, .. } if matches!(**source, Failure::Redirected { .. }) => {
                "correct `api_url`; what proves the App is never sent to another host".into()
            }
            Self::Api { source, .. } => return source.hint(),
            Self::Unknown { clock, .. } if clock.abs() > CLOCK => {
                "set this host's clock (chrony, systemd-timesyncd), then run again".into()
            }
            Self::Unknown { .. } => {
                "check that `client_id` or `app_id` is that of the App the private key was made for, and that the key was not deleted there; an older Enterprise Server knows `app_id` only".into()
            }
            Self::NotInstalled { on, .. } => format!(
                "an owner of `{}` installs the App there and lets it read the repository: settings of the account, GitHub Apps, Configure, Repository access",
                on.split('/').next().unwrap_or_default()
            ),
            Self::NoInstallation { .. } => {
                "correct `installation_id`, or leave it out: it is looked up then".into()
            }
            Self::Suspended { on, .. } => {
                format!("an owner of `{on}` ends that in the account's settings, GitHub Apps, Configure")
            }
            Self::Status { status: 422, .. } => {
                "give the App the permission to read contents, and accept that in the installation".into()
            }
            Self::Status { .. } => "see what GitHub says, and the App's settings there".into(),
            Self::Strange { .. } => {
                "check `api_url`; a proxy or a login page may be in between".into()
            }
        })
    }
}

fn off(clock: i64) -> String {
    if clock.abs() <= CLOCK {
        return String::new();
    }
    let direction = if clock < 0 { "ahead of" } else { "behind" };
    format!("; this host's clock is {} s {direction} the server's", clock.abs())
}

/// The tokens of a run, by account. One thread asks for one; the others wait for it.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Account, Arc<Mutex<State>>>>);

/// An App on an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Account {
    app: GithubApp,
    api: String,
    owner: String,
}

/// What is known of an account.
#[derive(Debug, Default)]
struct State {
    installation: Option<u64>,
    /// How many seconds the API's clock is ahead of ours, if that matters.
    clock: i64,
    /// GitHub does not give one token for all repositories of the run.
    apart: bool,
    tokens: Vec<Token>,
    /// The last failure: it counts for whoever waited meanwhile.
    failed: Option<(Instant, Arc<super::Error>)>,
}

#[derive(Debug)]
struct Token {
    secret: Secret,
    /// The names of the repositories it is for.
    repositories: BTreeSet<String>,
    /// From then on another one is asked for.
    until: Instant,
}

impl Tokens {
    /// A token that may read the repository, and that holds for as long as a fetch may take.
    ///
    /// # Errors
    /// The key file cannot be used, or any [`Error`].
    pub(super) fn token(&self, app: &GithubApp, world: &World<'_>) -> Result<Secret, super::Error> {
        let came = Instant::now();
        let url = &world.remote.url;
        let Some(Repository { authority, owner, name }) = Repository::of(url) else {
            return Err(Error::NotGithub { url: url.clone() }.into());
        };
        let api = app.api_url.clone().unwrap_or_else(|| usual_api(&authority));
        let account = Account { app: app.clone(), api, owner };
        let state = Arc::clone(lock(&self.0).entry(account.clone()).or_default());
        let mut state = lock(&state);
        if let Some(signal) = world.interrupt.signal() {
            return Err(super::Error::Interrupted(signal));
        }
        if let Some((at, error)) = &state.failed
            && *at >= came
        {
            return Err(super::Error::Shared(Arc::clone(error)));
        }
        let now = Instant::now();
        state.tokens.retain(|token| token.until > now);
        if let Some(token) = state.tokens.iter().find(|t| t.repositories.contains(&name)) {
            return Ok(token.secret.clone());
        }
        let asked = Asking { account: &account, authority, name, world }.token(&mut state);
        match asked {
            Ok(token) => {
                let secret = token.secret.clone();
                state.tokens.push(token);
                Ok(secret)
            }
            Err(error) => {
                let error = Arc::new(error);
                // Of another repository it may not be true.
                let shared = !matches!(
                    *error,
                    super::Error::GithubApp(Error::NotInstalled { .. } | Error::Status { .. })
                );
                if shared {
                    state.failed = Some((Instant::now(), Arc::clone(&error)));
                }
                Err(super::Error::Shared(error))
            }
        }
    }

    /// Forgets a token that a server refused.
    pub(super) fn forget(&self, refused: &Secret) {
        let accounts: Vec<_> = lock(&self.0).values().cloned().collect();
        for state in accounts {
            lock(&state).tokens.retain(|token| token.secret != *refused);
        }
    }
}

/// A repository as GitHub names it, in lower case as that does not matter there.
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    authority: String,
    owner: String,
    name: String,
}

impl Repository {
    fn of(url: &RepoUrl) -> Option<Self> {
        let RepoUrl::Https { authority, path } = url else { return None };
        let (owner, name) = path.split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        let word = |text: &str| {
            !text.is_empty()
                && !text.bytes().all(|b| b == b'.')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        (word(owner) && word(name)).then(|| Self {
            authority: authority.clone(),
            owner: owner.to_ascii_lowercase(),
            name: name.to_ascii_lowercase(),
        })
    }
}

/// Where GitHub has the API of a git server: github.com, a tenant of GitHub Enterprise Cloud
/// with its own domain, or an Enterprise Server.
fn usual_api(authority: &str) -> String {
    match authority.strip_suffix("ghe.com") {
        _ if authority == "github.com" => "https://api.github.com".to_owned(),
        Some(tenant) if tenant.ends_with('.') => format!("https://api.{authority}"),
        _ => format!("https://{authority}/api/v3"),
    }
}

/// The answers of the API, as far as they are of use.
#[derive(Deserialize)]
struct Installation {
    id: u64,
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: String,
}

/// One token being asked for.
struct Asking<'a> {
    account: &'a Account,
    authority: String,
    name: String,
    world: &'a World<'a>,
}

impl Asking<'_> {
    fn token(&self, state: &mut State) -> Result<Token, super::Error> {
        let path = &self.account.app.private_key_file;
        let pem = read_secret("the private key of the GitHub App", path, self.world.warn)?;
        let key = jwt::key(&pem).map_err(|problem| super::Error::NotAKey {
            origin: format!("the private key `{}` of the GitHub App", path.display()),
            problem,
        })?;
        let id = match self.account.app.installation_id.or(state.installation) {
            Some(id) => id,
            None => self.installation(state, &key)?,
        };
        state.installation = Some(id);
        let alone = BTreeSet::from([self.name.clone()]);
        let all = self.repositories();
        if !state.apart && all.len() > 1 && all.len() <= MOST {
            match self.ask(state, &key, id, Some(&all))? {
                Ok(token) => return Ok(token),
                // One that is not there, or not the App's, spoils it for all.
                Err(_) => state.apart = true,
            }
        }
        let refused = match self.ask(state, &key, id, Some(&alone))? {
            Ok(token) => return Ok(token),
            Err(refused) => refused,
        };
        // What the App was not given may have no token for all else. Perhaps the repository has
        // another name now, by which it is still found.
        self.installed(state, &key, &self.of_repository(), self.repository())?;
        match self.ask(state, &key, id, None)? {
            Ok(token) => {
                (self.world.warn)(format!(
                    "the token of the GitHub App `{}` is not restricted to this repository, for it is refused then (GitHub says: {refused})",
                    self.account.app.id
                ));
                Ok(Token { repositories: alone, ..token })
            }
            Err(said) => {
                let url = self.url(&format!("app/installations/{id}/access_tokens"))?;
                Err(Error::Status { url, status: 422, said }.into())
            }
        }
    }

    /// The names of all repositories of the run that this token can be for.
    fn repositories(&self) -> BTreeSet<String> {
        let here = |found: &Repository| {
            found.authority == self.authority && found.owner == self.account.owner
        };
        let peers = (self.world.peers)();
        let names = peers.iter().filter_map(Repository::of).filter(here).map(|found| found.name);
        names.chain([self.name.clone()]).collect()
    }

    /// The installation on the account that was given, else the one for the repository.
    fn installation(&self, state: &mut State, key: &jwt::Key) -> Result<u64, super::Error> {
        if let Some(owner) = &self.account.app.owner {
            let kinds = ["orgs", "users"].map(|kind| format!("{kind}/{owner}/installation"));
            self.installed(state, key, &kinds, owner.clone())
        } else {
            self.installed(state, key, &self.of_repository(), self.repository())
        }
    }

    /// The repository as GitHub names it.
    fn repository(&self) -> String {
        format!("{}/{}", self.account.owner, self.name)
    }

    /// Where its installation is looked up.
    fn of_repository(&self) -> [String; 1] {
        [format!("repos/{}/installation", self.repository())]
    }

    /// The installation in the first of these places that has one.
    fn installed(
        &self,
        state: &mut State,
        key: &jwt::Key,
        places: &[String],
        on: String,
    ) -> Result<u64, super::Error> {
        let app = || self.account.app.id.clone();
        for place in places {
            let url = self.url(place)?;
            let answer = self.call(state, key, &Method::GET, &url, None)?;
            match answer.status {
                200 => {
                    let found: Installation = read(&url, &answer)?;
                    if found.suspended_at.is_some() {
                        return Err(Error::Suspended { app: app(), on }.into());
                    }
                    return Ok(found.id);
                }
                404 => {}
                status => return Err(Error::Status { url, status, said: answer.said() }.into()),
            }
        }
        Err(Error::NotInstalled { app: app(), on }.into())
    }

    /// A token for these repositories, or for all; or why GitHub does not give it for them.
    fn ask(
        &self,
        state: &mut State,
        key: &jwt::Key,
        id: u64,
        repositories: Option<&BTreeSet<String>>,
    ) -> Result<Result<Token, String>, super::Error> {
        let mut wish = json!({"permissions": {"contents": "read"}});
        if let Some(names) = repositories {
            wish["repositories"] = json!(names);
        }
        let url = self.url(&format!("app/installations/{id}/access_tokens"))?;
        let body = wish.to_string().into_bytes();
        let asked = Instant::now();
        let answer = self.call(state, key, &Method::POST, &url, Some(&body))?;
        let app = || self.account.app.id.clone();
        match answer.status {
            201 => {}
            422 => return Ok(Err(answer.said())),
            404 => return Err(Error::NoInstallation { app: app(), id }.into()),
            403 if answer.said().contains("suspended") => {
                let on = self.account.app.owner.as_ref().unwrap_or(&self.account.owner).clone();
                return Err(Error::Suspended { app: app(), on }.into());
            }
            status => return Err(Error::Status { url, status, said: answer.said() }.into()),
        }
        let granted: Granted = read(&url, &answer)?;
        let now = answer.date.map_or_else(|| unix_now() + state.clock, jiff::Timestamp::as_second);
        let end: jiff::Timestamp = granted.expires_at.parse().map_err(|_| Error::Strange {
            url: url.clone(),
            answer: "the token's end is not a time".into(),
        })?;
        let life = end.as_second().saturating_sub(now).clamp(0, LONGEST_LIFE);
        let life = Duration::from_secs(u64::try_from(life).unwrap_or_default());
        // A fetch that begins with it must be able to end with it.
        let spare = self.world.remote.limits.total.min(life / 2);
        Ok(Ok(Token {
            secret: super::token(&granted.token, false, "the token that GitHub gave")?,
            repositories: repositories.cloned().unwrap_or_default(),
            until: asked + life.saturating_sub(spare),
        }))
    }

    /// Asks, if need be a second time by the API's own clock.
    fn call(
        &self,
        state: &mut State,
        key: &jwt::Key,
        method: &Method,
        url: &RepoUrl,
        body: Option<&[u8]>,
    ) -> Result<Answer, super::Error> {
        let answer = self.send(state.clock, key, method, url, body)?;
        if answer.status != 401 {
            return Ok(answer);
        }
        let clock = |answer: &Answer| answer.date.map_or(0, |date| date.as_second() - unix_now());
        let seen = clock(&answer);
        let unknown = |answer: &Answer, clock: i64| Error::Unknown {
            api: self.account.api.clone(),
            app: self.account.app.id.clone(),
            said: answer.said(),
            clock,
        };
        if (seen - state.clock).abs() <= CLOCK {
            return Err(unknown(&answer, seen).into());
        }
        state.clock = seen;
        let second = self.send(seen, key, method, url, body)?;
        if second.status == 401 {
            return Err(unknown(&second, seen).into());
        }
        (self.world.warn)(format!(
            "`{}` refused what was signed by this host's clock{}; signed by the server's, it is accepted: set the clock",
            self.account.api,
            off(seen)
        ));
        Ok(second)
    }

    fn send(
        &self,
        clock: i64,
        key: &jwt::Key,
        method: &Method,
        url: &RepoUrl,
        body: Option<&[u8]>,
    ) -> Result<Answer, super::Error> {
        let of = self.world.remote;
        let remote = Remote {
            url: url.clone(),
            credential: None,
            trust: of.trust.clone(),
            limits: Limits { total: of.limits.total.min(TIME), ..of.limits },
            interrupt: of.interrupt.clone(),
            proxy: self.proxy(url),
            plain: false,
        };
        let progress = |progress: Progress| match progress {
            Progress::Warning(text) => (self.world.warn)(text),
            Progress::Retrying { reason, wait } => {
                (self.world.warn)(format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            Progress::Receiving { .. } => {}
        };
        let watch = Watch::start(&remote);
        let answer = retry::retrying(&watch, remote.limits.pause, &progress, || {
            let proof =
                jwt::sign(&self.account.app.id, key, unix_now() + clock).map_err(|error| {
                    Failure::file("sign with", &self.account.app.private_key_file, error)
                })?;
            Http::new(&remote, &watch, &progress)?.api(method, &proof, body)
        });
        answer.map_err(|failure| match failure {
            Failure::Interrupted(signal) => super::Error::Interrupted(signal),
            failure => {
                let app = self.account.app.id.clone();
                Error::Api { app, source: Box::new(failure) }.into()
            }
        })
    }

    /// A proxy that the environment names is not the same for every host.
    fn proxy(&self, url: &RepoUrl) -> Option<Proxy> {
        let of = self.world.remote;
        // What cannot be read there is not what the repository is reached by.
        match proxy::from_environment(&of.url, self.world.variable) {
            Ok(usual) if of.proxy == usual => {
                proxy::from_environment(url, self.world.variable).ok().flatten()
            }
            _ => of.proxy.clone(),
        }
    }

    fn url(&self, path: &str) -> Result<RepoUrl, Error> {
        let url = || self.world.remote.url.clone();
        let base = self.account.api.strip_prefix("https://");
        let base = base.ok_or_else(|| Error::NotGithub { url: url() })?;
        let (authority, above) = base.split_once('/').unwrap_or((base, ""));
        let path = if above.is_empty() { path.to_owned() } else { format!("{above}/{path}") };
        Ok(RepoUrl::Https { authority: authority.to_owned(), path })
    }
}

fn read<T: serde::de::DeserializeOwned>(url: &RepoUrl, answer: &Answer) -> Result<T, Error> {
    // What it sent may be the token: it is not shown.
    serde_json::from_slice(&answer.body).map_err(|error| Error::Strange {
        url: url.clone(),
        answer: format!("{:?} error in its JSON", error.classify()).to_lowercase(),
    })
}

fn unix_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_where_github_has_it() {
        for (authority, api) in [
            ("github.com", "https://api.github.com"),
            ("acme.ghe.com", "https://api.acme.ghe.com"),
            ("notghe.com", "https://notghe.com/api/v3"),
            ("github.example.com:8443", "https://github.example.com:8443/api/v3"),
        ] {
            assert_eq!(usual_api(authority), api);
        }
    }

    #[test]
    fn a_repository_is_owner_and_name() {
        let of = |path: &str| {
            let url = RepoUrl::Https { authority: "h".into(), path: path.into() };
            Repository::of(&url).map(|found| format!("{} {}", found.owner, found.name))
        };
        assert_eq!(of("Acme/API.git").as_deref(), Some("acme api"));
        assert_eq!(of("acme/my.git-tool").as_deref(), Some("acme my.git-tool"));
        for path in ["acme", "acme/", "acme/a/b", "acme/..", "acme/a?b", "acme/%2e%2e", "/a"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_clock_is_called_ahead_or_behind() {
        assert_eq!(off(-600), "; this host's clock is 600 s ahead of the server's");
        assert_eq!(off(600), "; this host's clock is 600 s behind the server's");
        assert_eq!((off(CLOCK), off(-CLOCK)), (String::new(), String::new()));
    }
}
