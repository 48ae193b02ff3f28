//! Sinks and how far each has got.

use minicbor::{Decode, Encode};
use serde::Serialize;

use crate::ids::{AppId, Epoch, OrgId, SinkId};

/// Most acknowledged ranges above the watermark that a cursor holds.
pub const CURSOR_RANGES_MAX: usize = 256;

/// Most entries in each list of a [`SinkFilter`]; more are refused with `invalid_filter`.
pub const FILTER_ENTRIES_MAX: usize = 256;
/// Most bytes of a sink's URL or subject prefix; more are refused with `invalid_sink_type`.
pub const SINK_TEXT_BYTES_MAX: usize = 2048;

/// A destination of an organisation's events.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Sink {
    /// Made by the proposing node.
    #[n(0)]
    pub sink_id: SinkId,
    /// The organisation whose events it gets; never another's.
    #[n(1)]
    pub org_id: OrgId,
    /// Where and how.
    #[n(2)]
    pub sink_type: SinkKind,
    /// Whether events are delivered. A disabled sink doesn't hold the journal.
    #[n(3)]
    pub enabled: bool,
    /// Unix time in ms.
    #[n(4)]
    pub created_at: u64,
    /// Log index of the command that wrote this version; the `ETag`.
    #[n(5)]
    pub revision: u64,
    /// Which events; the default is all of the organisation's.
    #[n(6)]
    pub filter: SinkFilter,
}

/// What kind of destination. Credentials are never here: they are sealed in a row of their own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub enum SinkKind {
    /// NDJSON files under the leader's data directory.
    #[n(0)]
    File {
        /// Directory name below the node's sink root: the rules of an org id.
        #[n(0)]
        name: String,
    },
    /// HTTP POST per event, signed as Standard Webhooks 1.0.0 says.
    #[n(1)]
    Webhook {
        /// Absolute `http` or `https` URL.
        #[n(0)]
        url: String,
    },
    /// A NATS JetStream stream; subject `{org}.{prefix}.{app}.{document}`.
    #[n(2)]
    Nats {
        /// `nats://host:port` or `tls://host:port`; empty means the node's configured server.
        #[n(0)]
        url: String,
        /// Second token of the subject: `[A-Za-z0-9_-]+` tokens joined by dots.
        #[n(1)]
        subject_prefix: String,
    },
}

/// Which of an organisation's events a sink gets. Empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SinkFilter {
    /// Formations.
    #[n(0)]
    pub app_ids: Vec<AppId>,
    /// Collections: the part of a document key before the first `:`.
    #[n(1)]
    pub collections: Vec<String>,
}

impl SinkFilter {
    /// Whether an event of this formation and document key matches.
    pub fn matches(&self, app: &AppId, document: &crate::ids::DocumentKey) -> bool {
        (self.app_ids.is_empty() || self.app_ids.contains(app))
            && (self.collections.is_empty()
                || self.collections.iter().any(|c| c == document.collection()))
    }
}

/// Where a new sink begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum SinkStart {
    /// With the first event after its creation.
    #[n(0)]
    Now,
    /// With the oldest event that the journal still holds.
    #[n(1)]
    Earliest,
}

/// How far a sink has acknowledged. Never moves backwards; written only by the leader of `epoch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Cursor {
    /// Every event up to and including this sequence is acknowledged (or doesn't match the filter).
    #[n(0)]
    pub acknowledged: u64,
    /// Acknowledged ranges above the watermark: inclusive, ascending, disjoint, at most 256.
    #[n(1)]
    pub ahead: Vec<(u64, u64)>,
    /// The epoch that wrote it last.
    #[n(2)]
    pub epoch: Epoch,
    /// Unix time in ms of the last write.
    #[n(3)]
    pub updated_at: u64,
}
