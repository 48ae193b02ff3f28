//! Taking a data directory out of service, for good.
//!
//! A node whose data is damaged, or differs from what the majority has, must neither serve nor vote again
//! with it, whoever starts it next. So the reason is written into the directory, and a start reads it first.

use std::fs;
use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::directory::Directory;
use super::error::{StoreError, chain};
use super::{Inner, Store};
use crate::error::StartError;

/// The way back into a cluster.
const REPLACE: &str = "the other nodes have everything: remove this node from the cluster, empty its \
                       data directory, and let it join again";
/// The way back for a cluster of one.
const RESTORE: &str = "there is no other node: keep this data directory, and restore the newest snapshot \
                       into an empty one";

/// Where the first sign of damage is noted, by whoever meets it.
#[derive(Clone)]
pub(super) struct Damage(Arc<watch::Sender<Option<String>>>);

impl Damage {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Notes damage; the first stays.
    pub(super) fn note(&self, what: impl Into<String>) {
        self.0.send_if_modified(|noted| {
            let first = noted.is_none();
            if first {
                *noted = Some(what.into());
            }
            first
        });
    }

    /// Notes what RocksDB says, if it is about damage.
    pub(super) fn note_if_corrupt(&self, doing: &str, error: &rocksdb::Error) {
        if error.kind() == rocksdb::ErrorKind::Corruption {
            self.note(format!("could not {doing}: {error}"));
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}

impl Directory {
    /// Refuses a directory that was taken out of service.
    pub(super) fn check_in_service(&self) -> Result<(), StartError> {
        match fs::read_to_string(self.out_of_service()) {
            Ok(reason) => {
                let reason = reason.trim();
                Err(self.refuse(format!("it was taken out of service: {reason}")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.refuse(format!("could not read OUT-OF-SERVICE: {error}"))),
        }
    }

    /// Takes the directory out of service; durable when it returns.
    fn take_out_of_service(&self, reason: &str) -> io::Result<()> {
        let path = self.out_of_service();
        if path.exists() {
            return Ok(());
        }
        self.write_durably(&path, format!("{reason}\n").as_bytes())
    }
}

impl Store {
    /// Watches for damage that a reader met.
    pub(crate) fn damage(&self) -> watch::Receiver<Option<String>> {
        self.inner.database.damage.watch()
    }

    /// Takes the data directory out of service for good; durable when it returns. Blocks.
    ///
    /// # Errors
    /// The disk failed: the process should stay out of service all the same.
    pub(crate) fn take_out_of_service(&self, reason: &str) -> io::Result<()> {
        self.inner.directory.take_out_of_service(reason)
    }

    /// What is wrong, and what to do about it in a cluster like this one.
    pub(crate) fn with_repair(&self, what: &str) -> String {
        self.inner.with_repair(what)
    }
}

impl Inner {
    fn with_repair(&self, what: &str) -> String {
        let voters = self.view().position().membership.voter_ids().count();
        format!("{what}; {}", if voters > 1 { REPLACE } else { RESTORE })
    }

    /// What a failure means for the next start: after damage there must be none.
    pub(super) fn consider_damage(&self, error: &StoreError) {
        if !error.is_damage() {
            return;
        }
        let what = self.with_repair(&chain(error));
        if let Err(error) = self.directory.take_out_of_service(&what) {
            tracing::error!(%error, "could not write OUT-OF-SERVICE");
        }
        self.database.damage.note(chain(error));
    }
}
