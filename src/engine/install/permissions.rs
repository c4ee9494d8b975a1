//! Which of the planned paths each entry of `permissions` is about.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Request;
use super::conflict::Conflict;
use super::look::{Look, There};
use super::plan::{How, Plan, Step, absolute};
use crate::engine::appspec::{Ace, Context, Mode, Permission, Principal, matches_simple_glob};

/// What an entry sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    /// As declared, and as number.
    pub(super) owner: Option<(String, u32)>,
    pub(super) group: Option<(String, u32)>,
    pub(super) mode: Option<Mode>,
    pub(super) acls: Option<Vec<Ace>>,
    pub(super) context: Option<Context>,
}

/// Rights for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// The path that the entry matched.
    pub(super) file: Rc<Path>,
    /// Where it is set: not the same if `file` is a link of this deployment.
    pub(super) target: Rc<Path>,
    /// An index into [`Plan::rights`].
    pub(super) rights: usize,
    /// The target may itself be a link, namely one that was there and was written through.
    pub(super) follow: bool,
    /// Owner and mode were set when the file was made.
    pub(super) early: bool,
}

pub(super) fn assign(
    request: &Request<'_>,
    look: &dyn Look,
    plan: &mut Plan,
    conflicts: &mut Vec<Conflict>,
) {
    let mut first_lines: HashMap<Rc<Path>, u32> = HashMap::new();
    for entry in &request.appspec.permissions {
        let object = absolute(Path::new(entry.object.trim()), request.cwd);
        let targets = match targets(entry, &object, look, plan) {
            Ok(targets) => targets,
            Err(conflict) => {
                conflicts.push(conflict);
                continue;
            }
        };
        let Some(first) = targets.first() else { continue };
        let rights = rights(entry, first, look, conflicts);
        let has_default = entry.acls.iter().flatten().any(|ace| ace.default);
        plan.rights.push(rights);
        let rights = plan.rights.len() - 1;
        for file in targets {
            if let Some(line) = first_lines.insert(Rc::clone(&file), entry.at.line) {
                let (first, second) = (line, entry.at.line);
                conflicts.push(Conflict::TwoPermissions {
                    path: file.to_path_buf(),
                    first,
                    second,
                });
                continue;
            }
            match access(file, rights, look, plan) {
                Ok(access) => {
                    if has_default && !plan.makes_directory(&access.target) {
                        conflicts.push(Conflict::DefaultAclForFile(access.file.to_path_buf()));
                    }
                    plan.access.push(access);
                }
                Err(conflict) => conflicts.push(conflict),
            }
        }
    }
    set_early(plan);
}

/// The paths, files first.
fn targets(
    entry: &Permission,
    object: &Path,
    look: &dyn Look,
    plan: &Plan,
) -> Result<Vec<Rc<Path>>, Conflict> {
    match plan.step(object) {
        Some(Step::Copy { destination, .. }) => {
            if !entry.files {
                return Ok(Vec::new());
            }
            if entry.pattern.is_some() || !entry.except.is_empty() {
                return Err(Conflict::PatternForFile(object.to_owned()));
            }
            return Ok(vec![Rc::clone(destination)]);
        }
        Some(Step::Mkdir(_)) => {}
        None if look.there(object) == There::Directory => {}
        None => return Ok(Vec::new()),
    }
    let below = |path: &&Rc<Path>| {
        let rest = path.strip_prefix(object).ok().and_then(Path::to_str);
        rest.is_some_and(|rest| !rest.is_empty() && matches(entry, rest))
    };
    let files = plan.steps.iter().filter(|s| entry.files && matches!(s, Step::Copy { .. }));
    let directories =
        plan.steps.iter().filter(|s| entry.directories && matches!(s, Step::Mkdir(_)));
    Ok(files.chain(directories).map(Step::made).filter(below).map(Rc::clone).collect())
}

fn matches(entry: &Permission, rest: &str) -> bool {
    entry.pattern.as_ref().is_none_or(|pattern| matches_simple_glob(pattern, rest))
        && !entry.except.iter().any(|pattern| matches_simple_glob(pattern, rest))
}

/// Looks the accounts up. Called only for entries that are about something.
fn rights(
    entry: &Permission,
    first: &Path,
    look: &dyn Look,
    conflicts: &mut Vec<Conflict>,
) -> Rights {
    let path = first.to_path_buf();
    let mut account = |principal: &Principal, is_user: bool| {
        let name = principal.to_string();
        let id = match principal {
            Principal::Id(id) => Some(*id),
            Principal::Name(name) if is_user => look.user(name),
            Principal::Name(name) => look.group(name),
        };
        if id.is_none() {
            let (name, path) = (name.clone(), path.clone());
            conflicts.push(if is_user {
                Conflict::NoUser { name, path }
            } else {
                Conflict::NoGroup { name, path }
            });
        }
        (name, id.unwrap_or_default())
    };
    let owner = entry.owner.as_ref().map(|owner| account(owner, true));
    let group = entry.group.as_ref().map(|group| account(group, false));
    let mut need = |program, what| {
        let conflict = Conflict::NoProgram { program, what };
        if !look.has_program(program) && !conflicts.contains(&conflict) {
            conflicts.push(conflict);
        }
    };
    if entry.acls.is_some() {
        need("setfacl", "acls");
    }
    if entry.context.is_some() {
        need("semanage", "context");
        need("restorecon", "context");
    }
    Rights {
        owner,
        group,
        mode: entry.mode.clone(),
        acls: entry.acls.clone(),
        context: entry.context.clone(),
    }
}

fn access(file: Rc<Path>, rights: usize, look: &dyn Look, plan: &Plan) -> Result<Access, Conflict> {
    let (target, follow) = match plan.step(&file) {
        Some(Step::Copy { how: How::Link, .. }) => (link_target(&file, look, plan)?, false),
        Some(Step::Copy { how: How::InPlace, .. }) => (Rc::clone(&file), true),
        _ => (Rc::clone(&file), false),
    };
    Ok(Access { file, target, rights, follow, early: false })
}

/// How many links may follow each other, as for the kernel.
const LINKS: usize = 40;

/// Where a link that will be made leads: to something else that will be made.
fn link_target(link: &Rc<Path>, look: &dyn Look, plan: &Plan) -> Result<Rc<Path>, Conflict> {
    let mut at = Rc::clone(link);
    for _ in 0..LINKS {
        let Some(Step::Copy { source, how: How::Link, .. }) = plan.step(&at) else {
            return Ok(at);
        };
        let directory = at.parent().unwrap_or(Path::new("/"));
        let text = look.link_text(source).unwrap_or_default();
        let next: PathBuf = absolute(&text, directory);
        match plan.step(&next) {
            Some(step) => at = Rc::clone(step.made()),
            None => {
                return Err(match look.there(&next) {
                    There::Nothing | There::DanglingLink => {
                        Conflict::DanglingLink(link.to_path_buf())
                    }
                    There::ForeignLink | There::File | There::Directory | There::Special => {
                        Conflict::LinkOut { path: link.to_path_buf(), target: next }
                    }
                });
            }
        }
    }
    Err(Conflict::DanglingLink(link.to_path_buf()))
}

/// New files get owner and mode before they appear under their names, so that nobody sees a
/// secret for a moment. Not those that links lead to: there the order of entries counts.
fn set_early(plan: &mut Plan) {
    let through_links: HashSet<Rc<Path>> = plan
        .access
        .iter()
        .filter(|access| access.file != access.target)
        .map(|access| Rc::clone(&access.target))
        .collect();
    let mut all = std::mem::take(&mut plan.access);
    for access in &mut all {
        if through_links.contains(&access.target) {
            continue;
        }
        if let Some(Step::Copy { how: How::New, rights, .. }) = plan.step_mut(&access.target) {
            *rights = Some(access.rights);
            access.early = true;
        }
    }
    plan.access = all;
}
