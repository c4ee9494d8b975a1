//! A login over SSH whose signature comes from an agent.

use std::ffi::{CString, c_char, c_int, c_uchar, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use ssh2::{ErrorCode, Session};

use super::agent::{Agent, Identity, Problem};

// libssh2's codes, which have no names in its binding.
const UNVERIFIED: c_int = -19;
const BAD_USE: c_int = -39;

type SignCallback = unsafe extern "C" fn(
    session: *mut c_void,
    signature: *mut *mut c_uchar,
    length: *mut usize,
    data: *const c_uchar,
    data_length: usize,
    context: *mut *mut c_void,
) -> c_int;

#[expect(unsafe_code, reason = "libssh2's binding lacks this function")]
unsafe extern "C" {
    /// As `libssh2.h` declares it.
    fn libssh2_userauth_publickey(
        session: *mut c_void,
        user: *const c_char,
        public_key: *const c_uchar,
        public_key_length: usize,
        sign: SignCallback,
        context: *mut *mut c_void,
    ) -> c_int;
}

/// One key of an agent, about to be offered.
pub(super) struct Signer<'s, 'a> {
    pub agent: &'s mut Agent<'a>,
    pub key: &'s Identity,
    /// What went wrong with the agent.
    pub problem: Option<Problem>,
}

impl Signer<'_, '_> {
    /// Offers the key; the agent is asked only if the server would take it.
    ///
    /// # Errors
    /// libssh2's, if [`Self::problem`] is not set.
    #[expect(unsafe_code, reason = "libssh2 has to call back for the signature")]
    pub(super) fn log_in(&mut self, session: &Session, user: &str) -> Result<(), ssh2::Error> {
        let user = CString::new(user)
            .map_err(|_| ssh2::Error::new(ErrorCode::Session(BAD_USE), "a NUL in the user name"))?;
        let mut context: *mut c_void = std::ptr::from_mut(self).cast();
        let code = {
            let mut raw = session.raw();
            // SAFETY: the session is locked while libssh2 works on it, the texts outlive the
            // call, and `context` is what `sign` takes it for, used by nobody else meanwhile.
            unsafe {
                libssh2_userauth_publickey(
                    std::ptr::from_mut(&mut *raw).cast(),
                    user.as_ptr(),
                    self.key.blob.as_ptr(),
                    self.key.blob.len(),
                    sign,
                    &raw mut context,
                )
            }
        };
        if code == 0 { Ok(()) } else { Err(ssh2::Error::from_session_error(session, code)) }
    }
}

#[expect(unsafe_code, reason = "called by libssh2")]
unsafe extern "C" fn sign(
    _session: *mut c_void,
    signature: *mut *mut c_uchar,
    length: *mut usize,
    data: *const c_uchar,
    data_length: usize,
    context: *mut *mut c_void,
) -> c_int {
    // SAFETY: libssh2 hands on the pointer that `log_in` gave it, and `log_in` waits for it.
    let signer: &mut Signer<'_, '_> = unsafe { &mut *(*context).cast() };
    // SAFETY: libssh2's own buffer, for the time of this call.
    let data = unsafe { std::slice::from_raw_parts(data, data_length) };
    let made = catch_unwind(AssertUnwindSafe(|| signer.agent.sign(signer.key, data)));
    let made = match made {
        Ok(Ok(made)) => made,
        Ok(Err(problem)) => {
            signer.problem = Some(problem);
            return UNVERIFIED;
        }
        // A bug; a panic must not reach C.
        Err(_) => return UNVERIFIED,
    };
    // SAFETY: libssh2 frees it with `free`: the session was made with its default allocator.
    let copy: *mut c_uchar = unsafe { libc::malloc(made.len().max(1)) }.cast();
    if copy.is_null() {
        return UNVERIFIED;
    }
    // SAFETY: both are that long and do not overlap, and the results are libssh2's to fill.
    unsafe {
        std::ptr::copy_nonoverlapping(made.as_ptr(), copy, made.len());
        *signature = copy;
        *length = made.len();
    }
    0
}
