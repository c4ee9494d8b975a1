//! libgit2 as this program uses it: for objects, packs and refs. It gets neither the network
//! nor anybody's configuration.

use std::sync::Once;

use git2::ConfigLevel;

use super::spill;

const CERTIFICATE_VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Sets libgit2's process-wide options, once, before anything else is asked of it. Whoever
/// uses `git2` outside of this module calls it first, and the first call comes before this
/// program starts threads: it touches the environment.
#[expect(
    unsafe_code,
    reason = "the options are process-wide; they are set here, once, before any other use of libgit2"
)]
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Before `git2` gets to it: it would point OpenSSL at the system's authorities by
        // variables, which children would inherit, and have all of them loaded, which takes
        // longer than a run with nothing to do.
        libgit2_sys::init();
        let before = CERTIFICATE_VARIABLES.map(|name| (name, std::env::var_os(name)));
        // Nobody's ~/.gitconfig and no /etc/gitconfig may change what is deployed.
        let levels =
            [ConfigLevel::ProgramData, ConfigLevel::System, ConfigLevel::XDG, ConfigLevel::Global];
        for level in levels {
            // SAFETY: no other thread uses libgit2 yet; `call_once` makes the others wait.
            let _ = unsafe { git2::opts::set_search_path(level, "") };
        }
        for (name, value) in before {
            if value.is_none() {
                // SAFETY: `git2` itself set it a few lines above, on this thread, and there are
                // no others yet.
                unsafe { std::env::remove_var(name) };
            }
        }
        // Packs, refs and their directories are synced before they count: libgit2 does not
        // do so by itself.
        // SAFETY: as above, and the option takes one int.
        unsafe {
            libgit2_sys::git_libgit2_opts(
                libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR.cast_signed(),
                1 as std::ffi::c_int,
            );
            // Small windows over packs: a checkout of a large tree must not map all of it.
            let _ = git2::opts::set_mwindow_size(1 << 22);
            let _ = git2::opts::set_mwindow_mapped_limit(1 << 26);
            // `objects` does that, several times as fast.
            git2::opts::strict_hash_verification(false);
        }
        spill::serve_libgit2();
    });
}
