//! One command being decided: the rows as it sees and changes them, and where its entry stands.

use super::overlay::Overlay;
use super::{ApplyError, Effects};
use crate::ids::{AppId, OrgId};
use crate::outcome::{Outcome, Refusal, RefusalKind, code};
use crate::query;
use crate::record::{Formation, Organization};
use crate::space::ReadError;

/// Where the entry stands, with the cluster's clock after it.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// Its log index.
    pub(super) index: u64,
    /// Its term.
    pub(super) term: u64,
    /// The cluster's clock, Unix ms: never below an earlier entry's.
    pub(super) now: u64,
}

/// A command being decided.
pub(super) struct Work<'w> {
    /// All rows, with what this command changed.
    pub(super) rows: Overlay<'w>,
    /// Its entry.
    pub(super) entry: Entry,
    /// What it changed, for the workers of this node.
    pub(super) effects: Effects,
}

/// Why a decision ended early.
pub(super) enum Halt {
    /// The command is refused; its changes are dropped.
    Refused(Refusal),
    /// The store failed; the node stops.
    Read(ReadError),
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        Halt::Read(error)
    }
}

/// What deciding gives.
pub(super) type Decided<T = Outcome> = Result<T, Halt>;

/// Refuses the command.
pub(super) fn refuse<T>(kind: RefusalKind, code: &str, detail: impl Into<String>) -> Decided<T> {
    Err(Halt::Refused(Refusal::new(kind, code, detail)))
}

/// Decides on an overlay of its own; keeps its changes only if the command isn't refused.
pub(super) fn attempt(
    overlay: &mut Overlay<'_>,
    entry: Entry,
    decide: impl FnOnce(&mut Work<'_>) -> Decided,
) -> Result<(Outcome, Effects), ApplyError> {
    let mut work = Work { rows: Overlay::new(overlay), entry, effects: Effects::default() };
    match decide(&mut work) {
        Ok(outcome) => {
            let effects = work.effects;
            let changed = work.rows.into_changed();
            overlay.absorb(changed);
            Ok((outcome, effects))
        }
        Err(Halt::Refused(refusal)) => Ok((refusal.into(), Effects::default())),
        Err(Halt::Read(error)) => Err(error.into()),
    }
}

impl Work<'_> {
    /// The organisation in which something else is to be done.
    pub(super) fn parent_organization(&self, org: &OrgId) -> Decided<Organization> {
        match query::organization(&self.rows, org)? {
            Some(organization) => Ok(organization),
            None => refuse(
                RefusalKind::NotFound,
                code::ORGANIZATION_NOT_FOUND,
                format!("there is no organization '{}'", shown(org.as_str())),
            ),
        }
    }

    /// The formation in which leader work is to be done.
    pub(super) fn parent_formation(&self, org: &OrgId, app: &AppId) -> Decided<Formation> {
        match query::formation(&self.rows, org, app)? {
            Some(formation) => Ok(formation),
            None => refuse(
                RefusalKind::NotFound,
                code::FORMATION_NOT_FOUND,
                format!("there is no formation '{}/{}'", shown(org.as_str()), shown(app.as_str())),
            ),
        }
    }
}

/// Refuses a command on something that doesn't exist.
pub(super) fn found<T>(record: Option<T>, what: impl FnOnce() -> String) -> Decided<T> {
    match record {
        Some(record) => Ok(record),
        None => refuse(RefusalKind::NotFound, code::NOT_FOUND, format!("there is no {}", what())),
    }
}

/// Refuses a command whose `If-Match` names another revision.
pub(super) fn check_revision(expected: Option<u64>, revision: u64) -> Decided<()> {
    match expected {
        Some(expected) if expected != revision => refuse(
            RefusalKind::PreconditionFailed,
            code::PRECONDITION_FAILED,
            format!("the revision is {revision}, not {expected}; read it again"),
        ),
        _ => Ok(()),
    }
}

/// Most bytes of a text from a command that are repeated in a detail or in the audit log.
const SHOWN_BYTES_MAX: usize = 1024;

/// Cuts a text of unknown length to what may be repeated.
pub(super) fn shown(text: &str) -> &str {
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX.min(text.len()));
    text.get(..end).unwrap_or_default()
}
