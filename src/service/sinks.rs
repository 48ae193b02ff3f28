//! Sinks: destinations whose credentials are sealed before they are proposed and never shown again.

use peat_gateway_state::command::{CreateSink, DeleteSink, UpdateSink};
use peat_gateway_state::ids::{OrgId, SinkId};
use peat_gateway_state::record::{Cursor, SealedSecret, Sink, SinkFilter, SinkKind, SinkStart};
use peat_gateway_state::{Command, Outcome, query};

use super::access::{Operation, authorize};
use super::credentials::{SecretText, SinkCredentials, fresh_signing_secret};
use super::{
    Call, Error, Page, Reply, Service, Snapshot, binding, destination, existing_organization,
    org_id, seal_domain, unexpected,
};
use crate::keys::SecretKind;

/// What a new sink is made of.
#[derive(Clone, Debug)]
pub struct NewSink {
    /// Where and how.
    pub sink_type: SinkKind,
    /// Which events.
    pub filter: SinkFilter,
    /// Where it begins.
    pub start: SinkStart,
    /// What it needs to get in, and signs with.
    pub credentials: Option<SinkCredentials>,
}

/// What to change in a sink; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SinkChanges {
    /// Starts or stops delivery.
    pub enabled: Option<bool>,
    /// Another destination of the same kind.
    pub sink_type: Option<SinkKind>,
    /// Which events, from now on.
    pub filter: Option<SinkFilter>,
    /// All credentials anew; only a signing secret that isn't given stays.
    pub credentials: Option<SinkCredentials>,
}

/// A sink that was written, and the signing secret if it was made for it: shown this once.
#[derive(Clone, Debug)]
pub struct WrittenSink {
    /// The sink.
    pub sink: Sink,
    /// The secret that a webhook's receiver verifies with.
    pub signing_secret: Option<SecretText>,
}

/// How far a sink has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is acknowledged.
    pub cursor: Cursor,
    /// Sequence of the newest event in the organisation's journal.
    pub head: u64,
    /// Events up to the head that aren't acknowledged; not all of them need match the filter.
    pub lag: u64,
}

impl Service {
    /// Creates a sink; a webhook without a signing secret gets one, shown in this answer only. A
    /// retry with the same idempotency key shows it again.
    ///
    /// # Errors
    /// `invalid_sink_type`, `invalid_filter`, `invalid_credentials`, `organization_not_found`,
    /// `quota_exceeded`, `key_provider_unavailable`.
    pub async fn create_sink(
        &self,
        call: &Call,
        org: &str,
        new: NewSink,
    ) -> Result<Reply<WrittenSink>, Error> {
        authorize(call.principal, Operation::CreateSink)?;
        let org_id = org_id(org)?;
        destination::check(&new.sink_type, &self.settings)?;
        let (credentials, made) = complete(new.credentials, Vec::new(), &new.sink_type)?;
        let sink_id = SinkId::from_trusted(ulid::Ulid::generate().to_string());
        let sealed = match &credentials {
            Some(credentials) => {
                let snapshot = self.read_newest(call.consistency.min_index).await?;
                Some(self.seal(seal_domain(&snapshot)?, &org_id, &sink_id, 1, credentials).await?)
            }
            None => None,
        };
        let command = Command::CreateSink(CreateSink {
            org_id: org_id.clone(),
            sink_id: sink_id.clone(),
            sink_type: new.sink_type,
            filter: new.filter,
            start: new.start,
            credentials: sealed,
        });
        let Reply { value: sink, index } = sink(self.propose(call, command).await?)?;
        let signing_secret = match made {
            // The answer to a retry: the sink, and so the secret, are those of the first attempt.
            Some(_) if sink.sink_id != sink_id => self.first_secret(&sink, index).await?,
            made => made,
        };
        Ok(Reply { value: WrittenSink { sink, signing_secret }, index })
    }

    /// Returns an organisation's sinks by id, those after `after`.
    ///
    /// # Errors
    /// `not_found` where there is no such organisation.
    pub async fn sinks(
        &self,
        call: &Call,
        org: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Reply<Page<Sink>>, Error> {
        authorize(call.principal, Operation::ReadSink)?;
        let org = org_id(org)?;
        let after = after.map(SinkId::from_trusted);
        let snapshot = self.read(call).await?;
        existing_organization(&snapshot, &org)?;
        let found = query::sinks(snapshot.reader(), &org, after.as_ref(), limit + 1)?;
        Ok(Reply { value: Page::cut(found, limit), index: snapshot.index() })
    }

    /// Returns a sink.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn sink(&self, call: &Call, org: &str, sink: &str) -> Result<Reply<Sink>, Error> {
        authorize(call.principal, Operation::ReadSink)?;
        let (org, sink) = (org_id(org)?, sink_id(sink)?);
        let snapshot = self.read(call).await?;
        let value = existing_sink(&snapshot, &org, &sink)?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Returns how far a sink has got.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn sink_progress(
        &self,
        call: &Call,
        org: &str,
        sink: &str,
    ) -> Result<Reply<Progress>, Error> {
        authorize(call.principal, Operation::ReadSink)?;
        let (org, sink) = (org_id(org)?, sink_id(sink)?);
        let snapshot = self.read(call).await?;
        existing_sink(&snapshot, &org, &sink)?;
        let cursor = query::cursor(snapshot.reader(), &org, &sink)?.unwrap_or_default();
        let head = query::journal_bounds(snapshot.reader(), &org)?.last;
        let ahead: u64 = cursor.ahead.iter().map(|(first, last)| last - first + 1).sum();
        let lag = head.saturating_sub(cursor.acknowledged).saturating_sub(ahead);
        Ok(Reply { value: Progress { cursor, head, lag }, index: snapshot.index() })
    }

    /// Changes, pauses or resumes a sink.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`, `invalid_sink_type`, `invalid_filter`,
    /// `invalid_credentials`; `record_version_conflict` where another request changed the credentials
    /// at the same time; `credentials_required` where it moves to another server.
    pub async fn update_sink(
        &self,
        call: &Call,
        org: &str,
        sink_text: &str,
        expected_revision: Option<u64>,
        changes: SinkChanges,
    ) -> Result<Reply<WrittenSink>, Error> {
        authorize(call.principal, Operation::UpdateSink)?;
        let (org_id, sink_id) = (org_id(org)?, sink_id(sink_text)?);
        let mut command = UpdateSink {
            org_id: org_id.clone(),
            sink_id: sink_id.clone(),
            expected_revision,
            enabled: changes.enabled,
            sink_type: changes.sink_type,
            filter: changes.filter,
            credentials: None,
        };
        let mut made = None;
        if let Some(kind) = &command.sink_type {
            destination::check(kind, &self.settings)?;
        }
        if command.sink_type.is_some() || changes.credentials.is_some() {
            // Where the sink is gone, `apply` says so, or gives the answer that it gave before.
            let stored = self.stored(call, &org_id, &sink_id).await?;
            if let Some(stored) = stored {
                let (sealed, secret) = self
                    .new_credentials(&stored, command.sink_type.as_ref(), changes.credentials)
                    .await?;
                (command.credentials, made) = (sealed, secret);
            }
        }
        let Reply { value: sink, index } =
            sink(self.propose(call, Command::UpdateSink(command)).await?)?;
        Ok(Reply { value: WrittenSink { sink, signing_secret: made }, index })
    }

    /// Deletes a sink with its credentials and cursor.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`.
    pub async fn delete_sink(
        &self,
        call: &Call,
        org: &str,
        sink: &str,
        expected_revision: Option<u64>,
    ) -> Result<Reply<()>, Error> {
        authorize(call.principal, Operation::DeleteSink)?;
        let command =
            DeleteSink { org_id: org_id(org)?, sink_id: sink_id(sink)?, expected_revision };
        let reply = self.propose(call, Command::DeleteSink(command)).await?;
        Ok(reply.map(|_| ()))
    }

    /// Reads a sink and its sealed credentials.
    async fn stored(
        &self,
        call: &Call,
        org: &OrgId,
        sink: &SinkId,
    ) -> Result<Option<Stored>, Error> {
        let snapshot = self.read_newest(call.consistency.min_index).await?;
        let Some(sink) = query::sink(snapshot.reader(), org, sink)? else {
            return Ok(None);
        };
        let sealed = query::sink_credentials(snapshot.reader(), org, &sink.sink_id)?;
        Ok(Some(Stored { sink, sealed, seal_domain: seal_domain(&snapshot)? }))
    }

    /// Seals what an update makes of the stored credentials; `None` where they stay.
    async fn new_credentials(
        &self,
        stored: &Stored,
        kind: Option<&SinkKind>,
        given: Option<SinkCredentials>,
    ) -> Result<(Option<SealedSecret>, Option<SecretText>), Error> {
        let old = self.open(stored).await?;
        let Some(given) = given else {
            let moved =
                kind.is_some_and(|kind| !destination::same_server(kind, &stored.sink.sink_type));
            if moved && old.is_some_and(|old| old.are_sent()) {
                // Else whoever may change a sink, but doesn't know its token, could have it sent to them.
                return Err(Error::field(
                    "credentials_required",
                    "/credentials",
                    "the sink moves to another server: give its credentials again",
                ));
            }
            return Ok((None, None));
        };
        let kind = kind.unwrap_or(&stored.sink.sink_type);
        let had_some = old.is_some();
        let old_secrets = old.map(|old| old.signing_secrets).unwrap_or_default();
        let (credentials, made) = complete(Some(given), old_secrets, kind)?;
        let Some(credentials) = credentials else {
            if had_some {
                // A command can replace a sealed row, not delete it.
                return Err(Error::field(
                    "invalid_credentials",
                    "/credentials",
                    "credentials can be replaced but not taken away; create a new sink",
                ));
            }
            return Ok((None, None));
        };
        let version = stored.sealed.as_ref().map_or(0, |sealed| sealed.record_version) + 1;
        let Sink { org_id, sink_id, .. } = &stored.sink;
        let sealed = self.seal(stored.seal_domain, org_id, sink_id, version, &credentials).await?;
        Ok((Some(sealed), made))
    }

    async fn seal(
        &self,
        seal_domain: [u8; 16],
        org: &OrgId,
        sink: &SinkId,
        record_version: u64,
        credentials: &SinkCredentials,
    ) -> Result<SealedSecret, Error> {
        let kind = SecretKind::SinkCredentials;
        let bound = binding(seal_domain, org, kind, sink.as_str(), record_version);
        let envelope = self.keyring.seal(&bound, &credentials.encode()).await?;
        Ok(SealedSecret { envelope, record_version })
    }

    async fn open(&self, stored: &Stored) -> Result<Option<SinkCredentials>, Error> {
        let Some(sealed) = &stored.sealed else {
            return Ok(None);
        };
        let Sink { org_id, sink_id, .. } = &stored.sink;
        let kind = SecretKind::SinkCredentials;
        let bound =
            binding(stored.seal_domain, org_id, kind, sink_id.as_str(), sealed.record_version);
        let opened = self.keyring.open(&bound, &sealed.envelope).await?;
        SinkCredentials::decode(&opened).map(Some)
    }

    /// The signing secret that a sink was created with; `None` once it was changed or deleted.
    async fn first_secret(&self, sink: &Sink, index: u64) -> Result<Option<SecretText>, Error> {
        let snapshot = self.read_newest(index).await?;
        let sealed = query::sink_credentials(snapshot.reader(), &sink.org_id, &sink.sink_id)?;
        let Some(sealed) = sealed.filter(|sealed| sealed.record_version == 1) else {
            return Ok(None);
        };
        let seal_domain = seal_domain(&snapshot)?;
        drop(snapshot);
        let stored = Stored { sink: sink.clone(), sealed: Some(sealed), seal_domain };
        let opened = self.open(&stored).await?.unwrap_or_default();
        Ok(opened.signing_secrets.into_iter().next())
    }
}

/// A sink as an update finds it.
struct Stored {
    sink: Sink,
    sealed: Option<SealedSecret>,
    seal_domain: [u8; 16],
}

fn sink_id(text: &str) -> Result<SinkId, Error> {
    SinkId::parse(text).map_err(|_| Error::not_found("sink", text))
}

fn existing_sink(snapshot: &Snapshot, org: &OrgId, sink: &SinkId) -> Result<Sink, Error> {
    query::sink(snapshot.reader(), org, sink)?
        .ok_or_else(|| Error::not_found("sink", sink.as_str()))
}

fn sink(reply: Reply<Outcome>) -> Result<Reply<Sink>, Error> {
    match reply.value {
        Outcome::Sink(value) => Ok(Reply { value, index: reply.index }),
        other => Err(unexpected(&other)),
    }
}

/// Checks what was given, and gives a webhook its signing secret: the given one, else the old one,
/// else a new one, which is returned too.
fn complete(
    given: Option<SinkCredentials>,
    old_secrets: Vec<SecretText>,
    kind: &SinkKind,
) -> Result<(Option<SinkCredentials>, Option<SecretText>), Error> {
    if let Some(given) = &given {
        given.check(kind)?;
    }
    if !matches!(kind, SinkKind::Webhook { .. }) {
        return Ok((given.filter(|given| *given != SinkCredentials::default()), None));
    }
    let mut credentials = given.unwrap_or_default();
    let mut made = None;
    if credentials.signing_secrets.is_empty() {
        credentials.signing_secrets = old_secrets;
    }
    if credentials.signing_secrets.is_empty() {
        let fresh = fresh_signing_secret()?;
        credentials.signing_secrets.push(fresh.clone());
        made = Some(fresh);
    }
    Ok((Some(credentials), made))
}
