//! The one place that reads the process environment and files, behind a trait.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Where variables and files come from, so that tests need neither.
pub trait Environment {
    /// All variables, whatever their name. Values that aren't UTF-8 come with replacement characters.
    fn variables(&self) -> BTreeMap<String, String>;

    /// Reads a text file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_file(&self, path: &Path) -> io::Result<String>;

    /// The host's name; what a node is called by default.
    fn host_name(&self) -> String;
}

/// The process's own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Environment for Process {
    fn variables(&self) -> BTreeMap<String, String> {
        std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}
