//! `snapshot`: save the whole state of a running cluster, look into a snapshot, restore it.
//!
//! ```text
//!   save     a node ──stream──► every byte checked as it arrives ──► FILE.part ──sync, rename──► FILE
//!   inspect  FILE ──► every byte checked ──► what it is
//!   restore  FILE ──► every byte checked ──► a data directory of a new cluster's only node
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use clap::{Args, Subcommand};
use peat_gateway_cluster::backup::{self, Inspection, Made, NewCluster, Operator, SnapshotError};
use rustix::process::getuid;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::output::{Column, Format};
use super::progress::Meter;
use super::{Call, Connection, Exit, Failure, Streamed, output};
use crate::backup::publish;
use crate::config::{Environment, Process};

/// Chunks that wait for the disk; then the network waits.
const CHUNKS_AHEAD: usize = 8;

/// Arguments of `snapshot`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Save the state of a running cluster; any node gives it, nothing stops
    Save {
        /// Where to; what is there already is kept, unless --overwrite says otherwise
        file: PathBuf,
        /// Replace FILE once the new snapshot is whole
        #[arg(long)]
        overwrite: bool,
    },
    /// Check every byte of a snapshot and say what it holds
    Inspect {
        /// The snapshot
        file: PathBuf,
    },
    /// Make a data directory of a new cluster from a snapshot; offline
    Restore {
        /// The snapshot
        file: PathBuf,
        /// The new cluster's first node will run on it; it must hold no data
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

const INSPECTED: &[Column] = &[
    ("cluster", "/cluster_id"),
    ("index", "/applied_index"),
    ("term", "/applied_term"),
    ("state hash", "/state_hash"),
    ("rows", "/rows"),
    ("bytes", "/bytes"),
    ("format", "/format"),
    ("command version", "/command_version"),
    ("clock (Unix ms)", "/clock_ms"),
    ("seal domain", "/seal_domain"),
    ("restored from", "/origin/cluster_id"),
    ("at index", "/origin/index"),
];

const MEMBERS: &[Column] = &[
    ("NODE", "/node_id"),
    ("NAME", "/name"),
    ("PEER ADDRESS", "/peer_address"),
    ("VOTES", "/voter"),
];

const SPACES: &[Column] = &[("KEY SPACE", "/space"), ("ROWS", "/rows"), ("BYTES", "/bytes")];

const MADE: &[Column] = &[
    ("new cluster", "/cluster_id"),
    ("its only node", "/node_id"),
    ("first index", "/index"),
    ("state hash", "/state_hash"),
    ("rows", "/rows"),
    ("from cluster", "/from_cluster"),
    ("at index", "/from_index"),
    ("old data", "/retired"),
];

/// Runs the verb.
///
/// # Errors
/// What the gateway, the connection or the file refuses.
pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let format = arguments.connection.format();
    match arguments.verb {
        Verb::Save { file, overwrite } => save(arguments.connection, &file, overwrite).await,
        Verb::Inspect { file } => {
            let mut meter = Meter::new("inspecting");
            let inspection = backup::inspect(&file, &mut |progress| meter.show(progress))?;
            Ok(output::write(&inspected(format, &inspection))?)
        }
        Verb::Restore { file, data_dir } => {
            let mut meter = Meter::new("restoring");
            let made = backup::restore(&file, &data_dir, &operator(), &mut |p| meter.show(p))?;
            Ok(output::write(&shown(format, &made, &data_dir))?)
        }
    }
}

/// Who runs this command, for the audit log.
pub(super) fn operator() -> Operator {
    Operator { user: format!("uid {}", getuid().as_raw()), host: Process.host_name() }
}

async fn save(connection: Connection, file: &Path, overwrite: bool) -> Result<(), Failure> {
    if !overwrite && file.exists() {
        let text =
            format!("{} is there already; choose another name or --overwrite", file.display());
        return Err(Failure::new(Exit::Refused, text));
    }
    let session = connection.open(&Process)?;
    let answer = session.client.stream(Call::get(&["cluster", "snapshot"])).await?;
    let part = part_of(file);
    let saved = receive(answer, part.clone()).await;
    let saved = saved.and_then(|inspection| {
        publish(&part, file).map_err(|error| {
            Failure::new(Exit::Failed, format!("could not name {}: {error}", file.display()))
        })?;
        Ok(inspection)
    });
    let inspection = saved.inspect_err(|_| {
        // Half a snapshot is of no use; where it can't be removed, its name says what it is.
        drop(std::fs::remove_file(&part));
    })?;
    Ok(output::write(&inspected(session.format, &inspection))?)
}

/// The name of a snapshot that is still arriving, in the same folder.
fn part_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

/// Writes the stream into a file and checks it on the way; durable when it returns.
async fn receive(mut answer: Streamed, part: PathBuf) -> Result<Inspection, Failure> {
    let (chunks, arriving) = mpsc::channel(CHUNKS_AHEAD);
    let checking = tokio::task::spawn_blocking(move || check(&part, arriving));
    let received = loop {
        match answer.chunk().await {
            // The checker ends early where the bytes are wrong; it says why.
            Ok(Some(chunk)) => {
                if chunks.send(chunk).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(Failure::from(error)),
        }
    };
    drop(chunks);
    let checked = checking.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    received?;
    Ok(checked?)
}

fn check(part: &Path, arriving: mpsc::Receiver<Bytes>) -> Result<Inspection, SnapshotError> {
    let failed = |error: io::Error| {
        SnapshotError::Failed(format!("could not write {}: {error}", part.display()))
    };
    let file = File::create(part).map_err(failed)?;
    let mut tee = Tee { arriving, rest: Bytes::new(), file, failed: None };
    let mut meter = Meter::new("saving");
    let inspection = backup::inspect_stream(&mut tee, &mut |progress| meter.show(progress));
    if let Some(error) = tee.failed {
        return Err(failed(error));
    }
    let inspection = inspection?;
    tee.file.sync_all().map_err(failed)?;
    Ok(inspection)
}

/// Reads what arrives, and writes it into the file before it is believed.
struct Tee {
    arriving: mpsc::Receiver<Bytes>,
    rest: Bytes,
    file: File,
    /// Why the file could not be written: not the snapshot's fault.
    failed: Option<io::Error>,
}

impl Read for Tee {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(chunk) = self.arriving.blocking_recv() else { return Ok(0) };
            if let Err(error) = self.file.write_all(&chunk) {
                self.failed = Some(error);
                return Err(io::Error::other("the file could not be written"));
            }
            self.rest = chunk;
        }
        let count = into.len().min(self.rest.len());
        self.rest.copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Renders what a snapshot holds.
fn inspected(format: Format, inspection: &Inspection) -> String {
    let record = inspection_json(inspection);
    let list = |name: &str| record.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    match format {
        Format::Json => output::json(&record),
        Format::Table => format!(
            "{}\n{}\n{}",
            output::record(format, INSPECTED, &record),
            output::rows(format, MEMBERS, &list("members")),
            output::rows(format, SPACES, &list("spaces"))
        ),
    }
}

fn inspection_json(inspection: &Inspection) -> Value {
    let members = inspection.members.iter().map(|member| {
        json!({
            "node_id": member.node_id.to_string(),
            "name": member.name,
            "peer_address": member.peer_address,
            "voter": member.voter,
        })
    });
    let spaces = inspection
        .spaces
        .iter()
        .map(|space| json!({ "space": space.space, "rows": space.rows, "bytes": space.bytes }));
    let origin = inspection.origin.as_ref().map(|origin| {
        json!({
            "cluster_id": hex::encode(origin.cluster_id),
            "index": origin.index,
            "state_hash": origin.state_hash.to_string(),
            "generation": origin.generation,
            "restored_at": origin.restored_at,
        })
    });
    json!({
        "format": inspection.format,
        "cluster_id": inspection.cluster_id.map(hex::encode),
        "applied_index": inspection.applied_index,
        "applied_term": inspection.applied_term,
        "members": members.collect::<Vec<_>>(),
        "state_hash": inspection.state_hash.to_string(),
        "command_version": inspection.command_version,
        "seal_domain": inspection.seal_domain.map(hex::encode),
        "origin": origin,
        "clock_ms": inspection.clock_ms,
        "rows": inspection.rows,
        "spaces": spaces.collect::<Vec<_>>(),
        "bytes": inspection.bytes,
    })
}

/// Renders what was made, and says what to do with it.
pub(super) fn shown(format: Format, made: &Made, data_dir: &Path) -> String {
    let Made::New(new) = made else {
        let text = "an earlier attempt was interrupted at its end; it is complete now, and nothing \
                    else was done";
        return match format {
            Format::Json => output::json(&json!({ "completed": true })),
            Format::Table => format!("{text}\n{}", next_steps(data_dir)),
        };
    };
    let record = new_json(new);
    match format {
        Format::Json => output::json(&record),
        Format::Table => {
            format!("{}\n{}", output::record(format, MADE, &record), next_steps(data_dir))
        }
    }
}

fn new_json(new: &NewCluster) -> Value {
    json!({
        "cluster_id": hex::encode(new.cluster_id),
        "node_id": new.node_id.to_string(),
        "index": new.index,
        "state_hash": new.state_hash.to_string(),
        "rows": new.rows,
        "from_cluster": hex::encode(new.from_cluster),
        "from_index": new.from_index,
        "retired": new.retired.as_ref().map(|path| path.display().to_string()),
    })
}

fn next_steps(data_dir: &Path) -> String {
    format!(
        "Start a node on {} with the key (PEAT_KEK) that the old cluster had. It is a new cluster of \
         one:\nnodes of the old cluster can't join it, and it refuses their calls. Other nodes join \
         with empty\ndata directories.\n",
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_is_still_arriving_has_a_name_of_its_own() {
        assert_eq!(part_of(Path::new("/b/a.snapshot")), Path::new("/b/a.snapshot.part"));
        assert_eq!(part_of(Path::new("a")), Path::new("a.part"));
    }

    #[test]
    fn what_arrives_is_written_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let (chunks, arriving) = mpsc::channel(4);
        for chunk in [&b"abc"[..], b"", b"defg"] {
            chunks.try_send(Bytes::from_static(chunk)).unwrap();
        }
        drop(chunks);
        let file = File::create(&path).unwrap();
        let mut tee = Tee { arriving, rest: Bytes::new(), file, failed: None };
        let mut read = Vec::new();
        tee.read_to_end(&mut read).unwrap();
        assert_eq!(
            (read.as_slice(), std::fs::read(&path).unwrap().as_slice()),
            (&b"abcdefg"[..], &b"abcdefg"[..])
        );
    }
}
