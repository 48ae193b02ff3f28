//! Sinks, their credentials and where they begin.

use super::cursors;
use super::work::{Decided, Work, check_revision, found, refuse, shown};
use crate::command::{CreateSink, DeleteSink, UpdateSink};
use crate::ids::{DOCUMENT_KEY_BYTES_MAX, NAME_BYTES_MAX, OrgId, SinkId};
use crate::keys;
use crate::outcome::{Outcome, RefusalKind, code};
use crate::query;
use crate::record::{
    Cursor, FILTER_ENTRIES_MAX, SINK_TEXT_BYTES_MAX, SealedSecret, Sink, SinkFilter, SinkKind,
    SinkStart,
};
use crate::space::Space;

/// Creates a sink with its cursor, enabled.
pub(super) fn create(work: &mut Work<'_>, command: CreateSink) -> Decided {
    let CreateSink { org_id, sink_id, sink_type, filter, start, credentials } = command;
    if let Err(invalid) = SinkId::parse(sink_id.as_str()) {
        return refuse(RefusalKind::Invalid, code::INVALID_SINK_ID, invalid.0);
    }
    check_sink_type(&sink_type)?;
    check_filter(&filter)?;
    let organization = work.parent_organization(&org_id)?;
    if query::sink(&work.rows, &org_id, &sink_id)?.is_some() {
        let detail = format!("the sink '{org_id}/{sink_id}' exists already");
        return refuse(RefusalKind::Conflict, code::ALREADY_EXISTS, detail);
    }
    let mut counters = query::counters(&work.rows, &org_id)?;
    let max = organization.quotas.max_cdc_sinks;
    if counters.sinks >= max {
        let detail = format!("the organization '{org_id}' may have {max} sinks");
        return refuse(RefusalKind::TooMany, code::QUOTA_EXCEEDED, detail);
    }
    counters.sinks += 1;
    work.rows.put_record(Space::OrganizationCounters, keys::organization(&org_id), &counters)?;
    if let Some(credentials) = credentials {
        write_credentials(work, &org_id, &sink_id, credentials)?;
    }
    let cursor = Cursor {
        acknowledged: match start {
            SinkStart::Now => counters.journal_last,
            SinkStart::Earliest => counters.journal_trimmed,
        },
        updated_at: work.entry.now,
        ..Cursor::default()
    };
    work.rows.put_record(Space::Cursor, keys::sink(&org_id, &sink_id), &cursor)?;
    work.effects.cursors = true;
    let sink = Sink {
        sink_id,
        org_id,
        sink_type,
        enabled: true,
        created_at: work.entry.now,
        revision: work.entry.index,
        filter,
    };
    write(work, sink)
}

/// Changes a sink.
pub(super) fn update(work: &mut Work<'_>, command: UpdateSink) -> Decided {
    let UpdateSink { org_id, sink_id, expected_revision, enabled, sink_type, filter, credentials } =
        command;
    let mut sink = existing(work, &org_id, &sink_id)?;
    check_revision(expected_revision, sink.revision)?;
    if let Some(sink_type) = sink_type {
        if std::mem::discriminant(&sink_type) != std::mem::discriminant(&sink.sink_type) {
            let detail = "a sink can't become one of another kind; create a new one";
            return refuse(RefusalKind::Invalid, code::SINK_TYPE_IMMUTABLE, detail);
        }
        check_sink_type(&sink_type)?;
        sink.sink_type = sink_type;
    }
    if let Some(filter) = filter {
        check_filter(&filter)?;
        sink.filter = filter;
    }
    if let Some(credentials) = credentials {
        write_credentials(work, &org_id, &sink_id, credentials)?;
    }
    if let Some(enabled) = enabled {
        if enabled && !sink.enabled {
            cursors::catch_up_with_trimming(work, &org_id, &sink_id)?;
        }
        sink.enabled = enabled;
    }
    sink.revision = work.entry.index;
    write(work, sink)
}

/// Deletes a sink with its credentials and cursor.
pub(super) fn delete(work: &mut Work<'_>, command: &DeleteSink) -> Decided {
    let DeleteSink { org_id, sink_id, expected_revision } = command;
    let sink = existing(work, org_id, sink_id)?;
    check_revision(*expected_revision, sink.revision)?;
    for space in [Space::Sink, Space::SinkCredentials, Space::Cursor] {
        work.rows.delete(space, keys::sink(org_id, sink_id))?;
    }
    let mut counters = query::counters(&work.rows, org_id)?;
    counters.sinks = counters.sinks.saturating_sub(1);
    work.rows.put_record(Space::OrganizationCounters, keys::organization(org_id), &counters)?;
    work.effects.configuration = true;
    work.effects.cursors = true;
    Ok(Outcome::Done)
}

fn existing(work: &Work<'_>, org: &OrgId, sink: &SinkId) -> Decided<Sink> {
    let record = query::sink(&work.rows, org, sink)?;
    found(record, || format!("sink '{}/{}'", shown(org.as_str()), shown(sink.as_str())))
}

fn write(work: &mut Work<'_>, sink: Sink) -> Decided {
    work.rows.put_record(Space::Sink, keys::sink(&sink.org_id, &sink.sink_id), &sink)?;
    work.effects.configuration = true;
    Ok(Outcome::Sink(sink))
}

/// Credentials are sealed for one record version: two writers that sealed for the same one can't
/// both win, and an older envelope can't come back.
fn write_credentials(
    work: &mut Work<'_>,
    org: &OrgId,
    sink: &SinkId,
    credentials: SealedSecret,
) -> Decided<()> {
    let stored = query::sink_credentials(&work.rows, org, sink)?;
    let next = stored.map_or(1, |stored| stored.record_version.saturating_add(1));
    if credentials.record_version != next {
        let version = credentials.record_version;
        let detail = format!("the credentials' next record version is {next}, not {version}");
        return refuse(RefusalKind::Conflict, code::RECORD_VERSION_CONFLICT, detail);
    }
    Ok(work.rows.put_record(Space::SinkCredentials, keys::sink(org, sink), &credentials)?)
}

fn check_sink_type(kind: &SinkKind) -> Decided<()> {
    let fits = |text: &str| text.len() <= SINK_TEXT_BYTES_MAX;
    let begins = |url: &str, schemes: &[&str]| schemes.iter().any(|s| url.starts_with(s));
    let wrong = match kind {
        // The name becomes a directory: nothing may lead out of the sink root.
        SinkKind::File { name } => OrgId::parse(name).err().map(|_| {
            format!("a file sink's name must have 1 to {NAME_BYTES_MAX} letters, digits, '_', '-'")
        }),
        SinkKind::Webhook { url } => (!fits(url) || !begins(url, &["https://", "http://"]))
            .then(|| "a webhook's url must be an absolute http or https URL".to_owned()),
        SinkKind::Nats { url, .. }
            if !fits(url) || !(url.is_empty() || begins(url, &["nats://", "tls://"])) =>
        {
            Some("a nats url must begin with nats:// or tls://, or be empty".to_owned())
        }
        SinkKind::Nats { subject_prefix, .. } => (!fits(subject_prefix)
            || !subject_prefix.split('.').all(is_subject_token))
        .then(|| "a subject prefix must be tokens of [A-Za-z0-9_-] joined by dots".to_owned()),
    };
    match wrong {
        Some(detail) => refuse(RefusalKind::Invalid, code::INVALID_SINK_TYPE, detail),
        None => Ok(()),
    }
}

fn is_subject_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn check_filter(filter: &SinkFilter) -> Decided<()> {
    let fits = |text: &str, max| (1..=max).contains(&text.len());
    if filter.app_ids.len() <= FILTER_ENTRIES_MAX
        && filter.collections.len() <= FILTER_ENTRIES_MAX
        && filter.app_ids.iter().all(|app| fits(app.as_str(), NAME_BYTES_MAX))
        && filter.collections.iter().all(|name| fits(name, DOCUMENT_KEY_BYTES_MAX))
    {
        return Ok(());
    }
    let detail = format!(
        "a filter may list {FILTER_ENTRIES_MAX} formations and as many collections, none empty"
    );
    refuse(RefusalKind::Invalid, code::INVALID_FILTER, detail)
}
