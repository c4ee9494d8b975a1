//! Files that Git LFS keeps elsewhere: a commit has a pointer, the server of the repository says
//! where the content is, and the mirror keeps what came.

mod batch;
mod endpoint;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod partial;
mod pointer;
mod problem;
mod store;
mod transfer;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::local;
use super::watch::Watch;
use super::{Failure, Mirror, Progress, Remote, retry, ssh};
use crate::domain::{RepoUrl, Revision};
use crate::process::Interrupt;

pub(super) use batch::KIND as BATCH_KIND;
pub use endpoint::{configured, of_source};
pub(super) use pointer::{LONGEST as LONGEST_POINTER, parse};
pub use pointer::{Object, ObjectId};
pub use problem::{Named, Problem};
pub(super) use store::{DIRECTORY, bytes, carry_over, path, sweep};
pub use transfer::{Telling, Ways};

use endpoint::Endpoint;
use partial::{End, Partial};
use transfer::{Transfer, Wanted};

/// More than `git-lfs-authenticate` answers.
const LONGEST: u64 = 64 << 10;

/// A file of a tree that Git LFS keeps elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsFile {
    /// Where it is in the tree.
    pub path: PathBuf,
    /// What is to be there.
    pub object: Object,
}

/// The server that is asked for objects.
pub enum Server<'a> {
    /// The batch API is at the URL of this remote.
    Batch(&'a Remote),
    /// The repository of this remote, over SSH or on this host, has them or knows where they
    /// are.
    Repository(&'a Remote),
}

/// Objects that a commit needs and the mirror has not got.
#[derive(Debug, Default)]
pub struct Absent(Vec<Wanted>);

impl Absent {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, wanted| sum.saturating_add(wanted.object.size))
    }

    /// Some of their files, for messages.
    pub fn paths(&self) -> String {
        let paths: Vec<String> = self.0.iter().flat_map(|one| one.paths.clone()).collect();
        problem::listed(&paths)
    }
}

/// The objects of `files` that a mirror has not got. Without its lock.
///
/// # Errors
/// [`Problem::Contradiction`].
pub fn absent(mirror: &Path, files: &[LfsFile]) -> Result<Absent, Failure> {
    let mut absent = needed(files)?;
    absent.retain(|wanted| !store::holds(mirror, wanted.object));
    Ok(Absent(absent))
}

/// Whether what a file holds is this object; it is read, not followed.
///
/// # Errors
/// It cannot be read.
pub fn is_in(file: &Path, object: Object, interrupt: &Interrupt) -> std::io::Result<bool> {
    let about = fs_err::symlink_metadata(file)?;
    if !about.is_file() || about.len() != object.size {
        return Ok(false);
    }
    store::is_right(file, object, interrupt).map_err(std::io::Error::other)
}

/// Each object once.
fn needed(files: &[LfsFile]) -> Result<Vec<Wanted>, Problem> {
    let mut by_id: BTreeMap<ObjectId, Wanted> = BTreeMap::new();
    for LfsFile { path, object } in files {
        let path = path.to_string_lossy().into_owned();
        match by_id.entry(object.oid) {
            Entry::Vacant(place) => {
                place.insert(Wanted { object: *object, paths: vec![path] });
            }
            Entry::Occupied(known) if known.get().object == *object => {
                known.into_mut().paths.push(path);
            }
            Entry::Occupied(known) => {
                let named = known.get().named();
                return Err(Problem::Contradiction { named, other: path });
            }
        }
    }
    Ok(by_id.into_values().collect())
}

impl Mirror {
    /// Notes that `commit` needs the objects of `files`, and says which are not here.
    ///
    /// # Errors
    /// [`Problem::Contradiction`], [`Failure::File`], [`Failure::DiskFull`].
    pub fn lfs_absent(&self, commit: Revision, files: &[LfsFile]) -> Result<Absent, Failure> {
        let needed = needed(files)?;
        let objects: Vec<Object> = needed.iter().map(|wanted| wanted.object).collect();
        store::note(&self.path, commit, &objects)?;
        for empty in objects.iter().filter(|object| object.size == 0) {
            // Nothing has to come; one that should be something else is asked for.
            if !store::holds(&self.path, *empty) {
                Partial::open(&self.path, *empty, &|| Ok(()))?.finish()?;
            }
        }
        absent(&self.path, files)
    }

    /// Takes what it can of these from other mirrors of `source` below `mirrors`, without a
    /// second copy on the disk.
    ///
    /// # Errors
    /// [`Failure::File`], [`Failure::DiskFull`].
    pub fn lfs_take_over(
        &self,
        absent: &mut Absent,
        source: &RepoUrl,
        mirrors: &Path,
    ) -> Result<(), Failure> {
        let source = source.to_string();
        let mut left = std::mem::take(&mut absent.0);
        // One that has been taken by another thread meanwhile is here already.
        left.retain(|wanted| !store::holds(&self.path, wanted.object));
        for lender in super::share::with_lfs(mirrors, &self.path, &source) {
            let mut still = Vec::new();
            for wanted in left {
                if !store::take(&self.path, &lender, wanted.object)? {
                    still.push(wanted);
                }
            }
            left = still;
            if left.is_empty() {
                break;
            }
        }
        absent.0 = left;
        Ok(())
    }

    /// Bytes that are still to come, of these.
    pub fn lfs_to_come(&self, absent: &Absent) -> u64 {
        let begun = store::bytes_begun(&self.path, absent.0.iter().map(|wanted| &wanted.object));
        absent.bytes().saturating_sub(begun)
    }

    /// Downloads these objects; answers how many bytes came. What came is kept whatever happens,
    /// and continued the next time.
    ///
    /// # Errors
    /// Any [`Failure`] of the network, the servers or the disk.
    pub fn lfs_fetch(
        &self,
        absent: &Absent,
        server: &Server<'_>,
        ways: &Ways<'_>,
        progress: &Telling<'_>,
    ) -> Result<u64, Failure> {
        let fetched = match server {
            Server::Batch(remote) => {
                let headers = ureq::http::HeaderMap::new();
                let endpoint = Endpoint { url: remote.url.clone(), headers };
                Transfer::new(&self.path, &endpoint, remote, ways, progress).bring(&absent.0)
            }
            Server::Repository(remote) => match &remote.url {
                RepoUrl::File(path) => self.copy(absent, path, remote),
                _ => self.by_ssh(absent, remote, ways, progress),
            },
        };
        // Also of a failed one: what is whole counts as here the next time.
        let synced = fs_err::File::open(&self.path)
            .and_then(|directory| nix::unistd::syncfs(directory).map_err(Into::into))
            .map_err(|error| Failure::file("sync", &self.path, error));
        let bytes = fetched?;
        synced?;
        Ok(bytes)
    }

    fn by_ssh(
        &self,
        absent: &Absent,
        remote: &Remote,
        ways: &Ways<'_>,
        progress: &Telling<'_>,
    ) -> Result<u64, Failure> {
        let begun = std::time::Instant::now();
        let endpoint = authenticate(remote, &|one| progress(one))?;
        let way = ways(&endpoint.url)?;
        let mut limits = remote.limits;
        limits.total = limits.total.saturating_sub(begun.elapsed());
        let server = Remote { url: endpoint.url.clone(), credential: None, limits, ..way };
        Transfer::new(&self.path, &endpoint, &server, ways, progress).bring(&absent.0)
    }

    /// From a repository on this host, where git-lfs would have them.
    fn copy(&self, absent: &Absent, from: &Path, remote: &Remote) -> Result<u64, Failure> {
        let url = || RepoUrl::File(from.to_owned());
        let there = local::open(from)?;
        let mut bytes = 0;
        for wanted in &absent.0 {
            let go_on = || match remote.interrupt.signal() {
                Some(signal) => Err(Failure::Interrupted(signal)),
                None => Ok(()),
            };
            let file = path(there.path(), wanted.object.oid);
            if !store::holds(there.path(), wanted.object) {
                return Err(Problem::NotLocal { url: url(), named: wanted.named() }.into());
            }
            let mut partial = Partial::open(&self.path, wanted.object, &go_on)?;
            partial.clear()?;
            let unread = |error| Failure::file("read", &file, error);
            let mut source = fs_err::File::open(&file).map_err(unread)?;
            let mut piece = vec![0; partial::PIECE];
            loop {
                go_on()?;
                let count = std::io::Read::read(&mut source, &mut piece).map_err(unread)?;
                if count == 0 || !partial.add(&piece[..count])? {
                    break;
                }
                bytes += count as u64;
            }
            if let End::Other(found, _) = partial.finish()? {
                return Err(Problem::Content { from: url(), named: wanted.named(), found }.into());
            }
        }
        Ok(bytes)
    }

    /// Reads the objects of these files, and forgets those that are not what they should be.
    ///
    /// # Errors
    /// [`Failure::File`], [`Failure::Interrupted`].
    pub fn lfs_forget_damaged(
        &self,
        files: &[LfsFile],
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        for wanted in needed(files)? {
            let file = path(&self.path, wanted.object.oid);
            if !store::is_right(&file, wanted.object, interrupt)? {
                store::remove(&file)?;
            }
        }
        Ok(())
    }
}

/// Asks where one of these files' objects is, and does not download it: answers the server that
/// knew it. `mirror` need not be locked.
///
/// # Errors
/// As [`Mirror::lfs_fetch`].
pub fn ask(
    mirror: &Path,
    file: &LfsFile,
    server: &Server<'_>,
    ways: &Ways<'_>,
) -> Result<RepoUrl, Failure> {
    let wanted = needed(std::slice::from_ref(file))?;
    let quiet = |_: Progress| {};
    let (endpoint, remote) = match server {
        Server::Batch(remote) => {
            let headers = ureq::http::HeaderMap::new();
            (Endpoint { url: remote.url.clone(), headers }, (*remote).clone())
        }
        Server::Repository(remote) => {
            if let RepoUrl::File(path) = &remote.url {
                let there = local::open(path)?;
                return match wanted.iter().find(|one| !store::holds(there.path(), one.object)) {
                    None => Ok(remote.url.clone()),
                    Some(one) => {
                        let (url, named) = (remote.url.clone(), one.named());
                        Err(Problem::NotLocal { url, named }.into())
                    }
                };
            }
            let endpoint = authenticate(remote, &quiet)?;
            let way = ways(&endpoint.url)?;
            let url = endpoint.url.clone();
            (endpoint, Remote { url, credential: None, limits: remote.limits, ..way })
        }
    };
    Transfer::new(mirror, &endpoint, &remote, ways, &quiet).find(&wanted)?;
    Ok(endpoint.url)
}

/// Asks an SSH server where the objects of its repository are, and with what.
fn authenticate(remote: &Remote, progress: &dyn Fn(Progress)) -> Result<Endpoint, Failure> {
    let watch = Watch::start(remote);
    let wrong = |what: String| Problem::Authenticate { url: remote.url.clone(), what };
    retry::retrying(&watch, remote.limits.pause, progress, || {
        let program = ("git-lfs-authenticate", "download");
        let printed = ssh::run(remote, &watch, progress, program, LONGEST)?;
        if printed.status != 0 {
            let words = if printed.words.is_empty() {
                String::new()
            } else {
                format!(" and says: {}", printed.words)
            };
            let text = format!("`git-lfs-authenticate` ends with {}{words}", printed.status);
            return Err(wrong(text).into());
        }
        endpoint::authenticated(&printed.stdout)
            .map_err(|what| wrong(format!("what `git-lfs-authenticate` answers: {what}")).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_is_wanted_once_and_in_one_size() {
        let file = |path: &str, byte: u8, size: u64| LfsFile {
            path: path.into(),
            object: Object { oid: ObjectId::new([byte; 32]), size },
        };
        let files = [file("a", 1, 10), file("b", 2, 5), file("c", 1, 10)];
        let needed = needed(&files).unwrap();
        assert_eq!(needed.len(), 2);
        assert_eq!(needed[0].paths, ["a", "c"]);
        let absent = Absent(needed);
        assert_eq!((absent.count(), absent.bytes()), (2, 15));
        assert_eq!(absent.paths(), "`a`, `c`, `b`");
        let problem = super::needed(&[file("a", 1, 10), file("b", 1, 11)]).unwrap_err();
        assert!(problem.to_string().contains("do not agree"), "{problem}");
        let huge = [file("a", 1, u64::MAX), file("b", 2, u64::MAX)];
        assert_eq!(Absent(super::needed(&huge).unwrap()).bytes(), u64::MAX);
    }
}
