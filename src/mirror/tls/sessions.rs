//! TLS sessions that servers offer to go on with: a second connection to a server is then made
//! without sending and judging its certificate again.
//!
//! A session is only offered to the server it came from, reached by the same way and judged by
//! the same authorities, and by this process, which has seen the certificate.

use std::sync::{LazyLock, Mutex};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslConnectorBuilder, SslRef, SslSession, SslSessionCacheMode, SslVersion};

use super::Way;
use crate::sync::lock;

/// A server gives two with each connection.
const MOST: usize = 32;

static SESSIONS: Mutex<Vec<(Way, SslSession)>> = Mutex::new(Vec::new());
/// Where a connection leads to, for when a session comes along it.
static LEADS: LazyLock<Result<Index<Ssl, Way>, ErrorStack>> = LazyLock::new(Ssl::new_ex_index);

/// Has connections keep what sessions they are given, if they say where they lead to.
pub(super) fn kept_by(builder: &mut SslConnectorBuilder) {
    builder.set_session_cache_mode(
        SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL_STORE,
    );
    builder.set_new_session_callback(|ssl, session| {
        let way = LEADS.as_ref().ok().and_then(|index| ssl.ex_data(*index));
        let Some(way) = way.cloned() else { return };
        let mut sessions = lock(&SESSIONS);
        if sessions.len() == MOST {
            sessions.remove(0);
        }
        sessions.push((way, session));
    });
}

/// Goes on with a session of before, if there is one, and keeps those that come.
pub(super) fn resume(ssl: &mut SslRef, way: &Way) {
    let Ok(index) = *LEADS else { return };
    ssl.set_ex_data(index, way.clone());
    let mut sessions = lock(&SESSIONS);
    let Some(at) = sessions.iter().rposition(|(to, _)| to == way) else { return };
    let (_, session) = sessions.remove(at);
    // Since version 1.3 each is for one connection, so that nobody can tell that they belong
    // together; before, one was for many.
    if session.protocol_version() != SslVersion::TLS1_3 {
        sessions.push((way.clone(), session.clone()));
    }
    drop(sessions);
    #[expect(unsafe_code, reason = "asks that the session is of the same context")]
    // SAFETY: a way has its authorities in it, and for each set of them there is one context,
    // which is never replaced; so a session that is found by its way is of this context.
    let _ = unsafe { ssl.set_session(&session) };
}
