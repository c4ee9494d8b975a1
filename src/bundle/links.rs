//! What a symbolic link in a bundle would lead to once codedeploy-local has installed it.
//!
//! A link to a file, and a dangling one, is installed as the link it is. A link to a
//! directory is *followed*: what it leads to is copied in its place, links to directories
//! in there again. So a link that leads back to where one came from never ends, and a few
//! levels of links that each lead to the next one twice fill a disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// Links followed before a path counts as a loop; the kernel's number.
const MOST_LINKS: usize = 40;
/// Copies of directories that all links together may cause.
const MOST_COPIES: u64 = 10_000;

/// Where a link leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    /// To a file of the bundle.
    File,
    /// To a directory of the bundle, with its path.
    Directory(PathBuf),
    /// To a directory that the link itself is in, directly or by way of other links.
    Back,
    /// To nothing.
    Nowhere,
    /// Out of the bundle.
    Out,
}

/// What is known of a path of the bundle that is not a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Absent,
}

/// Where each link leads. `links` are paths below the bundle's root with their targets;
/// `kind` says what a path below the root is whose parents are no links.
pub(super) fn leads(
    links: &[(PathBuf, PathBuf)],
    kind: &dyn Fn(&Path) -> Kind,
) -> Vec<(PathBuf, Leads)> {
    let by_path: BTreeMap<&Path, &Path> =
        links.iter().map(|(path, target)| (path.as_path(), target.as_path())).collect();
    let mut all: Vec<(PathBuf, Leads)> = links
        .iter()
        .map(|(path, target)| (path.clone(), one(path, target, &by_path, kind)))
        .collect();
    let endless = endless(&all);
    for (_, leads) in all.iter_mut().filter(|(path, _)| endless.contains(path)) {
        *leads = Leads::Back;
    }
    all
}

fn one(
    path: &Path,
    target: &Path,
    links: &BTreeMap<&Path, &Path>,
    kind: &dyn Fn(&Path) -> Kind,
) -> Leads {
    let mut at = path.parent().unwrap_or(Path::new("")).to_owned();
    // What is still to be walked, the next part last.
    let mut rest: Vec<PathBuf> = parts(target);
    let mut followed = 0;
    while let Some(part) = rest.pop() {
        match part.components().next() {
            Some(Component::Normal(name)) => at.push(name),
            Some(Component::ParentDir) => {
                if !at.pop() {
                    return Leads::Out;
                }
            }
            Some(Component::CurDir) | None => {}
            Some(Component::RootDir | Component::Prefix(_)) => return Leads::Out,
        }
        if let Some(target) = links.get(at.as_path()) {
            followed += 1;
            if followed > MOST_LINKS {
                return Leads::Nowhere;
            }
            at.pop();
            rest.extend(parts(target));
        } else if !rest.is_empty() && kind(&at) != Kind::Directory {
            // Whatever follows, `..` included: the kernel does not get past this.
            return Leads::Nowhere;
        }
    }
    match kind(&at) {
        _ if path.starts_with(&at) => Leads::Back,
        Kind::File => Leads::File,
        Kind::Directory => Leads::Directory(at),
        Kind::Absent => Leads::Nowhere,
    }
}

/// The parts of a path, last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

/// The links to directories from which one comes back to them, or which together would
/// be copied too often.
fn endless(all: &[(PathBuf, Leads)]) -> BTreeSet<PathBuf> {
    let mut targets: BTreeMap<&Path, &Path> = BTreeMap::new();
    for (path, leads) in all {
        if let Leads::Directory(target) = leads {
            targets.insert(path, target);
        }
    }
    let mut walk = Walk { targets: &targets, copies: HashMap::new(), endless: BTreeSet::new() };
    let mut total: u64 = 0;
    for link in targets.keys() {
        let copies = walk.copies(link, 0);
        total = total.saturating_add(copies);
        if total > MOST_COPIES && walk.endless.is_empty() {
            walk.endless.insert((*link).to_owned());
        }
    }
    walk.endless
}

struct Walk<'a> {
    targets: &'a BTreeMap<&'a Path, &'a Path>,
    /// Directories that following a link makes; `None` while that is being found out.
    copies: HashMap<&'a Path, Option<u64>>,
    endless: BTreeSet<PathBuf>,
}

impl<'a> Walk<'a> {
    fn copies(&mut self, link: &'a Path, depth: usize) -> u64 {
        match self.copies.get(link) {
            Some(Some(copies)) => return *copies,
            Some(None) => {
                self.endless.insert(link.to_owned());
                return 0;
            }
            None => {}
        }
        if depth > MOST_LINKS {
            // The kernel gives up here too, after that many copies inside each other.
            self.endless.insert(link.to_owned());
            return 0;
        }
        self.copies.insert(link, None);
        let mut copies: u64 = 1;
        if let Some(target) = self.targets.get(link) {
            // Below `target` is one range: paths are ordered by their parts.
            let inside: Vec<&'a Path> = self
                .targets
                .range(*target..)
                .map(|(path, _)| *path)
                .take_while(|path| path.starts_with(target))
                .collect();
            for link in inside {
                copies = copies.saturating_add(self.copies(link, depth + 1));
            }
        }
        self.copies.insert(link, Some(copies));
        copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories end with `/`; `a -> b` is a link.
    fn found(tree: &[&str]) -> Vec<(String, Leads)> {
        let mut links = Vec::new();
        let mut files = Vec::new();
        let mut directories = vec![PathBuf::new()];
        for entry in tree {
            let path = match entry.split_once(" -> ") {
                Some((path, target)) => {
                    links.push((PathBuf::from(path), PathBuf::from(target)));
                    Path::new(path)
                }
                None if entry.ends_with('/') => {
                    directories.push(PathBuf::from(entry.trim_end_matches('/')));
                    Path::new(entry)
                }
                None => {
                    files.push(PathBuf::from(entry));
                    Path::new(entry)
                }
            };
            directories.extend(path.ancestors().skip(1).map(Path::to_owned));
        }
        let kind = |path: &Path| {
            if files.iter().any(|file| file == path) {
                Kind::File
            } else if directories.iter().any(|directory| directory == path) {
                Kind::Directory
            } else {
                Kind::Absent
            }
        };
        leads(&links, &kind)
            .into_iter()
            .map(|(path, leads)| (path.display().to_string(), leads))
            .collect()
    }

    #[track_caller]
    fn leads_to(tree: &[&str], expected: &[Leads]) {
        let found: Vec<Leads> = found(tree).into_iter().map(|(_, leads)| leads).collect();
        assert_eq!(found, expected, "{tree:?}");
    }

    #[test]
    fn single_links() {
        let to = |path: &str| Leads::Directory(path.into());
        leads_to(&["a/x -> ../b/f", "b/f"], &[Leads::File]);
        leads_to(&["a/x -> ./../b/", "b/f"], &[to("b")]);
        leads_to(&["x -> b/../b/./f", "b/f"], &[Leads::File]);
        leads_to(&["x -> gone"], &[Leads::Nowhere]);
        leads_to(&["x -> f/../f", "f"], &[Leads::Nowhere]);
        leads_to(&["x -> gone/../f", "f"], &[Leads::Nowhere]);
        leads_to(&["x -> /etc/passwd"], &[Leads::Out]);
        leads_to(&["x -> ../y"], &[Leads::Out]);
        leads_to(&["a/x -> ../../y"], &[Leads::Out]);
        leads_to(&["a/x -> ../a/../../bundle/f", "f"], &[Leads::Out]);
        leads_to(&["x -> ."], &[Leads::Back]);
        leads_to(&["a/b/x -> .."], &[Leads::Back]);
        leads_to(&["a/b/x -> ../.."], &[Leads::Back]);
    }

    #[test]
    fn links_by_way_of_links() {
        let to = |path: &str| Leads::Directory(path.into());
        leads_to(&["x -> y", "y -> f", "f"], &[Leads::File, Leads::File]);
        leads_to(&["x -> d/f", "d -> e", "e/f"], &[Leads::File, to("e")]);
        leads_to(&["x -> d/../f", "d -> e/g", "e/g/", "e/f"], &[Leads::File, to("e/g")]);
        leads_to(&["x -> y", "y -> /etc"], &[Leads::Out, Leads::Out]);
        leads_to(&["x -> y", "y -> x"], &[Leads::Nowhere, Leads::Nowhere]);
        leads_to(&["x -> x"], &[Leads::Nowhere]);
        leads_to(&["x -> d/x", "d -> e", "e/x -> .."], &[Leads::Back, to("e"), Leads::Back]);
    }

    #[test]
    fn circles_and_explosions_are_found() {
        let circle = found(&["a/x -> ../b", "b/y -> ../a"]);
        assert!(circle.iter().any(|(_, leads)| *leads == Leads::Back), "{circle:?}");
        let mut tree: Vec<String> = Vec::new();
        for level in 0..20 {
            for name in ["a", "b", "c"] {
                tree.push(format!("d{level}/{name} -> ../d{}", level + 1));
            }
        }
        tree.push("d20/f".into());
        let tree: Vec<&str> = tree.iter().map(String::as_str).collect();
        let explosion = found(&tree);
        assert_eq!(explosion.iter().filter(|(_, leads)| *leads == Leads::Back).count(), 1);
        // Many links to one place are no circle.
        let many: Vec<String> = (0..500).map(|i| format!("l{i} -> d")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["d/f"]).collect();
        let flat = found(&many);
        assert!(flat.iter().all(|(_, leads)| *leads == Leads::Directory("d".into())));
    }
}
