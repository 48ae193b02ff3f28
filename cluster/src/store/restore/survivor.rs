//! What a stopped node has on its disk, read without writing a byte of it.

use std::sync::Arc;

use openraft::EntryPayload;
use peat_gateway_state::apply::Overlay;
use peat_gateway_state::apply::restore::each_row;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::Hash32;
use peat_gateway_state::{EntryPosition, Envelope, Family, ReadError, Space, codec};
use rocksdb::ColumnFamilyDescriptor;

use crate::error::StartError;
use crate::raft::{Entry, LogId, StoredMembership, Vote};
use crate::store::NodeIdentity;
use crate::store::directory::{Directory, DirectoryLock};
use crate::store::error::{StoreError, chain};
use crate::store::layout::{
    ColumnOptions, DEFAULT, Database, Db, LOG, META, database_options, key,
};
use crate::store::log::{Log, decode_at};
use crate::store::open::read_position;
use crate::store::snapshot::AddRow;
use crate::store::synced::SyncedFile;
use crate::store::view::{View, full_key};

/// A stopped node's data. While it lives, no process can open the directory.
pub(crate) struct Survivor {
    /// Who it was.
    pub(crate) identity: NodeIdentity,
    /// The last applied entry on the disk.
    pub(crate) applied: LogId,
    /// The members as far as applied.
    pub(crate) membership: StoredMembership,
    /// The last entry that the node knew to be committed.
    pub(crate) committed: LogId,
    /// The end of its log.
    pub(crate) last: LogId,
    /// Its vote.
    pub(crate) vote: Option<Vote>,
    /// Index of the last entry that it had promised to keep; more than `last` where the disk lost some.
    pub(crate) promised: Option<u64>,
    view: View,
    database: Arc<Database>,
}

/// An entry above the applied ones.
pub(crate) struct Pending {
    /// Where it stands.
    pub(crate) id: LogId,
    /// Whether the node knew that a quorum has it.
    pub(crate) committed: bool,
    /// What it is, for people.
    pub(crate) what: String,
}

/// Which entries above the applied ones become part of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Those that are known to be committed.
    Committed,
    /// All that are in the log.
    All,
}

impl Survivor {
    /// Opens a directory.
    ///
    /// # Errors
    /// A process uses it, it is no data directory, it belongs to no cluster, or it can't be read.
    pub(crate) fn open(directory: &Directory, lock: DirectoryLock) -> Result<Self, StartError> {
        let unreadable = |error: StoreError| {
            directory.refuse(format!("{}; recover from a snapshot instead", chain(&error)))
        };
        let columns = ColumnOptions::new();
        let path = directory.database();
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let names = Db::list_cf(&options, &path)
            .map_err(StoreError::database("read its column families"))
            .map_err(unreadable)?;
        if [DEFAULT, LOG, META].iter().any(|name| !names.iter().any(|other| other == name)) {
            return Err(directory.refuse("it holds no node's data".to_owned()));
        }
        let descriptors =
            names.iter().map(|name| ColumnFamilyDescriptor::new(name, columns.of(name)));
        let db = Db::open_cf_descriptors_read_only(&options, &path, descriptors, false);
        let db = db.map_err(StoreError::database("open its database")).map_err(unreadable)?;
        let database = Arc::new(Database::new(db, lock));
        let identity = database
            .meta(key::IDENTITY)
            .and_then(|bytes| NodeIdentity::from_stored(&bytes.unwrap_or_default()))
            .map_err(unreadable)?;
        let position = read_position(&database).map_err(unreadable)?;
        let log = Log::load(&database).map_err(unreadable)?;
        let (Some(applied), Some(_)) = (position.applied, identity.cluster_id) else {
            return Err(directory.refuse("the node never belonged to a cluster".to_owned()));
        };
        let promised = SyncedFile::open(&directory.synced())
            .ok()
            .map(|file| file.mark().log_end)
            .and_then(|end| end.checked_sub(1));
        let view = View::take(&database, position.clone()).map_err(unreadable)?;
        Ok(Self {
            identity,
            applied,
            membership: position.membership,
            committed: log.committed.filter(|id| id.index > applied.index).unwrap_or(applied),
            last: log.last_id().filter(|id| id.index > applied.index).unwrap_or(applied),
            vote: log.vote,
            promised,
            view,
            database,
        })
    }

    /// Recomputes the hash of all rows, and compares it with the stored one.
    ///
    /// # Errors
    /// They differ: the disk is damaged.
    pub(crate) fn verify(&self) -> Result<Hash32, StoreError> {
        let mut hash = StateHash::default();
        for family in Family::ALL {
            self.view.each_row(family, |key, value| {
                let space = key.first().and_then(|byte| Space::from_byte(*byte));
                let space = space.ok_or_else(|| damaged("a row is of no known key space"))?;
                hash.add(space, &key[1..], value);
                Ok(())
            })?;
        }
        if hash.digest() != self.view.position().hash.digest() {
            return Err(damaged("its rows don't give its state hash"));
        }
        Ok(hash.digest())
    }

    /// The entries above the applied ones, in order.
    ///
    /// # Errors
    /// One is missing or damaged.
    pub(crate) fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        let mut pending = Vec::new();
        self.each_pending(self.last.index, |entry| {
            pending.push(Pending {
                id: entry.log_id,
                committed: entry.log_id.index <= self.committed.index,
                what: describe(entry),
            });
            Ok(())
        })?;
        Ok(pending)
    }

    /// Index of the last entry that is kept.
    pub(crate) fn kept(&self, keep: Keep) -> u64 {
        match keep {
            Keep::Committed => self.committed.index.min(self.last.index),
            Keep::All => self.last.index,
        }
    }

    /// Hash of the state with the kept entries applied.
    ///
    /// # Errors
    /// An entry can't be read or applied.
    pub(crate) fn kept_hash(&self, keep: Keep) -> Result<Hash32, StoreError> {
        let mut hash = self.view.position().hash.clone();
        self.apply(keep)?.finish(&mut hash);
        Ok(hash.digest())
    }

    /// Gives all rows of the state with the kept entries applied, in the order of a store.
    ///
    /// # Errors
    /// An entry can't be read or applied, or what `add` says.
    pub(crate) fn rows(&self, keep: Keep, add: &mut AddRow<'_>) -> Result<(), StoreError> {
        let overlay = self.apply(keep)?;
        each_row::<RowError>(&overlay, &mut |space, key, value| {
            add(space.family(), &full_key(space, key), value).map_err(RowError)
        })
        .map_err(|RowError(error)| error)
    }

    fn apply(&self, keep: Keep) -> Result<Overlay<'_>, StoreError> {
        let mut overlay = Overlay::new(&self.view);
        self.each_pending(self.kept(keep), |entry| {
            let EntryPayload::Normal(command) = &entry.payload else { return Ok(()) };
            let index = entry.log_id.index;
            let term = entry.log_id.leader_id.term;
            let at = EntryPosition { index, term, time_ms: command.time_ms };
            let applied = peat_gateway_state::apply(&mut overlay, &at, &command.envelope);
            applied.map(drop).map_err(|source| StoreError::Apply { index, source })
        })?;
        Ok(overlay)
    }

    fn each_pending(
        &self,
        last: u64,
        mut visit: impl FnMut(&Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (start, end) = (self.applied.index + 1, last + 1);
        let column = self.database.column(LOG)?;
        let mut rows = self.database.db.raw_iterator_cf(&column);
        rows.seek(start.to_be_bytes());
        for index in start..end {
            let entry = rows.item().map(|(key, value)| decode_at(key, value)).transpose()?;
            let Some(entry) = entry.filter(|entry| entry.log_id.index == index) else {
                rows.status().map_err(StoreError::database("read the log"))?;
                return Err(StoreError::MissingEntry { start, end, missing: index });
            };
            visit(&entry)?;
            rows.next();
        }
        Ok(())
    }
}

/// Lets a read of rows fail with what the receiver says.
struct RowError(StoreError);

impl From<ReadError> for RowError {
    fn from(error: ReadError) -> Self {
        RowError(damaged(&chain(&error)))
    }
}

fn damaged(reason: &str) -> StoreError {
    StoreError::Decode { what: "state", reason: reason.to_owned() }
}

/// What an entry is, without its content: that may be an organisation's business.
fn describe(entry: &Entry) -> String {
    match &entry.payload {
        EntryPayload::Blank => "no command".to_owned(),
        EntryPayload::Membership(_) => "a change of members".to_owned(),
        EntryPayload::Normal(command) => match codec::decode::<Envelope>(&command.envelope) {
            Ok(envelope) => {
                let shown = format!("{:?}", envelope.command);
                let name: String = shown.chars().take_while(|c| c.is_alphanumeric()).collect();
                format!("{name} by {}", envelope.actor.principal)
            }
            Err(_) => "a command of a newer version".to_owned(),
        },
    }
}
