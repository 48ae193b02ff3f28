//! `cluster recover`: a cluster that lost its quorum for good goes on as a new one.

use std::path::PathBuf;

use clap::Args;
use peat_gateway_cluster::backup::{self, RecoverOptions, Survey};
use serde_json::{Value, json};

use super::output::{Column, Format};
use super::progress::Meter;
use super::snapshot::{operator, shown};
use super::{Exit, Failure, output};

/// Most entries that are listed one by one; the others are counted.
const ENTRIES_SHOWN_MAX: usize = 50;
/// Digits of the state's hash that the command proposes to type.
const TYPED_DIGITS: usize = 12;

/// Arguments of `cluster recover`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Data directory of the stopped node that has most; becomes the new cluster's first node
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Take the state from this snapshot, where the directory can't be read
    #[arg(long, value_name = "FILE")]
    from_snapshot: Option<PathBuf>,
    /// Keep the log's last entries too, of which nobody knows whether they were acknowledged
    #[arg(long, conflicts_with = "from_snapshot")]
    keep_unconfirmed_entries: bool,
    /// The beginning of the state's hash as this command shows it: do it, and accept what is lost
    #[arg(long, value_name = "STATE HASH")]
    i_accept_data_loss: Option<String>,
}

const SURVEYED: &[Column] = &[
    ("cluster", "/cluster_id"),
    ("node", "/node_id"),
    ("last applied", "/applied_index"),
    ("last committed", "/committed_index"),
    ("last in the log", "/last_log_index"),
    ("gone from the disk", "/lost_entries"),
    ("will be kept up to", "/kept_index"),
    ("state hash", "/kept_hash"),
];

const MEMBERS: &[Column] = &[
    ("NODE", "/node_id"),
    ("NAME", "/name"),
    ("PEER ADDRESS", "/peer_address"),
    ("VOTES", "/voter"),
];

const ENTRIES: &[Column] = &[
    ("ENTRY", "/index"),
    ("TERM", "/term"),
    ("COMMITTED", "/committed"),
    ("KEPT", "/kept"),
    ("WHAT", "/what"),
];

/// Looks, and recovers once the loss is accepted.
///
/// # Errors
/// The directory can't be used, or the loss isn't accepted.
pub(super) fn run(arguments: Arguments, format: Format) -> Result<(), Failure> {
    let Arguments { data_dir, from_snapshot, keep_unconfirmed_entries, i_accept_data_loss } =
        arguments;
    let keep_unconfirmed = keep_unconfirmed_entries;
    let Some(accepted) = i_accept_data_loss else {
        let hash = match &from_snapshot {
            Some(file) => {
                let mut meter = Meter::new("inspecting");
                let inspection = backup::inspect(file, &mut |progress| meter.show(progress))?;
                let text = format!(
                    "the snapshot ends at index {} of cluster {}; all that came later is lost\n",
                    inspection.applied_index,
                    inspection.cluster_id.map(hex::encode).unwrap_or_default()
                );
                output::write(&text)?;
                inspection.state_hash.to_string()
            }
            None => {
                let survey = backup::survey(&data_dir, keep_unconfirmed)?;
                output::write(&surveyed(format, &survey))?;
                survey.kept_hash.to_string()
            }
        };
        let typed: String = hash.chars().take(TYPED_DIGITS).collect();
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "nothing was changed. Recover only when a majority of the members is gone for good and \
                 no other\nnode has more: what this node doesn't have is lost. To do it, say so by \
                 typing the state's hash:\n  --i-accept-data-loss={typed}"
            ),
        ));
    };
    let options = RecoverOptions { keep_unconfirmed, from_snapshot, accepted };
    let mut meter = Meter::new("recovering");
    let made = backup::recover(&data_dir, &options, &operator(), &mut |p| meter.show(p))?;
    Ok(output::write(&shown(format, &made, &data_dir))?)
}

fn surveyed(format: Format, survey: &Survey) -> String {
    let record = survey_json(survey);
    let list = |name: &str| record.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    if format == Format::Json {
        return output::json(&record);
    }
    let mut text = output::record(format, SURVEYED, &record);
    text.push('\n');
    text.push_str(&output::rows(format, MEMBERS, &list("members")));
    let mut entries = list("pending");
    let count = entries.len();
    entries.truncate(ENTRIES_SHOWN_MAX);
    if count > 0 {
        text.push('\n');
        text.push_str(&output::rows(format, ENTRIES, &entries));
        if count > entries.len() {
            text.push_str(&format!("… and {} more; -o json shows all\n", count - entries.len()));
        }
    }
    text.push('\n');
    text.push_str(&losses(survey));
    text
}

/// What may be lost, in words.
fn losses(survey: &Survey) -> String {
    let discarded = survey.pending.iter().filter(|entry| !entry.kept).count();
    let risky = survey.pending.iter().filter(|entry| entry.kept && !entry.committed).count();
    let mut text = String::from(
        "What only other nodes have is lost: the last writes that were acknowledged may be among it.\n",
    );
    if survey.lost_entries > 0 {
        text.push_str(&format!(
            "This disk has lost {} entries that it had promised to keep: rather recover another node.\n",
            survey.lost_entries
        ));
    }
    if discarded > 0 {
        text.push_str(&format!(
            "{discarded} entries are discarded: this node doesn't know whether a quorum had them, so some \
             may have\nbeen acknowledged. --keep-unconfirmed-entries keeps them, those that never were \
             included.\n"
        ));
    }
    if risky > 0 {
        text.push_str(&format!(
            "{risky} entries are kept although nobody may ever have been told that they were done.\n"
        ));
    }
    text
}

fn survey_json(survey: &Survey) -> Value {
    let members = survey.members.iter().map(|member| {
        json!({
            "node_id": member.node_id.to_string(),
            "name": member.name,
            "peer_address": member.peer_address,
            "voter": member.voter,
        })
    });
    let pending = survey.pending.iter().map(|entry| {
        json!({
            "index": entry.index,
            "term": entry.term,
            "committed": entry.committed,
            "kept": entry.kept,
            "what": entry.what,
        })
    });
    json!({
        "cluster_id": hex::encode(survey.cluster_id),
        "node_id": survey.node_id.to_string(),
        "members": members.collect::<Vec<_>>(),
        "applied_index": survey.applied_index,
        "applied_hash": survey.applied_hash.to_string(),
        "committed_index": survey.committed_index,
        "last_log_index": survey.last_log_index,
        "lost_entries": survey.lost_entries,
        "pending": pending.collect::<Vec<_>>(),
        "kept_index": survey.kept_index,
        "kept_hash": survey.kept_hash.to_string(),
    })
}
