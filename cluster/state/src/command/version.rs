//! Which version of the cluster a command needs: the one table.
//!
//! A cluster has a version ([`crate::record::ClusterSettings::version`]): the newest that every
//! member's build understands and that an upgrade was finished to. A command that needs more is
//! refused before it is proposed, and refused by `apply` if it gets there all the same. So builds of
//! two versions run side by side, and the older one can come back until the version is raised.
//!
//! ```text
//!   version 1   builds without a version gate            (they say nothing of their versions)
//!   version 2   builds with it                           [`crate::VERSION`]
//! ```
//!
//! # How to add a command, or a form of one
//!
//! 1. A new variant of [`Command`] gets the next free number, and its arm in
//!    [`Command::minimum_version`]: the version of the release that brings it, today 2. The match has no
//!    `_`, so that the compiler asks for the arm. A variant that isn't a version-1 variant and claims
//!    version 1 fails the test `commands_that_version_1_does_not_know_need_more`.
//! 2. A new *form* of a variant (an optional field that is set, a new variant of an enum inside it, such
//!    as another [`crate::record::SinkKind`], or a value that makes `apply` do something new) needs the
//!    new version only in that form: the arm looks into the command, as that of `UpdateSettings` does.
//!    Older builds skip a field that they don't know, and then write a record without it: the nodes would
//!    differ. What such a command writes (new record fields, new spaces, new audit actions) may
//!    therefore be written by it alone.
//! 3. A command that is proposed on a cluster of an older version gets
//!    `version_not_enabled`; leader work asks `Handle::cluster_version` first, and waits.
//! 4. While a release isn't out, its new commands share its version. The first change after a release
//!    raises [`crate::VERSION`] by one, and pins that release in `tests/fixtures/compat`.
//!
//! What a command needs is never changed afterwards: the logs of running clusters depend on it.

use super::Command;

/// The version of clusters that were made before there was a gate; what every build understands.
pub const FIRST_VERSION: u16 = 1;

impl Command {
    /// Returns the version that a cluster must have for this command, and a build to understand it.
    ///
    /// The two that set the version need the version that they set: a build that doesn't know it
    /// stops at that entry, before anything that it could misread.
    #[deny(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]
    pub fn minimum_version(&self) -> u16 {
        match self {
            Command::CreateOrganization(_)
            | Command::UpdateOrganization(_)
            | Command::DeleteOrganization(_)
            | Command::CreateFormation(_)
            | Command::UpdateFormation(_)
            | Command::DeleteFormation(_)
            | Command::CreateSink(_)
            | Command::UpdateSink(_)
            | Command::DeleteSink(_)
            | Command::RecordRefusals(_)
            | Command::ClaimEpoch(_)
            | Command::AppendChanges(_)
            | Command::StagePart(_)
            | Command::CompactDocument(_)
            | Command::CommitCursors(_)
            | Command::TrimJournal(_)
            | Command::RememberPeers(_) => FIRST_VERSION,
            Command::UpdateSettings(c) => match c.upgrade {
                None => FIRST_VERSION,
                Some(_) => 2,
            },
            Command::RecordMembership(_) => 2,
            Command::InitializeCluster(c) => c.settings.version.max(FIRST_VERSION),
            Command::RaiseVersion(c) => c.version.max(2),
        }
    }

    /// Whether it sets the cluster's version: it is not held to the version that is there.
    pub fn sets_version(&self) -> bool {
        matches!(self, Command::InitializeCluster(_) | Command::RaiseVersion(_))
    }
}
