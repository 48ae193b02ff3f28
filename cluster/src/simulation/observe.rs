//! The whole cluster as nobody inside can see it: every node at the same moment, and the one log that
//! all of them must agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use openraft::async_runtime::WatchReceiver;
use openraft::{EntryPayload, ServerState};
use peat_gateway_state::ids::Hash32;
use peat_gateway_state::{Command, Envelope, codec, query};

use super::disk;
use super::host::{Host, Shared};
use super::leader_work;
use crate::handle::Leadership;
use crate::raft::{Entry, LogId, Vote};

/// An entry of some node's log, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) term: u64,
    /// Of everything in it.
    pub(super) digest: u64,
}

/// What a committed entry means for clients.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) logged: Logged,
    pub(super) meaning: Meaning,
    /// The place of the node on which it was seen as committed first.
    pub(super) seen_at: usize,
}

/// The part of a command that invariants speak of.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// A register is made, where it isn't there yet.
    Create { register: String, value: String },
    /// A register gets a value, once per value.
    Write { register: String, value: String },
    /// A leader begins its epoch: the entry's index.
    Claim,
    /// Work of an epoch.
    LeaderWork,
    /// Anything else.
    Other,
}

/// A node as it was seen last; one that is down keeps what its disk may hold.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeSeen {
    pub(super) place: usize,
    pub(super) node_id: u64,
    /// Counts the starts of its host.
    pub(super) starts: u64,
    pub(super) runs: bool,
    pub(super) state: Option<ServerState>,
    pub(super) term: u64,
    pub(super) leader: Option<u64>,
    pub(super) vote: Option<Vote>,
    /// The end of its log as it is on its disk.
    pub(super) last: Option<LogId>,
    /// The end of its log as consensus counts it, a snapshot that is being installed included.
    pub(super) last_counted: u64,
    pub(super) purged: Option<LogId>,
    pub(super) snapshot: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) applied: u64,
    pub(super) state_hash: Option<Hash32>,
    pub(super) cursor: u64,
    pub(super) journal_last: u64,
    pub(super) leadership: Leadership,
    /// The voters of its membership; two sets while it changes.
    pub(super) voters: Vec<BTreeSet<u64>>,
    /// Every entry of its log, and older ones that were not looked at yet.
    pub(super) log: BTreeMap<u64, Logged>,
    /// The last entry of its log that was durable at the last sync.
    pub(super) durable: Option<LogId>,
    /// Committed entries below were compared already.
    compared: u64,
}

/// Things that must have happened for runs to mean something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Events {
    pub(super) truncated_logs: u64,
    pub(super) installed_snapshots: u64,
    pub(super) joint_memberships: u64,
}

/// Where a look at a node notes what is new.
struct News<'s> {
    appeared: &'s mut Vec<(usize, u64)>,
    events: &'s mut Events,
    meanings: &'s mut BTreeMap<(u64, u64), Meaning>,
}

/// All nodes at one moment.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) nodes: Vec<NodeSeen>,
    /// The committed log, as whichever node showed it first.
    pub(super) committed: BTreeMap<u64, Committed>,
    /// Entries that two nodes hold as committed and that differ: index, the node that was second.
    pub(super) conflicts: Vec<(u64, usize)>,
    /// Entries that appeared in a node's log since the last look: place, index.
    pub(super) appeared: Vec<(usize, u64)>,
    pub(super) events: Events,
    /// What entries mean, by index and term.
    meanings: BTreeMap<(u64, u64), Meaning>,
    /// Every committed entry below is known.
    pub(super) known_end: u64,
}

impl Seen {
    pub(super) fn new(hosts: usize) -> Self {
        let node = |place| NodeSeen { place, ..NodeSeen::default() };
        Self { nodes: (0..hosts).map(node).collect(), ..Self::default() }
    }

    /// Looks at every host.
    pub(super) fn look(&mut self, hosts: &[Shared]) {
        self.conflicts.clear();
        self.appeared.clear();
        for host in hosts {
            let host = host.borrow();
            let node = &mut self.nodes[host.place];
            let news = News {
                appeared: &mut self.appeared,
                events: &mut self.events,
                meanings: &mut self.meanings,
            };
            node.look(&host, news);
        }
        for place in 0..self.nodes.len() {
            self.compare(place);
        }
        while self.committed.contains_key(&self.known_end) {
            self.known_end += 1;
        }
    }

    /// The places of nodes that run.
    pub(super) fn running(&self) -> impl Iterator<Item = &NodeSeen> {
        self.nodes.iter().filter(|node| node.runs)
    }

    /// Adds what a node newly holds as committed, and compares it with what others hold.
    fn compare(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let (Some(committed), true) = (node.committed, node.runs) else { return };
        let new: Vec<(u64, Logged)> = node
            .log
            .range(node.compared..=committed.index.max(node.compared))
            .filter(|(index, _)| **index <= committed.index)
            .map(|(index, logged)| (*index, logged.clone()))
            .collect();
        for (index, logged) in new {
            match self.committed.get(&index) {
                Some(known) if known.logged == logged => {}
                Some(_) => self.conflicts.push((index, place)),
                None => {
                    let meaning = self.meanings[&(index, logged.term)].clone();
                    let committed = Committed { logged, meaning, seen_at: place };
                    self.committed.insert(index, committed);
                }
            }
        }
        node.compared = node.compared.max(committed.index + 1);
        let purged_end = node.purged.map_or(0, |id| id.index + 1);
        node.log = node.log.split_off(&purged_end);
    }
}

impl NodeSeen {
    /// Where its log ends.
    pub(super) fn end(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    /// Whether its log holds an entry, or something that contains it.
    pub(super) fn holds(&self, index: u64, term: u64) -> bool {
        match self.log.get(&index) {
            Some(logged) => logged.term == term,
            None => self.purged.is_some_and(|purged| purged.index >= index),
        }
    }

    /// Whether a newer leader's entry stands in an entry's place.
    pub(super) fn replaced(&self, index: u64, term: u64) -> bool {
        self.log.get(&index).is_some_and(|logged| logged.term > term)
    }

    /// Whether what it holds of the log up to an index was synced.
    pub(super) fn is_durable(&self, index: u64) -> bool {
        self.purged.is_some_and(|purged| purged.index >= index)
            || self.durable.is_some_and(|durable| durable.index >= index)
    }

    fn look(&mut self, host: &Host, mut news: News<'_>) {
        self.durable = disk::durable(&host.config.data_dir);
        let Some(running) = &host.running else {
            self.runs = false;
            return;
        };
        let inner = &running.handle.inner;
        if self.node_id != inner.node_id().0 {
            let (place, durable) = (self.place, self.durable);
            *self = Self { place, durable, ..Self::default() };
        }
        if self.starts != host.starts || !self.runs {
            // It begins anew from its disk.
            self.log.clear();
            self.compared = 0;
            self.last = None;
        }
        self.starts = host.starts;
        self.runs = true;
        self.node_id = inner.node_id().0;
        let metrics = inner.raft().metrics();
        let metrics = metrics.borrow_watched();
        self.state = Some(metrics.state);
        self.term = metrics.current_term;
        self.leader = metrics.current_leader;
        self.last_counted = metrics.last_log_index.unwrap_or(0);
        if metrics.snapshot.map_or(0, |id| id.index) > self.applied {
            news.events.installed_snapshots += 1;
        }
        let (snapshot, metrics_purged) = (metrics.snapshot, metrics.purged);
        let committed = metrics.local_committed;
        let voters = metrics.membership_config.membership().get_joint_config().clone();
        news.events.joint_memberships += u64::from(voters.len() > 1 && voters != self.voters);
        self.voters = voters;
        drop(metrics);
        self.leadership = *inner.leadership().borrow();
        let log = inner.store().log_seen();
        self.vote = log.vote;
        // Metrics may be a moment behind what is acted upon. They call a snapshot committed when its
        // installation begins: then the log is still the old one, and its end may be uncommitted.
        let end = log.last.map_or(0, |id| id.index);
        let committed = committed.filter(|id| id.index <= end);
        self.committed = [committed, log.committed, log.applied]
            .into_iter()
            .max_by_key(|id| id.map_or(0, |id| id.index))
            .flatten();
        if self.last != log.last || self.log.is_empty() {
            self.read_log(host, log.last, &mut news);
        }
        if let Some(purged) = log.purged.filter(|purged| self.purged != Some(*purged)) {
            // A snapshot was installed where the log didn't hold what was purged: the entries before
            // are not the ones that were seen.
            let held = self.log.get(&purged.index);
            if held.is_none_or(|held| held.term != purged.leader_id.term) {
                self.log = self.log.split_off(&(purged.index + 1));
            }
        }
        self.purged = log.purged;
        // Metrics wait where consensus waits for its disk; what is purged was in a snapshot.
        let covered = log.purged.filter(|_| metrics_purged != log.purged);
        self.snapshot = [snapshot, covered].into_iter().flatten().max_by_key(|id| id.index);
        self.last = log.last;
        let (applied, hash) = inner.store().state_hash();
        if applied != self.applied || self.state_hash != Some(hash) {
            self.applied = applied;
            self.state_hash = Some(hash);
            let view = inner.store().view();
            let cursor = query::cursor(&view, &leader_work::org(), &leader_work::sink());
            self.cursor = cursor.expect("readable").map_or(0, |cursor| cursor.acknowledged);
            let counters = query::counters(&view, &leader_work::org()).expect("readable");
            self.journal_last = counters.journal_last;
        }
    }

    /// Reads what is new in the log, after the last entry that is as it was.
    fn read_log(&mut self, host: &Host, last: Option<LogId>, news: &mut News<'_>) {
        let end = last.map_or(0, |id| id.index + 1);
        let mut same = self.log.keys().next_back().map_or(0, |index| index + 1).min(end);
        while same > 0 && self.log.contains_key(&(same - 1)) {
            let now = entry(host, same - 1);
            if now.is_none_or(|now| now.log_id.leader_id.term == self.log[&(same - 1)].term) {
                break;
            }
            same -= 1;
        }
        news.events.truncated_logs += u64::from(!self.log.split_off(&same).is_empty());
        for entry in entries(host, same, end) {
            let index = entry.log_id.index;
            let logged = Logged { term: entry.log_id.leader_id.term, digest: digest(&entry) };
            news.meanings.entry((index, logged.term)).or_insert_with(|| meaning(&entry));
            self.log.insert(index, logged);
            news.appeared.push((self.place, index));
        }
    }
}

fn entries(host: &Host, start: u64, end: u64) -> Vec<Entry> {
    host.running
        .as_ref()
        .map_or_else(Vec::new, |running| running.handle.inner.store().entries(start, end))
}

fn entry(host: &Host, index: u64) -> Option<Entry> {
    entries(host, index, index + 1).into_iter().find(|entry| entry.log_id.index == index)
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &entry.payload {
        EntryPayload::Blank => hasher.write_u8(0),
        EntryPayload::Normal(command) => {
            hasher.write_u64(command.time_ms);
            hasher.write(&command.envelope);
        }
        EntryPayload::Membership(membership) => hasher.write(format!("{membership:?}").as_bytes()),
    }
    hasher.finish()
}

fn meaning(entry: &Entry) -> Meaning {
    let EntryPayload::Normal(command) = &entry.payload else { return Meaning::Other };
    let envelope: Envelope = codec::decode(&command.envelope).expect("an envelope can be read");
    match envelope.command {
        Command::CreateOrganization(create) => {
            Meaning::Create { register: create.org_id.to_string(), value: create.display_name }
        }
        Command::UpdateOrganization(update) => Meaning::Write {
            register: update.org_id.to_string(),
            value: update.display_name.unwrap_or_default(),
        },
        Command::ClaimEpoch(_) => Meaning::Claim,
        command => match command.fence().and_then(|fence| fence.epoch) {
            Some(_) => Meaning::LeaderWork,
            None => Meaning::Other,
        },
    }
}
