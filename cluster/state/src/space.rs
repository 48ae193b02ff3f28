//! The one table of key spaces.
//!
//! Every replicated row lives in a [`Space`]; its full key in the store is the space's byte followed
//! by the key below; [`crate::keys`] builds it. Text components (`org`, `app`, `document`) are written by [`crate::codec::Key`]:
//! each is escaped and terminated, so that no component can run into the next and an organisation's
//! rows are one contiguous range. Numbers are big-endian, so key order is numeric order.

use thiserror::Error;

/// Column families: rows that are written, compacted and dropped alike live together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Small records that requests read by key.
    Records,
    /// The journal: appended, read in order, trimmed from the front.
    Journal,
    /// Document bytes and the index of change hashes.
    Documents,
}

impl Family {
    /// All families, in the order in which snapshots write them.
    pub const ALL: [Family; 3] = [Family::Records, Family::Journal, Family::Documents];

    /// The stable name used in column family names and snapshot headers.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Records => "records",
            Family::Journal => "journal",
            Family::Documents => "documents",
        }
    }
}

macro_rules! spaces {
    ($($(#[$doc:meta])* $name:ident = $byte:literal in $family:ident, $label:literal;)*) => {
        /// A key space: what kind of row a key names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Space { $($(#[$doc])* $name = $byte,)* }

        impl Space {
            /// All spaces in key order.
            pub const ALL: &'static [Space] = &[$(Space::$name,)*];

            /// The first byte of every stored key of this space.
            pub const fn byte(self) -> u8 { self as u8 }

            /// The space of a stored key's first byte, `None` for a byte this build doesn't know.
            pub const fn from_byte(byte: u8) -> Option<Space> {
                match byte { $($byte => Some(Space::$name),)* _ => None }
            }

            /// The column family that holds this space.
            pub const fn family(self) -> Family {
                match self { $(Space::$name => Family::$family,)* }
            }

            /// The name shown to operators.
            pub const fn name(self) -> &'static str {
                match self { $(Space::$name => $label,)* }
            }
        }
    };
}

// Bytes are never reused: a retired space keeps its number as a comment here.
spaces! {
    /// key: a [`crate::record::ClusterKey`] byte; value: the cluster's settings, epoch and clock.
    Cluster = 0x01 in Records, "cluster";
    /// key: node id (16 hexadecimal digits as text); value: [`crate::record::RemovedNode`]: ids that never come back.
    RemovedNode = 0x02 in Records, "removed_node";
    /// key: `org`; value: [`crate::record::Organization`].
    Organization = 0x10 in Records, "organization";
    /// key: `org`; value: [`crate::record::OrganizationCounters`]: what quotas and positions are checked against.
    /// Outlives the organisation, so that one created again under the same id never reuses a sequence.
    OrganizationCounters = 0x11 in Records, "organization_counters";
    /// key: `org app`; value: [`crate::record::Formation`].
    Formation = 0x12 in Records, "formation";
    /// key: `org app`; value: [`crate::record::SealedSecret`]: the formation's genesis.
    Genesis = 0x13 in Records, "genesis";
    /// key: mesh id (8 ASCII bytes); value: [`crate::record::MeshIdOwner`]. Mesh ids are unique in the cluster.
    MeshId = 0x14 in Records, "mesh_id";
    /// key: `org app` + peer id; value: [`crate::record::Peer`]: where a mesh node was last seen.
    Peer = 0x15 in Records, "peer";
    /// key: `org` + sink id; value: [`crate::record::Sink`].
    Sink = 0x20 in Records, "sink";
    /// key: `org` + sink id; value: [`crate::record::SealedSecret`]: the sink's credentials.
    SinkCredentials = 0x21 in Records, "sink_credentials";
    /// key: `org` + sink id; value: [`crate::record::Cursor`].
    Cursor = 0x22 in Records, "cursor";
    /// key: `principal key`; value: [`crate::record::IdempotencyRecord`].
    Idempotency = 0x30 in Records, "idempotency";
    /// key: be64 expiry time in ms + `principal key`; value: empty. Finds what to forget in O(1).
    IdempotencyExpiry = 0x31 in Records, "idempotency_expiry";
    /// key: chain (`org`, or the empty component for the cluster's chain) + be64 number; value: [`crate::record::AuditEntry`].
    Audit = 0x40 in Records, "audit";
    /// key: chain; value: [`crate::record::AuditHead`].
    AuditHead = 0x41 in Records, "audit_head";
    /// key: `org` + be64 last sequence of the row; value: [`crate::record::JournalRow`].
    Journal = 0x50 in Journal, "journal";
    /// key: `org app document`; value: [`crate::record::Document`].
    Document = 0x60 in Records, "document";
    /// key: `org app document` + be64 document sequence; value: [`crate::record::StoredChange`].
    DocumentChange = 0x61 in Documents, "document_change";
    /// key: `org app document` + be32 part; value: up to 1 MiB of the document's saved form.
    DocumentBase = 0x62 in Documents, "document_base";
    /// key: `org app document` + 32-byte change hash; value: be64 document sequence. Outlives the journal.
    ChangeIndex = 0x63 in Documents, "change_index";
    /// key: `org app` + event id (32 bytes); value: empty. Snapshots and tombstones, whose identity is no change hash.
    EventIndex = 0x64 in Documents, "event_index";
    /// key: `org app document` + 32-byte staging id + be32 part; value: one part of what is too large for one command, until it is used.
    ChangePart = 0x65 in Documents, "change_part";
}

/// A row could not be read: the store is damaged or gone. Applying stops; the node ends.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The store failed.
    #[error("could not read the {space} row from the store")]
    Store {
        /// Name of the key space.
        space: &'static str,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The stored bytes are not what this build writes.
    #[error("could not decode the {space} row: {reason}")]
    Decode {
        /// Name of the key space.
        space: &'static str,
        /// What the decoder said.
        reason: String,
    },
}

/// Reads rows of one consistent view of the state.
pub trait Reader {
    /// Returns the value under `key`, `None` where there is no row.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Visits rows with `start <= key < end` in key order until `visit` returns `false`.
    ///
    /// `reverse` visits the same rows from the last to the first.
    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ReadError>;
}
