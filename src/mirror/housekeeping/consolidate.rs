//! Many packs into one.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{Odb, Oid, Repository};

use super::needed::{self, Needed};
use super::{LOOSE, MOST_PACKS, PACKS, Tidied, Until, file};
use crate::mirror::pack::{Head, Pack, Writer};
use crate::mirror::{Failure, objects, repository};

/// Where the new pack is written: below `objects`, so that it can be renamed.
const WORKSHOP: &str = "tmp_housekeeping";
/// A pack that is at least this large stays as it is if it is much larger than what is smaller:
/// so what a deployment brings is put together with what the last ones brought, not with all.
const LARGE: u64 = 1 << 20;
/// From this size on it stays where several mirrors share it, whatever the others are: to copy
/// it would take up its room a second time.
const LARGE_AND_SHARED: u64 = 32 << 20;
/// An object is not made a difference to a difference to … more often than this: each costs
/// when it is read.
const LONGEST_CHAIN: u32 = 40;

/// What a mirror's objects are in.
pub(super) struct Place {
    /// The largest first.
    pub packs: Vec<Pack>,
    pub loose: Vec<Loose>,
}

/// An object in a file of its own.
pub(super) struct Loose {
    path: PathBuf,
    bytes: u64,
}

/// Whether so much has come together that it is worth the effort: looked at from outside.
pub(super) fn is_much(repository: &Repository) -> Result<bool, Failure> {
    let mut packs = Vec::new();
    for index in indexes(repository)? {
        let pack = index.with_extension("pack");
        let about = fs_err::metadata(&pack).map_err(file("look at", &pack))?;
        packs.push((about.len(), about.nlink()));
    }
    packs.sort_unstable_by(|a, b| b.cmp(a));
    let mut rest: u64 = packs.iter().map(|(size, _)| size).sum();
    let go = packs.iter().filter(|(size, links)| {
        rest -= size;
        !stays(*size, *links, rest)
    });
    Ok(go.count() > PACKS || packs.len() > MOST_PACKS || loose(repository).len() > LOOSE)
}

/// Whether a pack of this size stays as it is; `rest` is the size of all that are smaller.
fn stays(size: u64, links: u64, rest: u64) -> bool {
    size >= LARGE && size >= 2 * rest || size >= LARGE_AND_SHARED && links > 1
}

/// The indexes of all packs.
fn indexes(repository: &Repository) -> Result<Vec<PathBuf>, Failure> {
    let directory = repository.path().join("objects/pack");
    let mut found = Vec::new();
    for entry in fs_err::read_dir(&directory).map_err(file("read", &directory))? {
        let path = entry.map_err(file("read", &directory))?.path();
        // An index without pack is what a run left that was killed.
        if path.extension().is_some_and(|kind| kind == "idx")
            && path.with_extension("pack").exists()
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn loose(repository: &Repository) -> Vec<Loose> {
    let mut found = Vec::new();
    let objects = repository.path().join("objects");
    for entry in walkdir::WalkDir::new(&objects).min_depth(2).max_depth(2) {
        let Ok(entry) = entry else { continue };
        let parent = entry.path().parent().and_then(Path::file_name);
        let parts = (parent.and_then(|name| name.to_str()), entry.file_name().to_str());
        let (Some(start), Some(rest)) = parts else { continue };
        if start.len() == 2 && Oid::from_str(&(start.to_owned() + rest)).is_ok() {
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            found.push(Loose { path: entry.into_path(), bytes });
        }
    }
    found
}

impl Place {
    /// Looks at what is there.
    pub(super) fn open(repository: &Repository) -> Result<Self, Failure> {
        let mut packs = Vec::new();
        for index in indexes(repository)? {
            packs.push(Pack::open(&index).map_err(unreadable(repository, &index))?);
        }
        packs.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
        Ok(Self { packs, loose: loose(repository) })
    }

    /// Of everything.
    pub(super) fn bytes(&self) -> u64 {
        self.packs.iter().map(Pack::bytes).sum::<u64>()
            + self.loose.iter().map(|loose| loose.bytes).sum::<u64>()
    }
}

/// Removes what a killed run left.
pub(in crate::mirror) fn sweep(mirror: &Path) -> Result<(), Failure> {
    let workshop = mirror.join("objects").join(WORKSHOP);
    match fs_err::remove_dir_all(&workshop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove the leftover", &workshop, error))
        }
        _ => Ok(()),
    }
}

fn unreadable(repository: &Repository, pack: &Path) -> impl Fn(io::Error) -> Failure {
    let (mirror, pack) = (repository.path().to_owned(), pack.to_owned());
    move |error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Failure::Damaged {
            path: mirror.clone(),
            detail: format!("`{}`: {error}", pack.display()),
        },
        _ => Failure::file("read", &pack, error),
    }
}

/// Puts what is needed into one pack beside those that stay as they are, and removes the
/// others.
pub(super) fn consolidate(
    repository: &Repository,
    place: Place,
    until: &Until<'_>,
    tidied: &mut Tidied,
) -> Result<(), Failure> {
    let given_up = |tidied: &mut Tidied| {
        tidied.given_up = true;
        Ok(())
    };
    sweep(repository.path())?;
    let Some(needed) = needed::find(repository, until)? else { return given_up(tidied) };
    let (stay, go) = divide(place.packs, &needed);
    let plan = Plan::new(repository, &stay, &go, &needed)?;
    // The same again would be no gain.
    let same = go.len() == 1 && place.loose.is_empty() && plan.objects.len() == go[0].count();
    if same || (go.is_empty() && place.loose.is_empty()) {
        return drop_boundary(repository, &needed);
    }
    let objects = repository.path().join("objects");
    let workshop = objects.join(WORKSHOP);
    let new = match make(repository, &plan, &go, &workshop, until) {
        Ok(Made::Pack(index)) => Some(put_in_place(&index, &objects.join("pack"))?),
        Ok(Made::Nothing) => None,
        other => {
            // What stays is swept the next time; the failure is what matters.
            let _ = sweep(repository.path());
            return other.and_then(|_| given_up(tidied));
        }
    };
    sweep(repository.path())?;
    drop_boundary(repository, &needed)?;
    let go: Vec<_> = go.into_iter().filter(|pack| Some(&pack.path) != new.as_ref()).collect();
    remove(&objects, &go, &place.loose)?;
    let refreshed = repository.odb().and_then(|odb| odb.refresh());
    refreshed.map_err(|error| Failure::git("reading", repository.path(), error))?;
    let after = Place::open(repository)?;
    tidied.packs.1 = after.packs.len();
    tidied.bytes.1 = after.bytes();
    Ok(())
}

/// Which packs stay as they are, because they are large and of use, and which are put together.
fn divide(packs: Vec<Pack>, needed: &Needed) -> (Vec<Pack>, Vec<Pack>) {
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    let mut rest: u64 = packs.iter().map(|pack| pack.size).sum();
    for pack in packs {
        rest -= pack.size;
        let kept_by_hand = pack.path.with_extension("keep").exists();
        let large = stays(pack.size, pack.links, rest);
        let used = || {
            let used = pack.in_order().filter(|at| needed.objects.contains(&pack.id(*at)));
            used.map(|at| pack.length(at)).sum::<u64>() * 2 >= pack.size
        };
        if kept_by_hand || (large && used()) { stay.push(pack) } else { go.push(pack) }
    }
    (stay, go)
}

/// What the new pack is made of; what an object is a difference to comes before it.
struct Plan {
    objects: Vec<Planned>,
}

struct Planned {
    id: Oid,
    from: From,
}

enum From {
    /// A pack, the number in it, and which object of the plan it is a difference to.
    Pack { pack: usize, number: usize, head: Head, base: Option<usize> },
    /// To be unpacked, and packed by itself.
    Anew,
}

/// Where an object is: the pack, and its number there.
type At = (usize, usize);

impl Plan {
    fn new(
        repository: &Repository,
        stay: &[Pack],
        go: &[Pack],
        needed: &Needed,
    ) -> Result<Self, Failure> {
        // The first that has it: so no two are differences to each other.
        let mut places: HashMap<Oid, At> = HashMap::new();
        let mut order: Vec<At> = Vec::new();
        let stays = |id: Oid| stay.iter().any(|pack| pack.find(id).is_some());
        for (pack, from) in go.iter().enumerate() {
            for number in from.in_order() {
                let id = from.id(number);
                if needed.objects.contains(&id) && !places.contains_key(&id) && !stays(id) {
                    places.insert(id, (pack, number));
                    order.push((pack, number));
                }
            }
        }
        let most = go.iter().map(Pack::count).sum();
        let done = HashMap::new();
        let mut plan = Planner { go, needed, places, done, objects: Vec::new(), most };
        for at in order {
            plan.add(at).map_err(unreadable(repository, &go[at.0].path))?;
        }
        let Planner { places, mut objects, .. } = plan;
        let loose = needed.objects.iter().filter(|id| !places.contains_key(id) && !stays(**id));
        let mut loose: Vec<_> = loose.copied().collect();
        loose.sort_unstable();
        objects.extend(loose.into_iter().map(|id| Planned { id, from: From::Anew }));
        Ok(Self { objects })
    }
}

struct Planner<'a> {
    go: &'a [Pack],
    needed: &'a Needed,
    places: HashMap<Oid, At>,
    /// The number in the plan, and how long the chain of differences is.
    done: HashMap<Oid, (usize, u32)>,
    objects: Vec<Planned>,
    /// Objects in all packs: a longer chain is a circle.
    most: usize,
}

impl Planner<'_> {
    /// Adds an object, and before it what it is a difference to.
    fn add(&mut self, at: At) -> io::Result<()> {
        let mut chain = Vec::new();
        let mut at = at;
        let mut base = None;
        loop {
            let (pack, number) = at;
            let id = self.go[pack].id(number);
            if let Some(done) = self.done.get(&id) {
                base = Some(*done);
                break;
            }
            let head = self.go[pack].head(number)?;
            chain.push((id, at, head));
            if chain.len() > self.most {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "objects in a circle"));
            }
            let Some(next) = head.base else { break };
            let next_id = self.go[pack].id(next);
            if !self.needed.objects.contains(&next_id) {
                break;
            }
            // One that is in a pack that stays is needed here, too: each pack is whole.
            at = *self.places.entry(next_id).or_insert((pack, next));
        }
        for (id, (pack, number), head) in chain.into_iter().rev() {
            let length = base.map_or(0, |(_, length)| length + 1);
            let whole = head.base.is_none();
            let from = if whole || (base.is_some() && length <= LONGEST_CHAIN) {
                let base = base.filter(|_| !whole).map(|(number, _)| number);
                From::Pack { pack, number, head, base }
            } else {
                From::Anew
            };
            let length = match from {
                From::Pack { base: Some(_), .. } => length,
                From::Pack { base: None, .. } | From::Anew => 0,
            };
            let done = (self.objects.len(), length);
            self.done.insert(id, done);
            self.objects.push(Planned { id, from });
            base = Some(done);
        }
        Ok(())
    }
}

/// What came of writing the new pack.
enum Made {
    /// Its index.
    Pack(PathBuf),
    /// Nothing is needed.
    Nothing,
    /// It took too long.
    TooLate,
}

/// Writes the pack and reads all of it again.
fn make(
    repository: &Repository,
    plan: &Plan,
    go: &[Pack],
    workshop: &Path,
    until: &Until<'_>,
) -> Result<Made, Failure> {
    if plan.objects.is_empty() {
        return Ok(Made::Nothing);
    }
    let git = |error| Failure::git("putting packs together", repository.path(), error);
    let directory = workshop.join("pack");
    fs_err::create_dir_all(&directory).map_err(file("make the directory", &directory))?;
    let store = repository.odb().map_err(git)?;
    let mut writer =
        Writer::new(&directory, plan.objects.len()).map_err(file("write below", &directory))?;
    let mut places = Vec::with_capacity(plan.objects.len());
    for planned in &plan.objects {
        if until.over() {
            return Ok(Made::TooLate);
        }
        let place = match &planned.from {
            From::Pack { pack, number, head, base } => {
                let base = base.map(|base| places[base]);
                writer
                    .copy(&go[*pack], *number, head, base)
                    .map_err(unreadable(repository, &go[*pack].path))?
            }
            From::Anew => {
                let object = objects::read(&store, planned.id).map_err(git)?;
                let written = writer.add(planned.id, object.kind(), object.data());
                written.map_err(file("write below", &directory))?
            }
        };
        places.push(place);
    }
    let index = writer.finish().map_err(file("write below", &directory))?;
    // libgit2 reads the new pack, and nothing else, and every id is computed anew.
    let alone = Odb::new().map_err(git)?;
    alone.add_disk_alternate(&workshop.to_string_lossy()).map_err(git)?;
    for planned in &plan.objects {
        if until.over() {
            return Ok(Made::TooLate);
        }
        objects::read(&alone, planned.id).map_err(git)?;
    }
    Ok(Made::Pack(index))
}

/// Gives the new pack its place, durably; the index last: a pack counts once that is there.
fn put_in_place(made: &Path, packs: &Path) -> Result<PathBuf, Failure> {
    let target = packs.join(made.file_name().unwrap_or_default());
    for kind in ["pack", "idx"] {
        let (from, to) = (made.with_extension(kind), target.with_extension(kind));
        fs_err::rename(from, &to).map_err(file("put in place", &to))?;
    }
    let synced = fs_err::File::open(packs).and_then(|directory| directory.sync_all());
    synced.map_err(file("sync", packs))?;
    Ok(target)
}

/// Drops the lines of commits that no ref leads to.
fn drop_boundary(repository: &Repository, needed: &Needed) -> Result<(), Failure> {
    let list = repository::shallow(repository)?;
    let kept: Vec<_> = needed.boundary.iter().copied().collect();
    if kept.len() == list.len() { Ok(()) } else { repository::set_shallow(repository, &kept) }
}

/// Removes old packs, and objects in files of their own.
fn remove(objects: &Path, packs: &[Pack], loose: &[Loose]) -> Result<(), Failure> {
    let gone = |path: &Path| match fs_err::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, error))
        }
        _ => Ok(()),
    };
    // They speed up what is gone.
    gone(&objects.join("pack/multi-pack-index"))?;
    for pack in packs {
        // The index first: without it the pack does not count.
        for kind in ["idx", "rev", "bitmap", "pack"] {
            gone(&pack.path.with_extension(kind))?;
        }
    }
    for one in loose {
        gone(&one.path)?;
        // Fails as long as others are in it.
        let _ = one.path.parent().map(fs_err::remove_dir);
    }
    // One without the other is what a run left that was killed in here.
    let directory = objects.join("pack");
    let names: HashSet<PathBuf> = fs_err::read_dir(&directory)
        .map_err(file("read", &directory))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    for path in &names {
        let other = match path.extension().and_then(|kind| kind.to_str()) {
            Some("pack") => "idx",
            Some("idx") => "pack",
            _ => continue,
        };
        if !names.contains(&path.with_extension(other)) {
            gone(path)?;
        }
    }
    Ok(())
}
