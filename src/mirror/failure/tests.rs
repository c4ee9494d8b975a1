use super::*;
use crate::error::ExitCode;
use git2::{Error, ErrorClass as Class, ErrorCode as Code};

fn url() -> RepoUrl {
    RepoUrl::Https { authority: "git.example.com".into(), path: "acme/api.git".into() }
}

#[test]
fn errors_of_libgit2_by_meaning() {
    let path = Path::new("/cache/mirrors/api.git");
    let row =
        |class, code, text: &str| Failure::git("reading", path, Error::new(code, class, text));
    let full = [
        (Class::Os, Code::GenericError, "cannot extend packfile '/x': No space left on device"),
        (Class::Os, Code::GenericError, "could not write to '/x': Disk quota exceeded"),
    ];
    for (class, code, text) in full {
        assert!(matches!(row(class, code, text), Failure::DiskFull { .. }), "{text}");
    }
    let damaged = [
        (Class::Zlib, Code::GenericError, "incorrect data check"),
        (Class::Odb, Code::NotFound, "object not found - no match for id (1)"),
        (Class::Odb, Code::GenericError, "failed to parse loose object: hash mismatch"),
        (Class::Odb, Code::Modified, "object hash mismatch - expected 1 but got 2"),
        (Class::Reference, Code::GenericError, "corrupted loose reference file: refs/x"),
        (Class::Reference, Code::GenericError, "corrupted packed references file"),
        (Class::Repository, Code::NotFound, "could not find repository at '/x'"),
        (Class::Object, Code::GenericError, "failed to parse tree: missing space"),
    ];
    for (class, code, text) in damaged {
        assert!(matches!(row(class, code, text), Failure::Damaged { .. }), "{text}");
    }
    let other = [
        (Class::Config, Code::Owner, "repository path '/x' is not owned by current user"),
        (Class::Os, Code::GenericError, "failed to lock file '/x/y.lock' for writing"),
        (Class::Os, Code::Locked, "failed to lock file"),
    ];
    for (class, code, text) in other {
        let failure = row(class, code, text);
        assert!(matches!(failure, Failure::Git { .. }), "{text}");
        assert_eq!(failure.exit_code(), ExitCode::Unfit, "{text}");
        assert!(failure.hint().is_some(), "{text}");
    }
    let talk = row(Class::Net, Code::GenericError, "unexpected answer");
    assert_eq!(talk.exit_code(), ExitCode::Fetch);
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let status = |status| Failure::Status { url: url(), status, after: None }.retry();
    for passing in [429, 500, 502, 503, 504] {
        assert_ne!(status(passing), Retry::Never, "{passing}");
    }
    for lasting in [400, 405, 410, 418] {
        assert_eq!(status(lasting), Retry::Never, "{lasting}");
    }
    let after = Some(Duration::from_secs(7));
    let limited = Failure::Status { url: url(), status: 429, after };
    assert_eq!(limited.retry(), Retry::Later { after });
    // Only with a wish is it one to wait.
    let limited = |after| Failure::Status { url: url(), status: 403, after }.retry();
    assert_eq!((limited(after), limited(None)), (Retry::Later { after }, Retry::Never));
    let asked_with = "the token in `T`".to_owned();
    let denied = Failure::Denied { url: url(), asked_with, remote_said: None };
    assert_eq!(denied.retry(), Retry::Never);
    let step = |step| Failure::Timeout { url: url(), step, limit: Duration::from_secs(1) };
    assert_ne!(step(Step::Read).retry(), Retry::Never);
    assert_eq!(step(Step::Total).retry(), Retry::Never);
}

#[test]
fn not_found_says_both_and_names_the_credential() {
    let failure = Failure::NotFoundOrForbidden {
        url: url(),
        asked_with: "the token in `GHES_TOKEN`".into(),
        remote_said: None,
    };
    assert_eq!(
        failure.to_string(),
        "`https://git.example.com/acme/api.git` is not there, or the token in `GHES_TOKEN` may not read it"
    );
    assert!(failure.hint().is_some_and(|hint| hint.contains("single sign-on")));
    assert_eq!(failure.exit_code(), ExitCode::Fetch);
    let local = Failure::NotFoundOrForbidden {
        url: RepoUrl::File("/srv/api.git".into()),
        asked_with: "this user".into(),
        remote_said: None,
    };
    assert!(local.hint().is_some_and(|hint| hint.contains("path") && !hint.contains("expired")));
}

#[test]
fn words_of_a_server_cannot_forge_a_log() {
    assert_eq!(harmless(b"\n  ERROR: no\x1b[31m\x07 such\nthing\n"), "ERROR: no?[31m? such");
    assert_eq!(harmless(&[b'x'; 500]).len(), 200);
}

#[test]
fn what_libgit2_fails_at_without_a_word_is_what_the_system_said() {
    let none = || Error::new(Code::GenericError, Class::None, "");
    let path = Path::new("/cache/api.git");
    Errno::ENOSPC.set();
    let failure = Failure::git("storing the pack", path, none());
    assert!(matches!(failure, Failure::DiskFull { .. }), "{failure:?}");
    Errno::EROFS.set();
    let failure = Failure::git("storing the pack", path, none());
    assert!(matches!(failure, Failure::File { .. }), "{failure:?}");
    Errno::ENOENT.set();
    let failure = Failure::git("storing the pack", path, none());
    assert!(matches!(failure, Failure::Git { .. }), "{failure:?}");
}
