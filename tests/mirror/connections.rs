//! Connections that several apps of one server use, one after the other.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multideployer::domain::RepoUrl;
use multideployer::mirror::{Failure, Mirror, Progress, Remote, Trust, hang_up};

use crate::support::https::{Fault, GitHttps, hash_of};
use crate::support::proxy::ConnectProxy;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::{noise, remote, rev, through, token};

/// Connections are kept by the process, so that only one test at a time can hang up.
static ALONE: Mutex<()> = Mutex::new(());

/// A server with several repositories.
struct Bed {
    dir: tempfile::TempDir,
    server: GitHttps,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("ca.pem"), Authority::shared().pem()).expect("the CA");
        let root = dir.path().join("srv");
        fs::create_dir(&root).expect("the server's directory");
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { server: GitHttps::start(root), dir, _alone: alone }
    }

    fn app(&self, name: &str) -> App {
        let repository = format!("acme/{name}.git");
        let upstream = Upstream::new(self.dir.path().join("srv"), &repository);
        let url = RepoUrl::Https { authority: self.server.authority(), path: repository };
        let trust = Trust { ca_file: Some(self.dir.path().join("ca.pem")), ..Trust::default() };
        let path = self.dir.path().join(format!("mirrors/{name}.git"));
        App { upstream, path, remote: Remote { trust, ..remote(url) } }
    }
}

struct App {
    upstream: Upstream,
    path: PathBuf,
    remote: Remote,
}

impl App {
    /// Fetches a new commit; says what was told meanwhile.
    fn update(&self) -> Result<Vec<Progress>, Failure> {
        let commit = self.upstream.commit(&[("a", &noise(3000)), ("b", &unique())]);
        let told = RefCell::new(Vec::new());
        let tell = |progress| match progress {
            Progress::Receiving { .. } => {}
            other => told.borrow_mut().push(other),
        };
        Mirror::open(&self.path)?.fetch(rev(&commit), &self.remote, &tell)?;
        Ok(told.into_inner())
    }
}

fn unique() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::SeqCst).to_string()
}

#[test]
fn twelve_apps_four_at_a_time_make_at_most_four_connections() {
    let bed = Bed::new();
    let apps: Vec<_> = (0..12).map(|n| bed.app(&format!("app{n}"))).collect();
    let next = Mutex::new(apps.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let app = next.lock().expect("the queue").next();
                    let Some(app) = app else { break };
                    assert_eq!(app.update().expect("a fetch"), []);
                }
            });
        }
    });
    assert_eq!(bed.server.requests().len(), 12);
    assert!((1..=4).contains(&bed.server.connections()), "{}", bed.server.connections());
    // What is idle is given up on demand, and then a session is gone on with.
    hang_up();
    bed.server.forget();
    bed.app("one-more").update().expect("a fetch");
    assert_eq!((bed.server.connections(), bed.server.resumed()), (1, 1));
}

#[test]
fn a_token_is_shown_for_its_own_app_only() {
    let bed = Bed::new();
    let mut apps = ["one", "two", "open"].map(|name| bed.app(name));
    bed.server.grant("acme/one", None, "token of one");
    bed.server.grant("acme/two", None, "token of two");
    apps[0].remote.credential = Some(token("token of one"));
    apps[1].remote.credential = Some(token("token of two"));
    for _ in 0..3 {
        for app in &apps {
            assert_eq!(app.update().expect("a fetch"), []);
        }
    }
    let own = |name: &str| hash_of("x-access-token", &format!("token of {name}"));
    let requests = bed.server.requests();
    assert_eq!(requests.len(), 9);
    for request in requests {
        let expected = ["one", "two"].into_iter().find(|name| request.path.contains(name));
        assert_eq!(request.authorization, expected.map(own), "{}", request.path);
    }
    // One app's fetch after the other's, over one connection.
    assert_eq!(bed.server.connections(), 1);
}

#[test]
fn who_is_trusted_and_the_way_there_keep_connections_apart() {
    let bed = Bed::new();
    let copy = bed.dir.path().join("copy.pem");
    fs::copy(bed.dir.path().join("ca.pem"), &copy).expect("a copy");
    let proxies = [ConnectProxy::start(&[]), ConnectProxy::start_with(&[], Some("u:p"))];
    let ways: [&dyn Fn(&mut Remote); 4] = [
        &|_| {},
        &|remote| remote.trust.ca_file = Some(copy.clone()),
        &|remote| remote.proxy = Some(through(&proxies[0], None)),
        &|remote| remote.proxy = Some(through(&proxies[1], Some("u:p"))),
    ];
    let mut apps = ["a", "b", "c", "d"].map(|name| bed.app(name));
    for (app, way) in apps.iter_mut().zip(ways) {
        way(&mut app.remote);
    }
    for app in apps.iter().chain(&apps) {
        app.update().expect("a fetch");
    }
    assert_eq!(bed.server.connections(), 4);
    assert_eq!(proxies.each_ref().map(|proxy| proxy.tunnels().len()), [1, 1]);
    // Nobody trusts a server because somebody else does.
    let mut stranger = bed.app("e");
    stranger.remote.trust.ca_file = None;
    let failure = stranger.update().expect_err("nobody vouches for it");
    assert!(matches!(failure, Failure::Certificate(_)), "{failure}");
}

#[test]
fn a_server_that_closes_idle_connections_is_connected_to_anew() {
    let bed = Bed::new();
    let apps = ["a", "b"].map(|name| bed.app(name));
    bed.server.close_idle();
    for _ in 0..5 {
        for app in &apps {
            assert_eq!(app.update().expect("a fetch"), [], "nothing to tell of");
        }
    }
    let oks = bed.server.requests().iter().filter(|request| request.status == 200).count();
    assert_eq!(oks, 10);
    assert_eq!(bed.server.connections(), 10);
    assert_eq!(bed.server.resumed(), 9, "the certificate was judged once");
}

#[test]
fn a_connection_that_dies_with_the_request_is_replaced_once_and_unnoticed() {
    let bed = Bed::new();
    let app = bed.app("api");
    for fault in [Fault::close(), Fault::reset()] {
        app.update().expect("a fetch");
        bed.server.forget();
        bed.server.inject(fault.clone().times(1));
        assert_eq!(app.update().expect("a fetch"), [], "{fault:?}");
        assert_eq!(bed.server.requests().len(), 2, "{fault:?}");
        assert_eq!(bed.server.connections(), 1, "{fault:?}");
        // A new one that dies is trouble, which is told of before it is tried again.
        hang_up();
        bed.server.inject(fault.clone().times(1));
        let told = app.update().expect("the second time");
        assert!(matches!(told[..], [Progress::Retrying { .. }]), "{fault:?}: {told:?}");
    }
    // And so is one that dies when part of the answer has come.
    bed.server.inject(Fault::cut(0.5).times(1));
    let told = app.update().expect("the second time");
    assert!(matches!(told[..], [Progress::Retrying { .. }]), "{told:?}");
}

#[test]
fn limits_and_signals_hold_on_a_connection_that_another_app_made() {
    let bed = Bed::new();
    let patient = bed.app("patient");
    let mut hasty = bed.app("hasty");
    hasty.remote.limits.read = Duration::from_millis(300);
    for fault in [Fault::hang(), Fault::stall(0.5)] {
        patient.update().expect("a fetch");
        bed.server.forget();
        bed.server.inject(fault.clone());
        let failure = hasty.update().expect_err("it takes too long");
        assert!(matches!(failure, Failure::Timeout { .. }), "{failure}");
        // The first try came along the connection that was there.
        assert_eq!(bed.server.connections(), 2, "{fault:?}");

        bed.server.repair();
        patient.update().expect("a fetch");
        bed.server.inject(fault);
        let interrupt = patient.remote.interrupt.clone();
        let signal = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            interrupt.set(15);
            Instant::now()
        });
        let failure = patient.update().expect_err("it is ended");
        assert!(matches!(failure, Failure::Interrupted(15)), "{failure}");
        let sent = signal.join().expect("it was sent");
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
        bed.server.repair();
        patient.remote.interrupt.set(0);
    }
}

#[test]
fn old_servers_get_both_requests_over_one_connection() {
    let bed = Bed::new();
    let app = bed.app("api");
    bed.server.forget_version_2();
    app.update().expect("a fetch");
    bed.server.forget();
    app.update().expect("a fetch");
    let methods: Vec<_> = bed.server.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["GET", "POST"]);
    assert_eq!(bed.server.connections(), 0, "nor is another one needed for the next fetch");
}

#[test]
fn a_server_that_does_not_say_where_its_answer_ends_is_not_waited_for() {
    let bed = Bed::new();
    let app = bed.app("api");
    let commit = app.upstream.commit(&[("a", "1")]);
    let mut mirror = Mirror::open(&app.path).expect("a mirror");
    let before = Instant::now();
    bed.server.inject(Fault::stall(1.0).times(1));
    mirror.fetch(rev(&commit), &app.remote, &|_| {}).expect("all of it was there");
    drop(mirror);
    assert!(before.elapsed() < app.remote.limits.read, "{:?}", before.elapsed());
    app.update().expect("a fetch");
    assert_eq!(bed.server.connections(), 2, "it is of no use any more");
}
