//! `GROUP-install.json`: what will be done, for people and for the agent's habits. No
//! deployment reads it back.

use std::path::Path;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::plan::{Plan, Step};
use super::{Error, replace};
use crate::engine::appspec::full_acl;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Instruction<'a> {
    Mkdir { directory: &'a str },
    Copy { source: &'a str, destination: &'a str },
    Chmod { mode: &'a str, file: &'a str },
    Chown { owner: Option<&'a str>, group: Option<&'a str>, file: &'a str },
    Setfacl { acl: Vec<String>, file: &'a str },
    Semanage { context: Context<'a>, file: &'a str },
}

#[derive(Serialize)]
struct Context<'a> {
    user: Option<&'a str>,
    role: Option<&'a str>,
    r#type: &'a str,
    range: Option<&'a str>,
}

struct All<'a>(&'a Plan);

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("instructions", &List(self.0))?;
        map.end()
    }
}

struct List<'a>(&'a Plan);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plan = self.0;
        let mut list = serializer.serialize_seq(None)?;
        for step in &plan.steps {
            let made = step.made().to_string_lossy();
            match step {
                Step::Mkdir(_) => {
                    list.serialize_element(&Instruction::Mkdir { directory: &made })?;
                }
                Step::Copy { source, .. } => {
                    let source = &*source.to_string_lossy();
                    list.serialize_element(&Instruction::Copy { source, destination: &made })?;
                }
            }
        }
        for access in &plan.access {
            let Some(rights) = plan.rights.get(access.rights) else { continue };
            let file = &*access.file.to_string_lossy();
            if rights.owner.is_some() || rights.group.is_some() {
                let owner = rights.owner.as_ref().map(|o| o.0.as_str());
                let group = rights.group.as_ref().map(|g| g.0.as_str());
                list.serialize_element(&Instruction::Chown { owner, group, file })?;
            }
            if let Some(mode) = &rights.mode {
                list.serialize_element(&Instruction::Chmod { mode: &mode.text, file })?;
            }
            if let Some(acls) = &rights.acls {
                let acl = match &rights.mode {
                    Some(mode) => full_acl(acls, mode.bits),
                    None => acls.clone(),
                };
                let acl = acl.iter().map(ToString::to_string).collect();
                list.serialize_element(&Instruction::Setfacl { acl, file })?;
            }
            if let Some(context) = &rights.context {
                let context = Context {
                    user: context.user.as_deref(),
                    role: None,
                    r#type: &context.kind,
                    range: context.range.as_deref(),
                };
                list.serialize_element(&Instruction::Semanage { context, file })?;
            }
        }
        list.end()
    }
}

/// Writes the file.
pub(super) fn write(path: &Path, plan: &Plan) -> Result<(), Error> {
    replace(path, |out| serde_json::to_writer(out, &All(plan)).map_err(Into::into))
}
