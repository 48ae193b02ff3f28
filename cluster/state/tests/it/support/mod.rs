//! A cluster of one in memory: rows, a state hash, and entries applied one after another.

pub(crate) mod make;
pub(crate) mod random;

use std::collections::BTreeMap;

use peat_gateway_state::apply::ApplyError;
use peat_gateway_state::apply::{Overlay, RowChange};
use peat_gateway_state::command::{ClaimEpoch, Fence, InitializeCluster};
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::{Epoch, NodeId};
use peat_gateway_state::record::ClusterSettings;
use peat_gateway_state::space::{ReadError, Reader, Space};
use peat_gateway_state::{
    Applied, Command, EntryPosition, Envelope, Outcome, VERSION, apply, codec,
};

/// All rows of a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows(pub(crate) BTreeMap<(Space, Vec<u8>), Vec<u8>>);

impl Rows {
    /// Writes what an overlay changed.
    pub(crate) fn write(&mut self, changes: Vec<RowChange>) {
        for (space, key, value) in changes {
            match value {
                Some(value) => self.0.insert((space, key), value),
                None => self.0.remove(&(space, key)),
            };
        }
    }

    /// The rows of one space.
    pub(crate) fn of(&self, space: Space) -> Vec<(&[u8], &[u8])> {
        let rows = self.0.iter().filter(|((row_space, _), _)| *row_space == space);
        rows.map(|((_, key), value)| (key.as_slice(), value.as_slice())).collect()
    }

    /// The same rows without those of some spaces.
    pub(crate) fn without(&self, spaces: &[Space]) -> Rows {
        let mut rows = self.clone();
        rows.0.retain(|(space, _), _| !spaces.contains(space));
        rows
    }

    /// The state hash, computed from nothing.
    pub(crate) fn hash(&self) -> StateHash {
        let mut hash = StateHash::default();
        for ((space, key), value) in &self.0 {
            hash.add(*space, key, value);
        }
        hash
    }
}

impl Reader for Rows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.get(&(space, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError> {
        if start >= end {
            return Ok(());
        }
        let range = self.0.range((space, start.to_vec())..(space, end.to_vec()));
        let mut visit = |row: (&(Space, Vec<u8>), &Vec<u8>)| visit(&row.0.1, row.1);
        if reverse {
            let _ended = range.rev().all(&mut visit);
        } else {
            let _ended = range.into_iter().all(&mut visit);
        }
        Ok(())
    }
}

/// A state with its log.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) rows: Rows,
    pub(crate) hash: StateHash,
    pub(crate) log: Vec<(EntryPosition, Vec<u8>)>,
    pub(crate) term: u64,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) now: u64,
}

impl Cluster {
    /// A state without any row.
    pub(crate) fn empty() -> Self {
        Self {
            rows: Rows::default(),
            hash: StateHash::default(),
            log: Vec::new(),
            term: 1,
            epoch: None,
            now: 1_000_000,
        }
    }

    /// A state with settings and an epoch.
    pub(crate) fn new() -> Self {
        Self::new_at(VERSION)
    }

    /// The same, of a version.
    pub(crate) fn new_at(version: u16) -> Self {
        let mut cluster = Self::empty();
        cluster.initialize_at(version);
        cluster.claim();
        cluster
    }

    /// A state with the organisation `acme`, its formation `alpha` and its file sink `S1`.
    pub(crate) fn with_acme() -> Self {
        Self::with_acme_at(VERSION)
    }

    /// The same, of a version.
    pub(crate) fn with_acme_at(version: u16) -> Self {
        let mut cluster = Self::new_at(version);
        cluster.done(make::create_organization("acme"));
        cluster.done(make::create_formation("acme", "alpha", "00000001"));
        cluster.done(make::create_sink("acme", "S1"));
        cluster
    }

    /// Writes the first settings.
    pub(crate) fn initialize(&mut self) -> Applied {
        self.initialize_at(VERSION)
    }

    /// Writes the first settings of a cluster of this version.
    pub(crate) fn initialize_at(&mut self, version: u16) -> Applied {
        let settings = ClusterSettings { version, ..make::settings() };
        self.send(Command::InitializeCluster(InitializeCluster { term: self.term, settings }))
    }

    /// Claims an epoch in the present term.
    pub(crate) fn claim(&mut self) -> Applied {
        let claim = ClaimEpoch { term: self.term, node: NodeId(7) };
        let applied = self.send(Command::ClaimEpoch(claim));
        if let Outcome::EpochClaimed(epoch) = applied.outcome {
            self.epoch = Some(epoch);
        }
        applied
    }

    /// What leader work carries now.
    pub(crate) fn fence(&self) -> Fence {
        Fence { term: self.term, epoch: self.epoch }
    }

    /// Applies a command of the default actor.
    pub(crate) fn send(&mut self, command: Command) -> Applied {
        self.send_envelope(&Envelope::new(make::actor("admin"), command))
    }

    /// Applies an envelope as the next entry.
    pub(crate) fn send_envelope(&mut self, envelope: &Envelope) -> Applied {
        self.apply_bytes(codec::encode(envelope)).expect("the envelope is understood")
    }

    /// Applies a command that must be done.
    #[track_caller]
    pub(crate) fn done(&mut self, command: Command) -> Applied {
        let applied = self.send(command.clone());
        if let Outcome::Refused(refusal) = &applied.outcome {
            panic!("{command:?} was refused: {refusal:?}");
        }
        applied
    }

    /// Applies a command that must be refused; returns the code.
    #[track_caller]
    pub(crate) fn refused(&mut self, command: Command) -> String {
        match self.send(command.clone()).outcome {
            Outcome::Refused(refusal) => refusal.code,
            outcome => panic!("{command:?} was not refused: {outcome:?}"),
        }
    }

    /// The index that the next entry gets.
    pub(crate) fn next_index(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    /// Applies bytes as the next entry, in a batch of its own. Unknown ones leave no trace.
    pub(crate) fn apply_bytes(&mut self, envelope: Vec<u8>) -> Result<Applied, ApplyError> {
        let position =
            EntryPosition { index: self.next_index(), term: self.term, time_ms: self.now };
        let mut overlay = Overlay::new(&self.rows);
        let applied = apply(&mut overlay, &position, &envelope)?;
        let changes = overlay.finish(&mut self.hash);
        self.rows.write(changes);
        self.log.push((position, envelope));
        Ok(applied)
    }
}

/// Applies a log in batches whose sizes come from `sizes`, again and again.
pub(crate) fn replay(log: &[(EntryPosition, Vec<u8>)], sizes: &[usize]) -> (Rows, StateHash) {
    let mut rows = Rows::default();
    let mut hash = StateHash::default();
    let mut sizes = sizes.iter().cycle();
    let mut left = log;
    while !left.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, left.len());
        let (batch, rest) = left.split_at(size);
        let mut overlay = Overlay::new(&rows);
        for (position, envelope) in batch {
            apply(&mut overlay, position, envelope).expect("the entry was applied before");
        }
        let changes = overlay.finish(&mut hash);
        rows.write(changes);
        left = rest;
    }
    (rows, hash)
}
