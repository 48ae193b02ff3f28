//! A journal in memory. It refuses cursors that pass what the destination acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use peat_gateway_cluster::Changes;
use peat_gateway_state::ReadError;
use peat_gateway_state::command::CursorAdvance;
use peat_gateway_state::ids::{AppId, DocumentKey, Epoch, Hash32, OrgId, SinkId};
use peat_gateway_state::query::JournalledEvent;
use peat_gateway_state::record::{
    CURSOR_RANGES_MAX, Cursor, EventKind, JournalEvent, Sink, SinkFilter, SinkKind, event_id,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::cdc::journal::{Journal, JournalExtent, READ_EVENTS_MAX, WorkError};

pub(crate) fn org() -> OrgId {
    OrgId::from_trusted("acme")
}

pub(crate) fn sink_id() -> SinkId {
    SinkId::from_trusted("01SINK")
}

/// One organisation's journal and its sinks.
pub(crate) struct MemoryJournal {
    epoch: Epoch,
    changes: watch::Sender<Changes>,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) events: Vec<JournalledEvent>,
    pub(crate) last: u64,
    pub(crate) trimmed: u64,
    document_sequences: BTreeMap<String, u64>,
    pub(crate) sinks: BTreeMap<SinkId, Sink>,
    pub(crate) cursors: BTreeMap<SinkId, Cursor>,
    pub(crate) credentials: Option<Vec<u8>>,
    /// What destinations acknowledged; `None` where the test doesn't record it.
    pub(crate) acknowledged: Option<BTreeSet<u64>>,
    pub(crate) retention_ms: u64,
    /// Rows above which the journal counts as nearly full.
    pub(crate) rows_max: u64,
    /// Answers of the next commits.
    pub(crate) commit_failures: u32,
    pub(crate) is_fenced: bool,
    pub(crate) commits: u64,
    pub(crate) violations: Vec<String>,
}

impl MemoryJournal {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch(7),
            changes: watch::channel(Changes::default()).0,
            state: Mutex::new(State { rows_max: u64::MAX, ..State::default() }),
        }
    }

    /// The same cluster under the next leader.
    pub(crate) fn next_epoch(self) -> Self {
        let changes = watch::channel(*self.changes.borrow()).0;
        Self { epoch: Epoch(self.epoch.0 + 10), changes, state: self.state }
    }

    pub(crate) fn put_sink(&self, kind: SinkKind, enabled: bool, revision: u64) -> Sink {
        let sink = Sink {
            sink_id: sink_id(),
            org_id: org(),
            sink_type: kind,
            enabled,
            created_at: 1,
            revision,
            filter: SinkFilter::default(),
        };
        let mut state = self.state.lock().unwrap();
        state.sinks.insert(sink_id(), sink.clone());
        state.cursors.entry(sink_id()).or_default();
        drop(state);
        self.changes.send_modify(|changes| changes.configuration += 1);
        sink
    }

    /// Journals one event of each document; returns the last sequence.
    pub(crate) fn append(&self, documents: &[String]) -> u64 {
        let mut state = self.state.lock().unwrap();
        for document in documents {
            let position = state.document_sequences.entry(document.clone()).or_default();
            *position += 1;
            let document_sequence = *position;
            state.last += 1;
            let sequence = state.last;
            let app = AppId::from_trusted("alpha");
            let key = DocumentKey::from_trusted(document.clone());
            let change_hash = Hash32(Sha256::digest(sequence.to_be_bytes()).into());
            let event = JournalEvent {
                event_id: event_id(&org(), &app, &key, EventKind::Change, &change_hash),
                app_id: app,
                document: key,
                kind: EventKind::Change,
                change_hash,
                document_sequence,
                observed_at: 1_700_000_000_000 + sequence,
                actor: "a1".into(),
                patches: format!("[{{\n\t\"op\": \"set {sequence}\"}}]").into_bytes(),
            };
            state.events.push(JournalledEvent { sequence, event });
        }
        let last = state.last;
        drop(state);
        self.changes.send_modify(|changes| changes.journal += 1);
        last
    }

    pub(crate) fn committed(&self) -> Cursor {
        self.state.lock().unwrap().cursors.get(&sink_id()).cloned().unwrap_or_default()
    }

    pub(crate) fn acknowledged(&self, sequences: impl IntoIterator<Item = u64>) {
        if let Some(known) = &mut self.state.lock().unwrap().acknowledged {
            known.extend(sequences);
        }
    }

    pub(crate) fn assert_promises_held(&self) {
        let state = self.state.lock().unwrap();
        assert!(state.violations.is_empty(), "{:?}", state.violations);
    }
}

impl State {
    fn advance(&mut self, advance: CursorAdvance, epoch: Epoch) {
        let CursorAdvance { sink_id, acknowledged, ahead, .. } = advance;
        let Some(stored) = self.cursors.get(&sink_id) else { return };
        let mut complaints = Vec::new();
        if acknowledged > self.last || ahead.len() > CURSOR_RANGES_MAX {
            complaints.push(format!("cursor {acknowledged} with {} ranges", ahead.len()));
        }
        let mut above = acknowledged + 1;
        for (first, last) in &ahead {
            if *first <= above || last < first || *last > self.last {
                complaints.push(format!("range {first}..={last} behind {above}"));
            }
            above = *last;
        }
        if let Some(known) = &self.acknowledged {
            let filter = &self.sinks[&sink_id].filter;
            let covers = |sequence: u64| {
                sequence <= acknowledged
                    || ahead.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
            };
            for JournalledEvent { sequence, event } in &self.events {
                let is_ours = filter.matches(&event.app_id, &event.document);
                if is_ours && covers(*sequence) && !known.contains(sequence) {
                    complaints.push(format!("cursor {acknowledged} {ahead:?} passes {sequence}"));
                }
            }
        }
        if acknowledged >= stored.acknowledged {
            let cursor = Cursor { acknowledged, ahead, epoch, updated_at: 0 };
            self.cursors.insert(sink_id, cursor);
        }
        self.violations.extend(complaints);
    }
}

impl Journal for MemoryJournal {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    fn enabled_sinks(&self) -> Result<Vec<Sink>, ReadError> {
        let state = self.state.lock().unwrap();
        Ok(state.sinks.values().filter(|sink| sink.enabled).cloned().collect())
    }

    fn cursor(&self, _org: &OrgId, sink: &SinkId) -> Result<Cursor, ReadError> {
        Ok(self.state.lock().unwrap().cursors.get(sink).cloned().unwrap_or_default())
    }

    fn events(&self, _org: &OrgId, after: u64) -> Result<Vec<JournalledEvent>, ReadError> {
        let state = self.state.lock().unwrap();
        let found = state.events.iter().filter(|e| e.sequence > after).take(READ_EVENTS_MAX);
        Ok(found.cloned().collect())
    }

    fn extent(&self, org: &OrgId) -> Result<JournalExtent, ReadError> {
        let state = self.state.lock().unwrap();
        let (last, trimmed) = (state.last, state.trimmed);
        let nearly_full = last - trimmed > state.rows_max;
        Ok(JournalExtent { org_id: org.clone(), last, trimmed, nearly_full })
    }

    fn extents(&self) -> Result<Vec<JournalExtent>, ReadError> {
        let extent = self.extent(&org())?;
        Ok(if extent.last > extent.trimmed { vec![extent] } else { Vec::new() })
    }

    fn retention_ms(&self) -> Result<u64, ReadError> {
        Ok(self.state.lock().unwrap().retention_ms)
    }

    async fn commit(&self, advances: Vec<CursorAdvance>) -> Result<(), WorkError> {
        let mut state = self.state.lock().unwrap();
        if state.is_fenced {
            return Err(WorkError::Over);
        }
        if state.commit_failures > 0 {
            state.commit_failures -= 1;
            return Err(WorkError::Later("injected".into()));
        }
        state.commits += 1;
        for advance in advances {
            state.advance(advance, self.epoch);
        }
        Ok(())
    }

    async fn trim(&self, _org: OrgId, through: u64) -> Result<(), WorkError> {
        let mut state = self.state.lock().unwrap();
        if state.is_fenced {
            return Err(WorkError::Over);
        }
        let slowest = state
            .sinks
            .values()
            .filter(|sink| sink.enabled)
            .map(|sink| state.cursors[&sink.sink_id].acknowledged)
            .min();
        if slowest.is_some_and(|slowest| slowest < through) {
            return Err(WorkError::Refused("in use".into()));
        }
        // At most 8 events a command, as the real state deletes a limited number of rows.
        let target = through.min(state.trimmed + 8);
        state.events.retain(|event| event.sequence > target);
        state.trimmed = target;
        Ok(())
    }

    async fn credentials(&self, _sink: &Sink) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        Ok(self.state.lock().unwrap().credentials.clone().map(Zeroizing::new))
    }
}
