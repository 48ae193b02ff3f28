//! A data directory is made beside the place where it will be, and put there at the end.
//!
//! ```text
//!  UNFINISHED "restore" ──► new/ is built ──► UNFINISHED "switch" ──► what was there goes aside
//!                                                                ──► new/ comes in, FORMAT, done
//! ```
//!
//! Until the switch begins, what was there is untouched; once it has begun, running the verb again
//! ends it. In between no node starts here: this build reads `UNFINISHED`, an older one misses
//! `FORMAT`. So there is never half a cluster.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StartError;
use crate::store::directory::{Directory, RETIRED, UNFINISHED, sync_directory};

/// Where the new directory is built.
const NEW: &str = "new";
/// The second line of `UNFINISHED` once the switch has begun; a third names where the old data goes.
const SWITCH: &str = "switch";
/// What a data directory consists of, besides its notes.
const DATABASE: &str = "db";
const SYNCED: &str = "synced";
const SNAPSHOTS: &str = "snapshots";
const FORMAT: &str = "FORMAT";

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// From a snapshot, where no data was.
    Restore,
    /// From what a node left, whose data is put aside.
    Recover,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Restore => "restore",
            Verb::Recover => "recover",
        }
    }
}

/// Where the old data goes, and what is written beside it.
pub(crate) struct Retire {
    /// Name of the folder in the data directory.
    pub(crate) folder: String,
    /// Why it must not be opened again.
    pub(crate) text: String,
}

/// A data directory in the making.
pub(crate) struct Site<'d> {
    directory: &'d Directory,
    verb: Verb,
}

impl<'d> Site<'d> {
    /// Begins, removing what an interrupted attempt has built.
    pub(crate) fn begin(directory: &'d Directory, verb: Verb) -> Result<Self, StartError> {
        directory.write_note(UNFINISHED, &format!("{}\nbuild\n", verb.word()))?;
        directory.check(remove_folder(&directory.root().join(NEW)), "remove an old attempt")?;
        Ok(Self { directory, verb })
    }

    /// Where the new directory is built.
    pub(crate) fn new_directory(&self) -> PathBuf {
        self.directory.root().join(NEW)
    }

    /// Gives up: what was there is as before.
    pub(crate) fn abandon(self) {
        let root = self.directory.root();
        let removed = remove_folder(&root.join(NEW))
            .and_then(|()| fs::remove_file(root.join(UNFINISHED)))
            .and_then(|()| sync_directory(root));
        if let Err(error) = removed {
            tracing::warn!(%error, path = %root.display(), "could not remove an unfinished directory");
        }
    }

    /// Puts the new directory in the place of what was there.
    pub(crate) fn switch(self, retire: Option<Retire>) -> Result<(), StartError> {
        let mut note = format!("{}\n{SWITCH}\n", self.verb.word());
        if let Some(Retire { folder, text }) = retire {
            let aside = self.directory.root().join(&folder);
            let made = fs::create_dir_all(&aside)
                .and_then(|()| fs::write(aside.join(RETIRED), text))
                .and_then(|()| sync_directory(&aside));
            self.directory.check(made, "make the folder of what is put aside")?;
            note.push_str(&folder);
            note.push('\n');
        }
        self.directory.write_note(UNFINISHED, &note)?;
        complete_switch(self.directory).map(drop)
    }
}

/// Ends a switch that has begun; returns whether there was one.
///
/// Every step may have been done before: a name that is in its new place is left there.
pub(crate) fn complete_switch(directory: &Directory) -> Result<bool, StartError> {
    let Some(note) = directory.read_note(UNFINISHED)? else { return Ok(false) };
    let mut lines = note.lines().skip(1);
    if lines.next() != Some(SWITCH) {
        return Ok(false);
    }
    let root = directory.root();
    let moved = switch(root, lines.next().map(|folder| root.join(folder)).as_deref());
    directory.check(moved, "put the new data in its place")?;
    let ended = remove_folder(&root.join(NEW))
        .and_then(|()| fs::remove_file(root.join(UNFINISHED)))
        .and_then(|()| sync_directory(root));
    directory.check(ended, "end the switch")?;
    Ok(true)
}

fn switch(root: &Path, aside: Option<&Path>) -> io::Result<()> {
    let new = root.join(NEW);
    // The database comes last: while it is in `new`, the old one may still be in place.
    if let Some(aside) = aside
        && new.join(DATABASE).exists()
    {
        match fs::remove_file(root.join(FORMAT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sync_directory(root)?,
        }
        for part in [DATABASE, SYNCED, SNAPSHOTS] {
            move_once(&root.join(part), &aside.join(part))?;
        }
        sync_directory(aside)?;
        sync_directory(root)?;
    }
    // What makes it a node's directory comes last of all.
    for part in [SYNCED, DATABASE, FORMAT] {
        move_once(&new.join(part), &root.join(part))?;
        sync_directory(root)?;
    }
    Ok(())
}

fn move_once(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() || !from.exists() {
        return Ok(());
    }
    fs::rename(from, to)
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with old data, and new data built beside it.
    fn prepared(root: &Path) -> Directory {
        let directory = Directory::create(root).unwrap();
        directory.write_format(1).unwrap();
        for (folder, text) in [("", "old"), (NEW, "new")] {
            let at = root.join(folder);
            fs::create_dir_all(at.join(DATABASE)).unwrap();
            fs::write(at.join(DATABASE).join("rows"), text).unwrap();
            fs::write(at.join(SYNCED), text).unwrap();
        }
        Directory::create(&root.join(NEW)).unwrap().write_format(1).unwrap();
        fs::create_dir(root.join(SNAPSHOTS)).unwrap();
        directory
    }

    fn text(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_switch_that_stopped_after_any_step_is_ended_by_the_next_attempt() {
        // What the steps of a switch do, one by one, in their order.
        let aside = |root: &Path| root.join("retired-1");
        let steps: Vec<fn(&Path)> = vec![
            |_| {},
            |root| fs::remove_file(root.join(FORMAT)).unwrap(),
            |root| fs::rename(root.join(DATABASE), root.join("retired-1").join(DATABASE)).unwrap(),
            |root| fs::rename(root.join(SYNCED), root.join("retired-1").join(SYNCED)).unwrap(),
            |root| {
                fs::rename(root.join(SNAPSHOTS), root.join("retired-1").join(SNAPSHOTS)).unwrap();
            },
            |root| fs::rename(root.join(NEW).join(SYNCED), root.join(SYNCED)).unwrap(),
            |root| fs::rename(root.join(NEW).join(DATABASE), root.join(DATABASE)).unwrap(),
            |root| fs::rename(root.join(NEW).join(FORMAT), root.join(FORMAT)).unwrap(),
            |root| remove_folder(&root.join(NEW)).unwrap(),
        ];
        for stop in 1..=steps.len() {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            let directory = prepared(root);
            fs::create_dir(aside(root)).unwrap();
            fs::write(aside(root).join(RETIRED), "why").unwrap();
            directory.write_note(UNFINISHED, "recover\nswitch\nretired-1\n").unwrap();
            steps.iter().take(stop).for_each(|step| step(root));
            // No node starts on it, whatever the step.
            assert!(directory.check_finished().is_err(), "step {stop}");
            assert!(complete_switch(&directory).unwrap(), "step {stop}");
            assert_eq!(text(root.join(DATABASE).join("rows")), "new", "step {stop}");
            assert_eq!(text(root.join(SYNCED)), "new", "step {stop}");
            assert_eq!(text(aside(root).join(DATABASE).join("rows")), "old", "step {stop}");
            assert_eq!(text(aside(root).join(SYNCED)), "old", "step {stop}");
            assert!(!root.join(NEW).exists() && !root.join(UNFINISHED).exists(), "step {stop}");
            directory.check_finished().unwrap();
            directory.check_ours().unwrap();
            assert!(!complete_switch(&directory).unwrap(), "there is nothing more to do");
        }
    }

    #[test]
    fn an_attempt_that_stopped_while_it_built_is_begun_anew_and_may_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let directory = prepared(root);
        directory.write_note(UNFINISHED, "recover\nbuild\n").unwrap();
        assert!(!complete_switch(&directory).unwrap());
        let error = directory.check_finished().unwrap_err().to_string();
        assert!(error.contains("cluster recover"), "{error}");
        let site = Site::begin(&directory, Verb::Recover).unwrap();
        assert!(!site.new_directory().exists(), "what an old attempt built must not be used");
        assert_eq!(text(root.join(DATABASE).join("rows")), "old");
        site.abandon();
        directory.check_finished().unwrap();
        let site = Site::begin(&directory, Verb::Restore).unwrap();
        let error = directory.check_finished().unwrap_err().to_string();
        assert!(error.contains("snapshot restore"), "{error}");
        site.abandon();
    }
}
