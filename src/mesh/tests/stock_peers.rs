//! Stock `automerge::sync` peers against the observer's answers: random edits, loss, failovers.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use automerge::sync::{Capability, Message, State, SyncDoc};
use automerge::transaction::Transactable;
use automerge::{Automerge, Change, ChangeHash, ROOT, ReadDoc};
use bytes::Bytes;
use peat_gateway_mesh::json;
use peat_gateway_state::command::{AppendChanges, DocumentBatch, SequencedEvent};
use peat_gateway_state::ids::{AppId, DocumentKey, Hash32, OrgId};
use prometheus::Registry;

use super::fake_journal::FakeJournal;
use crate::mesh::chunks;
use crate::mesh::journal::Journal;
use crate::mesh::metrics::Metrics;
use crate::mesh::observation::Observation;
use crate::mesh::replica::materialize;
use crate::mesh::sighting::Sighting;

const SEEDS: u64 = 300;
/// Messages after which a document of a few nodes must be quiet.
const MESSAGES_MAX: usize = 400;

/// SplitMix64: the same numbers for the same seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Keeps its sync state for the connection.
    Stock,
    /// Believes that we read V2, and sends whole documents.
    SendsV2,
    /// Forgets its sync state at every edit, as 0.6 does.
    Forgets,
}

struct Node {
    kind: Kind,
    document: Automerge,
    state: State,
    link: u64,
    /// Changes sent since the last failover.
    sent: Vec<ChangeHash>,
    /// Changes that it had once.
    lost: BTreeSet<ChangeHash>,
}

impl Node {
    fn fresh_state(kind: Kind) -> State {
        let mut state = State::new();
        if kind == Kind::SendsV2 {
            state.their_capabilities = Some(vec![Capability::MessageV2]);
        }
        state
    }
}

/// One document, its nodes, and the messages between them and the observer.
struct World {
    random: Random,
    app: AppId,
    document: DocumentKey,
    journal: FakeJournal,
    observation: Observation<FakeJournal>,
    metrics: Metrics,
    nodes: Vec<Node>,
    to_gateway: VecDeque<(usize, u64, Message)>,
    to_node: VecDeque<(usize, u64, Message)>,
    loss_percent: u64,
    now: Instant,
    links: u64,
    delivered: usize,
}

impl World {
    fn new(seed: u64, kinds: &[Kind]) -> Self {
        let journal = FakeJournal::new();
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let app = AppId::from_trusted("alpha");
        let nodes = kinds
            .iter()
            .map(|kind| Node {
                kind: *kind,
                document: Automerge::new(),
                state: Node::fresh_state(*kind),
                link: 0,
                sent: Vec::new(),
                lost: BTreeSet::new(),
            })
            .collect();
        let mut world = Self {
            random: Random(seed),
            document: DocumentKey::from_trusted("docs:one"),
            observation: Observation::new(org(), app.clone(), journal.clone(), metrics.clone()),
            app,
            journal,
            metrics,
            nodes,
            to_gateway: VecDeque::new(),
            to_node: VecDeque::new(),
            loss_percent: 0,
            now: Instant::now(),
            links: 0,
            delivered: 0,
        };
        for node in 0..world.nodes.len() {
            world.reconnect(node);
        }
        world
    }

    fn edit(&mut self, node: usize) {
        let key = format!("k{}", self.random.below(6));
        let value = self.random.below(1000) as i64;
        let state = &mut self.nodes[node];
        state.document.set_actor(automerge::ActorId::from(
            self.random.below(u64::MAX).to_be_bytes().as_slice(),
        ));
        state
            .document
            .transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, key, value))
            .unwrap();
        if state.kind == Kind::Forgets {
            state.state = Node::fresh_state(Kind::Forgets);
        }
        self.speak(node);
    }

    /// Lets two nodes exchange everything without us.
    fn gossip(&mut self, from: usize, to: usize) {
        let mut other = self.nodes[from].document.fork();
        self.nodes[to].document.merge(&mut other).unwrap();
        self.speak(to);
    }

    /// Lets a node send what it has to say, now.
    fn speak(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let Some(message) = state.document.generate_sync_message(&mut state.state) else { return };
        for blob in message.changes.iter() {
            state.sent.extend(chunks::changes(blob).unwrap().iter().map(Change::hash));
        }
        let link = state.link;
        if self.random.below(100) >= self.loss_percent {
            self.to_gateway.push_back((node, link, message));
        }
    }

    fn reconnect(&mut self, node: usize) {
        self.observation.disconnect(self.nodes[node].link);
        self.links += 1;
        self.observation.connect(self.links);
        self.nodes[node].link = self.links;
        self.nodes[node].state = Node::fresh_state(self.nodes[node].kind);
        self.speak(node);
    }

    /// Another node leads: only what is committed is left.
    fn failover(&mut self) {
        self.observation =
            Observation::new(org(), self.app.clone(), self.journal.clone(), self.metrics.clone());
        for node in 0..self.nodes.len() {
            self.nodes[node].sent.clear();
            self.reconnect(node);
        }
    }

    fn commit(&mut self) {
        let mut newest = 0;
        while let Some(item) = self.observation.next_item() {
            newest = item.ticket;
            let append = AppendChanges {
                fence: self.journal.fence(),
                org_id: org(),
                batches: vec![DocumentBatch {
                    app_id: item.app,
                    document: item.document,
                    events: item.events.into_iter().map(SequencedEvent::Inline).collect(),
                }],
            };
            let outcome = self.journal.append(&append);
            assert!(
                matches!(outcome, peat_gateway_state::Outcome::Appended { .. }),
                "the state refused a batch: {outcome:?}"
            );
        }
        self.observation.committed(newest);
    }

    /// Moves one message; returns whether there was anything to move.
    fn step(&mut self) -> bool {
        let pick = self.random.below(3);
        if pick == 0 {
            self.commit();
        } else if pick == 1 {
            if let Some((node, link, message)) = self.to_gateway.pop_front()
                && self.nodes[node].link == link
            {
                self.delivered += 1;
                let payload = Bytes::from(message.encode());
                let key = self.document.to_string();
                self.observation.take(link, Sighting::Sync { key, payload }, self.now).unwrap();
            }
        } else if let Some((node, link, message)) = self.to_node.pop_front()
            && self.nodes[node].link == link
        {
            self.delivered += 1;
            self.check_answer(node, &message);
            let state = &mut self.nodes[node];
            state.document.receive_sync_message(&mut state.state, message).unwrap();
            self.speak(node);
        }
        for (link, frame) in self.observation.take_answers() {
            let Some(node) = self.nodes.iter().position(|node| node.link == link) else { continue };
            if self.random.below(100) >= self.loss_percent {
                let message = Message::decode(&frame.payload).unwrap();
                self.check_committed(&message);
                self.to_node.push_back((node, link, message));
            }
        }
        assert!(self.observation.take_closing().is_empty(), "no link misbehaved");
        !(self.to_gateway.is_empty()
            && self.to_node.is_empty()
            && self.observation.items_left() == 0
            && !self.observation.waits())
    }

    fn run_to_quiet(&mut self) {
        self.delivered = 0;
        while self.step() {
            assert!(self.delivered < MESSAGES_MAX, "the peers chatter without end");
        }
    }

    /// No relaying: nothing in an answer that the node didn't have.
    fn check_answer(&self, node: usize, message: &Message) {
        assert!(message.changes.is_empty(), "an answer carried changes");
        assert!(message.flags.is_none(), "an answer carried flags");
        let node = &self.nodes[node];
        let has = |hash: &ChangeHash| {
            node.document.get_change_by_hash(hash).is_some() || node.lost.contains(hash)
        };
        let last_sync = message.have.iter().flat_map(|have| &have.last_sync);
        for hash in message.heads.iter().chain(&message.need).chain(last_sync) {
            assert!(has(hash), "an answer named a change of another node");
        }
    }

    /// No promise before its commit.
    fn check_committed(&self, message: &Message) {
        let committed = self.journal.hashes(&self.app, &self.document);
        let last_sync = message.have.iter().flat_map(|have| &have.last_sync);
        for hash in message.heads.iter().chain(last_sync) {
            assert!(committed.contains(&Hash32(hash.0)), "an answer named an uncommitted change");
        }
    }

    fn check_complete(&mut self) {
        let mut all = Automerge::new();
        for node in &self.nodes {
            all.merge(&mut node.document.fork()).unwrap();
        }
        let union: BTreeSet<Hash32> =
            all.get_changes(&[]).iter().map(|change| Hash32(change.hash().0)).collect();
        assert_eq!(
            self.journal.hashes(&self.app, &self.document),
            union,
            "committed = union of all nodes"
        );
        let stored = self.journal.stored_document(&org(), &self.app, &self.document).unwrap();
        let ours = stored.map(|stored| materialize(&stored).unwrap()).unwrap_or_default();
        assert_eq!(json::document(&ours), json::document(&all));
        assert_eq!(
            self.journal.stored.lock().unwrap().events.len(),
            union.len(),
            "one event per change"
        );
    }
}

fn org() -> OrgId {
    OrgId::from_trusted("acme")
}

fn kinds(random: &mut Random) -> Vec<Kind> {
    let kinds = [Kind::Stock, Kind::SendsV2, Kind::Forgets];
    (0..=random.below(3)).map(|_| kinds[random.below(3) as usize]).collect()
}

#[test]
fn committed_changes_become_the_union_of_all_nodes_and_nothing_is_relayed() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut random = Random(seed ^ 0xfeed);
        let mut world = World::new(seed, &kinds(&mut random));
        world.loss_percent = [0, 0, 5, 30][random.below(4) as usize];
        for _ in 0..random.below(60) {
            let node = random.below(world.nodes.len() as u64) as usize;
            match random.below(20) {
                0 => world.reconnect(node),
                1 => world.failover(),
                2 => world.gossip(random.below(world.nodes.len() as u64) as usize, node),
                3..8 => world.edit(node),
                _ => drop(world.step()),
            }
        }
        world.loss_percent = 0;
        for node in 0..world.nodes.len() {
            world.reconnect(node);
        }
        world.run_to_quiet();
        world.check_complete();
    }
}

#[test]
fn lost_messages_without_a_reconnect_are_asked_for_again_and_end_in_silence() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut world = World::new(seed, &[Kind::Stock]);
        world.edit(0);
        world.run_to_quiet();
        // What the node believes to have sent is lost, and then it goes on.
        world.edit(0);
        world.to_gateway.clear();
        world.edit(0);
        world.run_to_quiet();
        world.check_complete();
    }
}

#[test]
fn after_a_failover_only_what_is_missing_is_sent() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut world = World::new(seed, &[Kind::Stock, Kind::Forgets]);
        for _ in 0..30 {
            let node = world.random.below(2) as usize;
            world.edit(node);
        }
        world.run_to_quiet();
        let committed = world.journal.hashes(&world.app, &world.document);
        // The leader is gone while the nodes go on.
        for _ in 0..5 {
            world.edit(0);
        }
        world.to_gateway.clear();
        world.failover();
        world.run_to_quiet();
        world.check_complete();
        let mut sent: Vec<_> =
            world.nodes.iter().flat_map(|node| &node.sent).map(|hash| Hash32(hash.0)).collect();
        sent.sort_unstable();
        let complete = world.journal.hashes(&world.app, &world.document);
        let missing: Vec<_> = complete.difference(&committed).copied().collect();
        assert_eq!(sent, missing, "exactly what was missing is sent, once");
    }
}

#[test]
fn a_node_in_sync_is_confirmed_once_and_then_left_alone() {
    let mut world = World::new(7, &[Kind::Stock]);
    world.edit(0);
    world.to_gateway.clear();
    world.reconnect(0);
    world.run_to_quiet();
    let before = world.delivered;
    assert!(before <= 4, "heads, request, change, confirmation; not {before}");
    // An anti-entropy round: the node begins with a fresh state.
    world.nodes[0].state = State::new();
    world.speak(0);
    world.run_to_quiet();
    assert_eq!(world.delivered, 2, "an announcement and its confirmation");
}

#[test]
fn a_node_that_lost_the_document_and_made_it_anew_converges() {
    let mut world = World::new(9, &[Kind::Stock]);
    for _ in 0..3 {
        world.edit(0);
    }
    world.run_to_quiet();
    let mut lost = world.nodes[0].document.fork();
    world.nodes[0].lost.extend(lost.get_changes(&[]).iter().map(Change::hash));
    world.nodes[0].document = Automerge::new();
    world.nodes[0].state = State::new();
    world.edit(0);
    world.run_to_quiet();
    let all: BTreeSet<Hash32> = world.nodes[0]
        .document
        .get_changes(&[])
        .iter()
        .chain(&lost.get_changes(&[]))
        .map(|change| Hash32(change.hash().0))
        .collect();
    assert_eq!(world.journal.hashes(&world.app, &world.document), all);
    lost.merge(&mut world.nodes[0].document).unwrap();
    let ours = world.observation.replica_json(&world.document).unwrap();
    assert_eq!(ours, json::document(&lost).to_string());
}

#[test]
fn a_history_that_comes_back_after_a_snapshot_replaced_it_is_journalled_as_the_merged_document() {
    let mut world = World::new(11, &[Kind::Stock]);
    for _ in 0..4 {
        world.edit(0);
    }
    world.run_to_quiet();
    let mut rebased = Automerge::new();
    rebased
        .transact::<_, _, automerge::AutomergeError>(|tx| tx.put(ROOT, "only", "latest"))
        .unwrap();
    let snapshot = || Sighting::Snapshot { key: "docs:one".into(), payload: rebased.save().into() };
    world.observation.take(world.links, snapshot(), world.now).unwrap();
    world.commit();
    world.observation.take(world.links, snapshot(), world.now).unwrap();
    assert_eq!(world.observation.items_left(), 0, "a snapshot is journalled once");
    assert_eq!(world.observation.replica_json(&world.document).unwrap(), r#"{"only":"latest"}"#);
    world.edit(0);
    world.run_to_quiet();
    let mut merged = world.nodes[0].document.fork();
    merged.merge(&mut rebased).unwrap();
    let stored =
        world.journal.stored_document(&org(), &world.app, &world.document).unwrap().unwrap();
    assert_eq!(json::document(&materialize(&stored).unwrap()), json::document(&merged));
}

#[test]
fn asking_in_vain_stops_and_begins_again_after_a_while() {
    let mut world = World::new(13, &[Kind::Stock]);
    world.edit(0);
    let (_, link, announcement) = world.to_gateway.pop_back().unwrap();
    world.to_gateway.clear();
    let payload = Bytes::from(announcement.encode());
    let mut answers = 0;
    let mut say = |world: &mut World| {
        let sighting = Sighting::Sync { key: "docs:one".into(), payload: payload.clone() };
        world.observation.take(link, sighting, world.now).unwrap();
        answers += world.observation.take_answers().len();
        answers
    };
    for _ in 0..50 {
        say(&mut world);
    }
    assert_eq!(say(&mut world), 3);
    world.now += Duration::from_secs(6);
    assert_eq!(say(&mut world), 4);
}
