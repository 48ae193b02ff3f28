//! What was given: a value and its origin per key, the strongest source only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::environment::Environment;
use super::setting::{Kind, Value};

/// A value as it was written.
pub(super) enum Written {
    /// The text itself.
    Text(Zeroizing<String>),
    /// A file that holds it (secrets only).
    File(PathBuf),
}

/// What was given, and what is wrong with it.
pub(super) struct Given<'a> {
    environment: &'a dyn Environment,
    values: BTreeMap<&'static str, (Written, String)>,
    problems: Vec<String>,
}

impl<'a> Given<'a> {
    pub(super) fn new(environment: &'a dyn Environment) -> Self {
        Self { environment, values: BTreeMap::new(), problems: Vec::new() }
    }

    /// Notes a value. A later source is stronger and replaces it.
    pub(super) fn put(&mut self, key: &'static str, written: Written, origin: String) {
        self.values.insert(key, (written, origin));
    }

    /// Notes a problem.
    pub(super) fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// All that is wrong.
    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    /// Whether anything was given for the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The file that holds a secret, where it is given by one.
    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        match self.values.get(key) {
            Some((Written::File(path), _)) => Some(path.clone()),
            _ => None,
        }
    }

    /// Reads a key's value; `None` after a problem was noted.
    pub(super) fn value<T: Value>(&mut self, key: &'static str, default: &str) -> Option<T> {
        let Some((written, origin)) = self.values.get(key) else {
            if default.is_empty() && T::KIND != Kind::List {
                return T::absent();
            }
            return T::parse(default).ok();
        };
        let text = match written {
            Written::Text(text) => text.clone(),
            Written::File(path) => match self.environment.read_file(path) {
                Ok(text) => Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    let problem =
                        format!("{key} ({origin}): could not read {}: {error}", path.display());
                    self.problem(problem);
                    return None;
                }
            },
        };
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                let shown = if T::KIND == Kind::Secret {
                    "the secret".to_owned()
                } else {
                    format!("{:?}", text.as_str())
                };
                let problem = format!("{key} ({origin}): {shown} is {reason}");
                self.problem(problem);
                None
            }
        }
    }
}
