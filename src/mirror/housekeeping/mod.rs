//! Keeps a mirror small: refs that nothing needs any more expire, and what is left is put
//! together into as few packs as is worth it. Of a mirror that is larger than it may be, less
//! is kept ([`refs::KEEP`]).
//!
//! | stays | how long |
//! |---|---|
//! | `deployed`, `previous`, `attempted` | always, and their commits |
//! | `history/<run>` | the last 50, and their commits, complete |
//! | `pinned/<commit of the app>/<id>` | in a submodule's mirror: as long as that commit is at hand |
//! | `fetched/<id>` | of the commits of those refs (the history's: of the last 5 runs), and the last 3 fetched |
//!
//! Objects of Git LFS stay as long as a commit needs them that a `fetched/<id>` names.
//!
//! Everything that a ref needs stays: the new pack is written beside the old ones, synced,
//! and read again object by object before the first old one goes. Killed at any instant, the
//! mirror holds all it held. A failure leaves it as it was.

mod consolidate;
mod needed;
mod refs;

use std::path::Path;
use std::time::{Duration, Instant};

use super::repository::oid;
use super::{Failure, Mirror, lfs, submodules};
use crate::domain::Revision;
use crate::process::Interrupt;

pub(super) use consolidate::sweep;
pub(super) use refs::at_hand;

/// More packs than this, beside those that stay as they are, are put together.
const PACKS: usize = 2;
/// More packs than this are looked at, whether they all still are of use.
const MOST_PACKS: usize = 24;
/// More loose objects, or loose refs of the history, than this are put together.
const LOOSE: usize = 2;

/// When and how long to keep house.
#[derive(Debug, Clone)]
pub struct Effort {
    /// Also if little has come together.
    pub always: bool,
    /// It is given up, and nothing is changed, when it takes longer.
    pub within: Duration,
    /// Ends it early, without a failure.
    pub interrupt: Interrupt,
    /// What is fetched of these commits stays.
    pub wanted: Vec<Revision>,
    /// Bytes that are not to be exceeded: of the history less is kept then, at last only that
    /// of `deployed`, `previous` and `attempted`.
    pub most: Option<u64>,
}

/// What is there, and what [`Mirror::tidy`] would do about it at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlook {
    /// Refs that would expire.
    pub refs: usize,
    /// Packs.
    pub packs: usize,
    /// Objects in files of their own.
    pub loose: usize,
    /// Bytes of all of them, of the packs' indexes, and of what Git LFS keeps.
    pub bytes: u64,
}

impl Outlook {
    fn add(&mut self, other: Self) {
        self.refs += other.refs;
        self.packs += other.packs;
        self.loose += other.loose;
        self.bytes += other.bytes;
    }
}

/// Looks at a mirror, and those of its submodules, without a lock, and changes nothing. What is fetched of the commits that
/// are `wanted` counts as needed.
///
/// # Errors
/// It cannot be read.
pub fn outlook(mirror: &Path, wanted: &[Revision]) -> Result<Outlook, Failure> {
    let mut all = outlook_of_one(mirror, wanted)?;
    for module in submodules::mirrors(mirror)? {
        all.add(outlook_of_one(&module, &[])?);
    }
    Ok(all)
}

/// Bytes of all that is in a mirror, without those of its submodules; what cannot be read counts
/// as nothing.
pub(super) fn bytes(mirror: &Path) -> u64 {
    let place =
        super::open_read_only(mirror).and_then(|repository| consolidate::Place::open(&repository));
    place.map_or(0, |place| place.bytes()) + lfs::bytes(mirror)
}

fn outlook_of_one(mirror: &Path, wanted: &[Revision]) -> Result<Outlook, Failure> {
    let repository = super::open_read_only(mirror)?;
    let place = consolidate::Place::open(&repository)?;
    Ok(Outlook {
        refs: refs::expired(&repository, refs::KEEP[0], wanted)?.len(),
        packs: place.packs.len(),
        loose: place.loose.len(),
        bytes: place.bytes() + lfs::bytes(mirror),
    })
}

/// What was done, with the mirrors of submodules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tidied {
    /// Refs that expired.
    pub refs: usize,
    /// Packs before and after.
    pub packs: (usize, usize),
    /// Bytes of packs, indexes, loose objects and what Git LFS keeps, before and after.
    pub bytes: (u64, u64),
    /// It took too long, or a signal came; the objects are as they were.
    pub given_up: bool,
}

impl Tidied {
    pub(super) fn add(&mut self, other: Self) {
        let Self { refs, packs, bytes, given_up } = other;
        self.refs += refs;
        self.packs = (self.packs.0 + packs.0, self.packs.1 + packs.1);
        self.bytes = (self.bytes.0 + bytes.0, self.bytes.1 + bytes.1);
        self.given_up |= given_up;
    }
}

impl std::fmt::Display for Tidied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { refs, packs, bytes, given_up } = self;
        let late = if *given_up { ", given up: it took too long" } else { "" };
        write!(
            f,
            "mirror put in order: {} -> {} packs, {} -> {} bytes, {refs} refs expired{late}",
            packs.0, packs.1, bytes.0, bytes.1
        )
    }
}

/// When to give up.
struct Until<'a> {
    end: Instant,
    interrupt: &'a Interrupt,
}

impl Until<'_> {
    fn over(&self) -> bool {
        self.interrupt.signal().is_some() || Instant::now() >= self.end
    }
}

impl Mirror {
    /// Removes what no ref needs, and puts the rest together, when enough has come together
    /// (or always), and does so with the mirrors of the submodules. `None` when it was not worth
    /// it here.
    ///
    /// # Errors
    /// [`Failure::Damaged`] when something that a ref needs is missing; [`Failure::File`],
    /// [`Failure::DiskFull`]. The mirror holds all it held.
    pub fn tidy(&self, effort: &Effort) -> Result<Option<Tidied>, Failure> {
        let begin = Instant::now();
        let modules = self.bytes_of_submodules()?;
        let large = effort.most.is_some_and(|most| bytes(&self.path) + modules > most);
        // What those of the submodules take counts, and goes with what needs it.
        let most = effort.most.map(|most| most.saturating_sub(modules));
        let always = effort.always || large;
        let mut tidied = self.tidy_own(&Effort { always, most, ..effort.clone() })?;
        let within = effort.within.saturating_sub(begin.elapsed());
        let others = Effort { within, always, most: None, ..effort.clone() };
        let others = self.tidy_submodules(&others)?;
        if let Some(tidied) = &mut tidied {
            tidied.add(others);
        }
        Ok(tidied)
    }

    /// Removes what Git LFS keeps and no commit needs any more that stays.
    fn sweep_lfs(&self, keep: refs::Keep, wanted: &[Revision]) -> Result<u64, Failure> {
        if !self.path.join(lfs::DIRECTORY).is_dir() {
            return Ok(0);
        }
        let kept = refs::kept(&self.repository, keep, wanted)?;
        lfs::sweep(&self.path, |commit| kept.contains(&oid(commit)))?;
        Ok(lfs::bytes(&self.path))
    }

    fn tidy_own(&self, effort: &Effort) -> Result<Option<Tidied>, Failure> {
        let history = refs::loose_history(&self.path);
        let lfs_before = lfs::bytes(&self.path);
        let mut lfs_after = self.sweep_lfs(refs::KEEP[0], &effort.wanted)?;
        if !(effort.always || history > LOOSE || consolidate::is_much(&self.repository)?) {
            return Ok(None);
        }
        let place = consolidate::Place::open(&self.repository)?;
        let until = Until { end: Instant::now() + effort.within, interrupt: &effort.interrupt };
        let (packs, bytes) = (place.packs.len(), place.bytes());
        let mut tidied =
            Tidied { packs: (packs, packs), bytes: (bytes, bytes), ..Tidied::default() };
        let mut place = Some(place);
        for keep in refs::KEEP {
            let expired = refs::expire(&self.repository, keep, &effort.wanted)?;
            tidied.refs += expired;
            let place = match place.take() {
                Some(first) => first,
                None if expired == 0 => continue,
                None => consolidate::Place::open(&self.repository)?,
            };
            refs::pack_history(&self.repository)?;
            lfs_after = self.sweep_lfs(keep, &effort.wanted)?;
            consolidate::consolidate(&self.repository, place, &until, &mut tidied)?;
            let bytes = tidied.bytes.1 + lfs_after;
            if tidied.given_up || effort.most.is_none_or(|most| bytes <= most) {
                break;
            }
        }
        tidied.bytes.0 += lfs_before;
        tidied.bytes.1 += lfs_after;
        Ok(Some(tidied))
    }
}

fn file(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::file(doing, &path, error)
}
