//! Writing the audit log: without the entry there is no effect.

use super::overlay::Overlay;
use super::work::{Entry, shown};
use crate::audit::entry_hash;
use crate::codec;
use crate::command::{Actor, Command};
use crate::ids::{Hash32, OrgId};
use crate::keys;
use crate::outcome::Outcome;
use crate::query;
use crate::record::{AuditAction, AuditEntry, AuditHead};
use crate::space::{ReadError, Space};

/// The result in an entry of what was done.
const DONE: &str = "done";

/// What is to be written once.
pub(super) struct NewEntry<'e> {
    /// Who asked.
    pub(super) actor: &'e Actor,
    /// What.
    pub(super) action: AuditAction,
    /// On what.
    pub(super) target: &'e str,
    /// `done`, or the refusal's code.
    pub(super) result: &'e str,
    /// How many refusals it counts; 1 for everything else.
    pub(super) count: u32,
}

/// What a request is about, noted before it is decided.
pub(super) struct Subject {
    action: AuditAction,
    org: Option<OrgId>,
    existed: bool,
    target: String,
}

impl Subject {
    /// Notes what a request is about; `None` for leader work, which writes its entries itself.
    pub(super) fn of(
        overlay: &Overlay<'_>,
        command: &Command,
    ) -> Result<Option<Subject>, ReadError> {
        use AuditAction as Action;
        let organization = |action, org: &OrgId| {
            (action, Some(org.clone()), format!("organization/{}", shown(org.as_str())))
        };
        let within = |action, kind: &str, org: &OrgId, id: &str| {
            let target = format!("{kind}/{}/{}", shown(org.as_str()), shown(id));
            (action, Some(org.clone()), target)
        };
        let formation = |action, org, app: &str| within(action, "formation", org, app);
        let sink = |action, org, id: &str| within(action, "sink", org, id);
        let (action, org, target) = match command {
            Command::CreateOrganization(c) => organization(Action::CreateOrganization, &c.org_id),
            Command::UpdateOrganization(c) => organization(Action::UpdateOrganization, &c.org_id),
            Command::DeleteOrganization(c) => organization(Action::DeleteOrganization, &c.org_id),
            Command::CreateFormation(c) => {
                formation(Action::CreateFormation, &c.org_id, c.app_id.as_str())
            }
            Command::UpdateFormation(c) => {
                formation(Action::UpdateFormation, &c.org_id, c.app_id.as_str())
            }
            Command::DeleteFormation(c) => {
                formation(Action::DeleteFormation, &c.org_id, c.app_id.as_str())
            }
            Command::CreateSink(c) => sink(Action::CreateSink, &c.org_id, c.sink_id.as_str()),
            Command::UpdateSink(c) => sink(Action::UpdateSink, &c.org_id, c.sink_id.as_str()),
            Command::DeleteSink(c) => sink(Action::DeleteSink, &c.org_id, c.sink_id.as_str()),
            Command::UpdateSettings(_) => (Action::UpdateSettings, None, "settings".to_owned()),
            Command::RecordRefusals(_) => (Action::Refused, None, "refusals".to_owned()),
            Command::InitializeCluster(_)
            | Command::ClaimEpoch(_)
            | Command::AppendChanges(_)
            | Command::StagePart(_)
            | Command::CompactDocument(_)
            | Command::CommitCursors(_)
            | Command::TrimJournal(_)
            | Command::RememberPeers(_)
            | Command::RaiseVersion(_)
            | Command::RecordMembership(_) => return Ok(None),
        };
        let existed = match &org {
            Some(org) => query::organization(overlay, org)?.is_some(),
            None => false,
        };
        Ok(Some(Subject { action, org, existed, target }))
    }
}

/// Writes the entry of a request: into its organisation's chain if that existed before or exists
/// now, else into the cluster's.
pub(super) fn record_request(
    overlay: &mut Overlay<'_>,
    entry: &Entry,
    actor: &Actor,
    subject: Option<Subject>,
    outcome: &Outcome,
) -> Result<(), ReadError> {
    let Some(Subject { action, org, existed, target }) = subject else {
        return Ok(());
    };
    let result = match outcome {
        Outcome::Refused(refusal) => refusal.code.as_str(),
        // Each refusal that it carried has its entry.
        _ if action == AuditAction::Refused => return Ok(()),
        _ => DONE,
    };
    let chain = match &org {
        Some(org) if existed || query::organization(overlay, org)?.is_some() => Some(org),
        _ => None,
    };
    append(overlay, entry, chain, NewEntry { actor, action, target: &target, result, count: 1 })
}

/// Writes the entry of leader work that was done, into the cluster's chain.
pub(super) fn record_done(
    overlay: &mut Overlay<'_>,
    entry: &Entry,
    actor: &Actor,
    action: AuditAction,
    target: &str,
) -> Result<(), ReadError> {
    append(overlay, entry, None, NewEntry { actor, action, target, result: DONE, count: 1 })
}

/// Writes an entry at the end of a chain.
pub(super) fn append(
    overlay: &mut Overlay<'_>,
    entry: &Entry,
    chain: Option<&OrgId>,
    new: NewEntry<'_>,
) -> Result<(), ReadError> {
    let head = query::audit_head(overlay, chain)?;
    let mut written = AuditEntry {
        number: head.number + 1,
        time: entry.now,
        index: entry.index,
        actor: bounded(new.actor),
        action: new.action,
        target: shown(new.target).to_owned(),
        result: shown(new.result).to_owned(),
        count: new.count,
        previous: head.hash,
        hash: Hash32::default(),
    };
    written.hash = entry_hash(&written);
    let head = AuditHead { number: written.number, hash: written.hash };
    // Numbers only grow, so there is nothing under this one yet.
    overlay.put_fresh(Space::Audit, keys::audit(chain, written.number), codec::encode(&written));
    overlay.put_record(Space::AuditHead, keys::audit_head(chain), &head)
}

/// The log outlives everything, so nobody may fill it with one long text.
fn bounded(actor: &Actor) -> Actor {
    Actor {
        principal: shown(&actor.principal).to_owned(),
        source: shown(&actor.source).to_owned(),
        request_id: shown(&actor.request_id).to_owned(),
    }
}
