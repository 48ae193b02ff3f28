//! How collections are synced.

use std::collections::BTreeSet;

/// Collections of which published nodes send only the latest state, as snapshots.
const LATEST_ONLY: [&str; 12] = [
    "beacons",
    "platforms",
    "tracks",
    "nodes",
    "cells",
    "node_states",
    "squad_summaries",
    "platoon_summaries",
    "company_summaries",
    "cell-summaries",
    "cohort-summaries",
    "federation-summaries",
];

/// How a collection's documents travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SyncMode {
    /// As whole snapshots, which nobody answers.
    LatestOnly,
    /// By sync messages, which the receiver must answer to get anything.
    FullHistory,
}

/// Which collections are synced how. All that are not named have full history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Collections {
    latest_only: BTreeSet<String>,
}

impl Default for Collections {
    fn default() -> Self {
        Self::latest_only(LATEST_ONLY)
    }
}

impl Collections {
    /// Makes exactly these collections [`SyncMode::LatestOnly`].
    #[must_use]
    pub fn latest_only<T: Into<String>>(collections: impl IntoIterator<Item = T>) -> Self {
        Self { latest_only: collections.into_iter().map(Into::into).collect() }
    }

    /// Returns how a document travels.
    #[must_use]
    pub fn mode(&self, document_key: &str) -> SyncMode {
        let collection = split_key(document_key).map_or(document_key, |(collection, _)| collection);
        if self.latest_only.contains(collection) {
            SyncMode::LatestOnly
        } else {
            SyncMode::FullHistory
        }
    }
}

/// Splits a document's key into its collection and id, at the first `:`.
#[must_use]
pub fn split_key(document_key: &str) -> Option<(&str, &str)> {
    document_key.split_once(':')
}
