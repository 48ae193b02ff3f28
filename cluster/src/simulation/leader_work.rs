//! The leader's work as the gateway does it: journal what the mesh saw, deliver, move the cursor. Some
//! of it is late on purpose: a worker that doesn't know yet that its epoch is over.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use peat_gateway_state::command::{
    AppendChanges, CommitCursors, CreateFormation, CreateOrganization, CreateSink, CursorAdvance,
    DocumentBatch, EventBody, Fence, InitializeCluster, NewEvent, SequencedEvent,
};
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32, OrgId, SinkId};
use peat_gateway_state::record::{
    ClusterSettings, EnrollmentPolicy, OrganizationQuotas, SealedSecret, SinkFilter, SinkKind,
    SinkStart,
};
use peat_gateway_state::{Command, Envelope, Outcome, RefusalKind, query};

use super::clients::{actor, register};
use super::history::{History, LeaderWork};
use crate::handle::{Handle, Leadership};

/// How long one command may take.
const TIMEOUT: Duration = Duration::from_millis(2_500);
/// Between two rounds of work.
const PAUSE: Duration = Duration::from_millis(60);

/// The organisation whose formation the leader observes.
pub(super) fn org() -> OrgId {
    OrgId::from_trusted("observed")
}

fn app() -> AppId {
    AppId::from_trusted("formation")
}

/// The sink whose cursor the leader moves.
pub(super) fn sink() -> SinkId {
    SinkId::from_trusted("SINK1")
}

/// Works whenever this node leads, until the host crashes.
pub(super) async fn run(place: usize, handle: Handle, history: Rc<RefCell<History>>) {
    let mut leadership = handle.leadership();
    let mut worker = Worker { place, handle, history, old: None, events: 0 };
    loop {
        let now = *leadership.borrow_and_update();
        match now {
            Leadership::Leader { term, epoch } => {
                let fence = Fence { term, epoch: Some(epoch) };
                worker.round(fence).await;
                worker.remember(fence);
                // The node has stopped where nobody tells of leadership any more.
                if let Ok(Err(_)) = tokio::time::timeout(PAUSE, leadership.changed()).await {
                    return;
                }
            }
            Leadership::Follower => {
                match tokio::time::timeout(PAUSE * 10, leadership.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => worker.late().await,
                }
            }
        }
    }
}

struct Worker {
    place: usize,
    handle: Handle,
    history: Rc<RefCell<History>>,
    /// A fence of an earlier epoch.
    old: Option<Fence>,
    events: u64,
}

impl Worker {
    fn remember(&mut self, fence: Fence) {
        if self.old.is_none_or(|old| old.epoch < fence.epoch) {
            self.old = Some(fence);
        }
    }

    /// Journals an event, and acknowledges for the sink all that this node has applied.
    async fn round(&mut self, fence: Fence) {
        if let Some(old) = self.old.filter(|old| old.epoch < fence.epoch) {
            self.append(old).await;
        }
        self.append(fence).await;
        self.acknowledge(fence).await;
    }

    /// Work of an epoch that is over.
    async fn late(&mut self) {
        if let Some(old) = self.old {
            self.acknowledge(old).await;
        }
    }

    async fn append(&mut self, fence: Fence) {
        self.events += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&fence.epoch.map_or(0, |epoch| epoch.0).to_be_bytes());
        hash[8..16].copy_from_slice(&self.events.to_be_bytes());
        hash[16] = self.place as u8;
        let event = NewEvent {
            change_hash: Hash32(hash),
            actor: "a1".to_owned(),
            patches: b"[]".to_vec(),
            body: EventBody::Change { deps: Vec::new(), bytes: hash.to_vec() },
        };
        let batch = DocumentBatch {
            app_id: app(),
            document: DocumentKey::from_trusted("tracks:1"),
            events: vec![SequencedEvent::Inline(event)],
        };
        let batches = vec![batch];
        let command = AppendChanges { fence, org_id: org(), batches };
        self.propose(Command::AppendChanges(command), fence).await;
    }

    async fn acknowledge(&mut self, fence: Fence) {
        let view = self.handle.local_view();
        let counters = query::counters(&view, &org()).expect("a view can be read");
        drop(view);
        let advance = CursorAdvance {
            org_id: org(),
            sink_id: sink(),
            acknowledged: counters.journal_last,
            ahead: Vec::new(),
        };
        let command = CommitCursors { fence, advances: vec![advance] };
        self.propose(Command::CommitCursors(command), fence).await;
    }

    async fn propose(&self, command: Command, fence: Fence) {
        let envelope = Envelope::new(actor(), command);
        let Ok(committed) = self.handle.propose_leader_work(&envelope, TIMEOUT).await else {
            return;
        };
        let counted = match &committed.outcome {
            Outcome::Refused(refusal) => refusal.kind != RefusalKind::Fenced,
            _ => true,
        };
        self.history.borrow_mut().leader_work.push(LeaderWork {
            place: self.place,
            epoch: fence.epoch.unwrap_or(Epoch(0)),
            index: committed.index,
            counted,
        });
    }
}

/// The first leader's settings of a cluster.
pub(super) fn initialize(term: u64, cluster_id: [u8; 16]) -> Envelope {
    let settings = ClusterSettings {
        cluster_id,
        seal_domain: [1; 16],
        version: 1,
        // Longer than the wall clocks jump: a key that has expired makes a write happen again.
        idempotency_retention_ms: 24 * 3_600_000,
        journal_retention_ms: 0,
        key_check: Vec::new(),
        upgrade: Default::default(),
    };
    Envelope::new(actor(), Command::InitializeCluster(InitializeCluster { term, settings }))
}

/// Requests that make what the workload works on.
pub(super) fn set_up(registers: usize) -> Vec<Envelope> {
    let organization = |org_id: OrgId| {
        Command::CreateOrganization(CreateOrganization {
            org_id,
            display_name: "new".to_owned(),
            quotas: OrganizationQuotas::default(),
        })
    };
    let mut commands: Vec<Command> = (0..registers).map(register).map(organization).collect();
    commands.push(organization(org()));
    commands.push(Command::CreateFormation(CreateFormation {
        org_id: org(),
        app_id: app(),
        mesh_id: "0123ABCD".to_owned(),
        enrollment_policy: EnrollmentPolicy::Controlled,
        genesis: SealedSecret { envelope: vec![9; 8], record_version: 1 },
        static_peers: Vec::new(),
    }));
    commands.push(Command::CreateSink(CreateSink {
        org_id: org(),
        sink_id: sink(),
        sink_type: SinkKind::File { name: "out".to_owned() },
        filter: SinkFilter::default(),
        start: SinkStart::Now,
        credentials: None,
    }));
    commands.into_iter().map(|command| Envelope::new(actor(), command)).collect()
}
