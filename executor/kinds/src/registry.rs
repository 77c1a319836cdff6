//! The kinds of an executor, by name: those that are built in, and those that its configuration declares.

use std::collections::BTreeMap;

use millrace_common::id::KindName;
use thiserror::Error;

use crate::{
    aoi::Aoi,
    backup::Backup,
    datax::Datax,
    declared::{Declaration, DeclarationError, Declared},
    launch::{Kind, LaunchError},
    shell::Shell,
};

/// The kinds of an executor, by name.
#[derive(Debug, Default)]
pub struct Registry {
    kinds: BTreeMap<KindName, Box<dyn Kind>>,
}

/// Why declared kinds could not be taken over: all that is wrong with all of them.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct DeclareError(pub Vec<DeclarationError>);

impl Registry {
    /// Returns the kinds that every executor has.
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for (name, kind) in builtin_kinds() {
            registry.insert(name, kind);
        }
        registry
    }

    /// Adds a kind; a later one of the same name takes the place of the earlier.
    pub fn insert(&mut self, name: KindName, kind: Box<dyn Kind>) {
        self.kinds.insert(name, kind);
    }

    /// Adds the kinds that the configuration declares.
    ///
    /// # Errors
    /// Says what is wrong with each declaration; none is added then.
    pub fn declare(&mut self, declarations: BTreeMap<KindName, Declaration>) -> Result<(), DeclareError> {
        let mut declared = Vec::new();
        let mut errors = Vec::new();
        for (name, declaration) in declarations {
            if self.kinds.contains_key(&name) {
                errors.push(DeclarationError::BuiltIn(name));
                continue;
            }
            match Declared::new(name.clone(), declaration) {
                Ok(kind) => declared.push((name, kind)),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(DeclareError(errors));
        }
        for (name, kind) in declared {
            self.insert(name, Box::new(kind));
        }
        Ok(())
    }

    /// Returns the names, in order.
    pub fn names(&self) -> impl Iterator<Item = &KindName> {
        self.kinds.keys()
    }

    /// Finds a kind.
    ///
    /// # Errors
    /// Names the kinds that there are.
    pub fn get(&self, name: &str) -> Result<&dyn Kind, LaunchError> {
        self.kinds.get(name).map(AsRef::as_ref).ok_or_else(|| LaunchError::UnknownKind {
            kind: name.to_owned(),
            known: self.kinds.keys().map(KindName::as_str).collect::<Vec<_>>().join(", "),
        })
    }
}

fn builtin_kinds() -> impl Iterator<Item = (KindName, Box<dyn Kind>)> {
    let kinds: [(&str, Box<dyn Kind>); 4] = [
        ("aoi", Box::new(Aoi)),
        ("backup", Box::new(Backup)),
        ("datax", Box::new(Datax)),
        ("shell", Box::new(Shell)),
    ];
    kinds.into_iter().map(|(name, kind)| (built_in_name(name), kind))
}

#[expect(
    clippy::expect_used,
    reason = "the names are literals above and a test of this module reads them all"
)]
fn built_in_name(name: &str) -> KindName {
    name.parse().expect("a literal that is a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_kinds_are_found_by_name() {
        let registry = Registry::builtin();
        let names: Vec<_> = registry.names().map(KindName::as_str).collect();
        assert_eq!(names, ["aoi", "backup", "datax", "shell"]);
        assert!(registry.get("shell").is_ok());
    }

    #[test]
    fn an_unknown_kind_is_answered_with_those_there_are() {
        let error = Registry::builtin().get("dataxx").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "this executor has no kind \"dataxx\"; it has aoi, backup, datax, shell"
        );
    }
}
