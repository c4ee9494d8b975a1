//! Doing again what may work the next time.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::Progress;
use super::failure::{Failure, Retry};
use super::watch::Watch;

/// Tries, the first included.
const TRIES: u32 = 3;

/// Does it again when that may help: a few times, with growing and uneven pauses (`pause`
/// before the second try), within the total time of `watch`.
pub(super) fn retrying<T>(
    watch: &Watch,
    pause: Duration,
    progress: &dyn Fn(Progress),
    mut work: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut tries = 1;
    loop {
        let failure = match work() {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        watch.forget_connections();
        let Retry::Later { after } = failure.retry() else { return Err(failure) };
        let pause = pause * 3_u32.pow(tries - 1);
        // Half to one and a half times as long: fifty instances do not come back at once.
        let random = RandomState::new().build_hasher().finish() % 1000;
        let pause = pause.mul_f64(0.5 + f64::from(u32::try_from(random).unwrap_or(500)) / 1000.0);
        let wait = after.map_or(pause, |after| after.max(pause));
        if tries == TRIES || wait >= watch.remaining() {
            return Err(failure);
        }
        tries += 1;
        progress(Progress::Retrying { reason: failure.to_string(), wait });
        watch.sleep(wait)?;
    }
}
