//! Golden bytes: what one build wrote, every later build reads, and writes again the same.
//!
//! `tests/golden/<Type>.hex` has a line per sample: `v1 <label> <hex>`. A label of an enum begins
//! with the variant's name. A type or variant in the sources without golden bytes fails the test;
//! `UPDATE=1` writes what is missing and never changes what is there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};
use peat_gateway_state::command::*;
use peat_gateway_state::hash::StateHash;
use peat_gateway_state::ids::{Epoch, NodeId};
use peat_gateway_state::record::*;
use peat_gateway_state::{Command, Envelope, Outcome, Refusal, RefusalKind, codec, outcome::code};

use crate::samples::commands;
use crate::support::make::{self, app, doc, hash, org, sink_id};

/// Samples by type and label.
#[derive(Default)]
struct Samples(BTreeMap<String, Vec<(String, Vec<u8>, Check)>>);

/// Reads bytes and writes them again.
type Check = fn(&[u8]) -> Result<Vec<u8>, String>;

impl Samples {
    fn add<T>(&mut self, label: &str, value: &T)
    where
        T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
    {
        let bytes = codec::encode(value);
        assert_eq!(codec::decode::<T>(&bytes).as_ref(), Ok(value));
        let path = std::any::type_name::<T>();
        let name = path.rsplit("::").next().expect("a path has a last part").to_owned();
        let check: Check = |bytes| codec::decode::<T>(bytes).map(|value| codec::encode(&value));
        self.0.entry(name).or_default().push((label.to_owned(), bytes, check));
    }

    fn add_variants<T>(&mut self, values: &[T])
    where
        T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
    {
        for value in values {
            let shown = format!("{value:?}");
            let end = shown.find(|c: char| !c.is_alphanumeric()).unwrap_or(shown.len());
            self.add(shown.get(..end).expect("it ends at a character"), value);
        }
    }
}

fn quotas() -> OrganizationQuotas {
    OrganizationQuotas {
        max_formations: 1,
        max_peers_per_formation: 2,
        max_documents_per_formation: 3,
        max_cdc_sinks: 4,
        max_enrollments_per_hour: 5,
        max_journal_bytes: 1 << 40,
    }
}

fn organization() -> Organization {
    Organization {
        org_id: org("acme"),
        display_name: "Acme".into(),
        quotas: quotas(),
        created_at: 1,
        revision: 2,
    }
}

fn formation() -> Formation {
    Formation {
        org_id: org("acme"),
        app_id: app("alpha"),
        mesh_id: "0A1B2C3D".into(),
        enrollment_policy: EnrollmentPolicy::Strict,
        status: FormationStatus::Suspended,
        created_at: 1,
        revision: 2,
        static_peers: vec!["host:1".into()],
        documents: 3,
    }
}

pub(crate) fn kinds() -> Vec<SinkKind> {
    vec![
        SinkKind::File { name: "out".into() },
        SinkKind::Webhook { url: "https://example.org/hook".into() },
        SinkKind::Nats { url: "nats://example.org:4222".into(), subject_prefix: "cdc".into() },
    ]
}

pub(crate) fn filter() -> SinkFilter {
    SinkFilter { app_ids: vec![app("alpha")], collections: vec!["notes".into()] }
}

fn sink() -> Sink {
    Sink {
        sink_id: sink_id("S1"),
        org_id: org("acme"),
        sink_type: SinkKind::File { name: "out".into() },
        enabled: true,
        created_at: 1,
        revision: 2,
        filter: filter(),
    }
}

pub(crate) fn change() -> NewEvent {
    make::change("c2", &["c1"])
}

fn refusal() -> Refusal {
    Refusal::new(RefusalKind::Conflict, code::ALREADY_EXISTS, "it exists already")
}

fn samples() -> Samples {
    let mut samples = Samples::default();
    let fence = Fence { term: 3, epoch: Some(Epoch(300)) };
    for (label, command) in commands(fence) {
        samples.add(label, &command);
    }
    command_parts(&mut samples, fence);
    records(&mut samples);
    samples.add_variants(&[
        Outcome::Done,
        Outcome::Organization(organization()),
        Outcome::Formation(formation()),
        Outcome::Sink(sink()),
        Outcome::EpochClaimed(Epoch(300)),
        Outcome::Appended { first: 1, last: 2, known: 3 },
        Outcome::Refused(refusal()),
    ]);
    samples.add("full", &refusal());
    use RefusalKind as Kind;
    samples.add_variants(&[
        Kind::Invalid,
        Kind::NotFound,
        Kind::Conflict,
        Kind::PreconditionFailed,
    ]);
    samples.add_variants(&[Kind::TooMany, Kind::Fenced, Kind::Unavailable]);
    let mut state = StateHash::default();
    state.add(peat_gateway_state::Space::Organization, b"key", b"value");
    samples.add("full", &state);
    samples
}

/// What commands are made of; the commands themselves are variants of `Command`.
fn command_parts(samples: &mut Samples, fence: Fence) {
    for (_, command) in commands(fence) {
        match command {
            Command::CreateOrganization(c) => samples.add("full", &c),
            Command::UpdateOrganization(c) => {
                samples.add("full", &c);
                samples.add("full", &c.quotas);
            }
            Command::DeleteOrganization(c) => samples.add("full", &c),
            Command::CreateFormation(c) => samples.add("full", &c),
            Command::UpdateFormation(c) => samples.add("full", &c),
            Command::DeleteFormation(c) => samples.add("full", &c),
            Command::CreateSink(c) => samples.add("full", &c),
            Command::UpdateSink(c) => samples.add("full", &c),
            Command::DeleteSink(c) => samples.add("full", &c),
            Command::UpdateSettings(c) if c.upgrade.is_some() => samples.add("upgrade", &c),
            Command::UpdateSettings(c) => samples.add("full", &c),
            Command::RecordRefusals(c) => {
                samples.add("full", &c);
                samples.add("full", &c.refusals[0]);
            }
            Command::InitializeCluster(c) => samples.add("full", &c),
            Command::ClaimEpoch(c) => samples.add("full", &c),
            Command::AppendChanges(c) if c.batches.len() > 1 => {
                samples.add("full", &c);
                samples.add("full", &c.batches[0]);
            }
            Command::AppendChanges(c) => samples.add("staged", &c),
            Command::StagePart(c) => samples.add("full", &c),
            Command::CompactDocument(c) => samples.add("full", &c),
            Command::CommitCursors(c) => {
                samples.add("full", &c);
                samples.add("full", &c.advances[0]);
            }
            Command::TrimJournal(c) => samples.add("full", &c),
            Command::RememberPeers(c) => samples.add("full", &c),
            Command::RaiseVersion(c) => samples.add("full", &c),
            Command::RecordMembership(c) => samples.add("full", &c),
        }
    }
    let member = make::member_record(9);
    samples.add("full", &member);
    samples.add_variants(&[
        MembershipChange::Add(member.clone()),
        MembershipChange::Promote { node: NodeId(8), replaces: Some(member.clone()) },
        make::removal(9),
        MembershipChange::Update(member),
        MembershipChange::Finish,
        MembershipChange::Transfer { to: Some(NodeId(8)) },
    ]);
    let idempotency = Idempotency { key: "k".into(), request_digest: hash("body") };
    let command = make::create_organization("acme");
    let envelope = Envelope::new(make::actor("admin"), command);
    samples.add("plain", &envelope);
    samples.add("with-idempotency", &envelope.with_idempotency(Some(idempotency.clone())));
    samples.add("full", &idempotency);
    samples.add("full", &make::actor("admin"));
    samples.add("full", &fence);
    samples.add("full", &change());
    let bodies = [change(), make::snapshot("s", b"saved"), make::tombstone("t")];
    samples.add_variants(&bodies.map(|event| event.body));
    samples.add_variants(&[
        SequencedEvent::Inline(change()),
        SequencedEvent::Staged { id: hash("x"), parts: 2 },
    ]);
    samples.add_variants(&[
        SavedForm::Inline(vec![1, 2]),
        SavedForm::Staged { id: hash("x"), parts: 2 },
    ]);
}

fn records(samples: &mut Samples) {
    use AuditAction as Action;
    samples.add("full", &quotas());
    samples.add("full", &organization());
    samples.add(
        "full",
        &OrganizationCounters {
            formations: 1,
            sinks: 2,
            journal_last: 300,
            journal_trimmed: 4,
            journal_bytes: 70_000,
        },
    );
    samples.add("full", &formation());
    samples.add("full", &MeshIdOwner { org_id: org("acme"), app_id: app("alpha") });
    samples.add("full", &make::peer(1, 5));
    samples.add("full", &make::sealed(1));
    samples.add("full", &sink());
    samples.add("full", &filter());
    let ahead = vec![(9, 10), (12, 300)];
    samples.add("full", &Cursor { acknowledged: 7, ahead, epoch: Epoch(300), updated_at: 5 });
    samples.add_variants(&kinds());
    samples.add_variants(&[SinkStart::Now, SinkStart::Earliest]);
    samples.add_variants(&[
        EnrollmentPolicy::Open,
        EnrollmentPolicy::Controlled,
        EnrollmentPolicy::Strict,
    ]);
    samples.add_variants(&[FormationStatus::Active, FormationStatus::Suspended]);
    samples.add_variants(&[EventKind::Change, EventKind::Snapshot, EventKind::Tombstone]);
    samples.add_variants(&[Action::InitializeCluster, Action::ClaimEpoch, Action::Refused]);
    samples.add_variants(&[
        Action::CreateOrganization,
        Action::UpdateOrganization,
        Action::DeleteOrganization,
    ]);
    samples.add_variants(&[
        Action::CreateFormation,
        Action::UpdateFormation,
        Action::DeleteFormation,
    ]);
    samples.add_variants(&[Action::CreateSink, Action::UpdateSink, Action::DeleteSink]);
    samples.add_variants(&[Action::UpdateSettings, Action::RaiseVersion]);
    samples.add_variants(&[Action::RestoreCluster]);
    samples.add_variants(&[Upgrade::Auto, Upgrade::Manual]);
    samples.add_variants(&[Action::AddMember, Action::PromoteMember, Action::RemoveMember]);
    samples.add_variants(&[
        Action::UpdateMember,
        Action::FinishMembership,
        Action::TransferLeadership,
    ]);
    let removed = RemovedNode {
        node: NodeId(9),
        name: "node-9".into(),
        peer_address: "host:7400".into(),
        removed_at: 1_700_000_000_000,
        index: 300,
    };
    samples.add("full", &removed);
    let mut entry = AuditEntry {
        number: 2,
        time: 1_700_000_000_000,
        index: 30,
        actor: make::actor("admin"),
        action: Action::CreateSink,
        target: "sink/acme/S1".into(),
        result: "done".into(),
        count: 1,
        previous: hash("previous"),
        hash: hash(""),
    };
    entry.hash = peat_gateway_state::audit::entry_hash(&entry);
    samples.add("full", &entry);
    samples.add("full", &AuditHead { number: 2, hash: entry.hash });
    samples.add("full", &make::settings());
    let upgrade = Some(Upgrade::Manual);
    samples.add("upgrade", &ClusterSettings { upgrade, ..make::settings() });
    samples.add("full", &ClusterEpoch { epoch: Epoch(300), node: NodeId(7), term: 3 });
    samples.add("full", &ClusterClock { now: 1_700_000_000_000, forgotten_before: 5 });
    samples.add(
        "full",
        &ClusterOrigin {
            cluster_id: [7; 16],
            index: 300,
            state_hash: hash("state"),
            generation: 2,
            restored_at: 1_700_000_000_000,
        },
    );
    let outcome = codec::encode(&Outcome::Done);
    let request_digest = hash("body");
    samples.add("full", &IdempotencyRecord { request_digest, outcome, index: 3, expires_at: 9 });
    samples.add(
        "full",
        &Document {
            heads: vec![hash("h")],
            document_sequence: 5,
            changes: 2,
            bytes: 300,
            base_parts: 1,
            deleted: false,
            last_modified: 9,
            base_sequence: 3,
        },
    );
    samples.add("full", &StoredChange { hash: hash("c1"), bytes: vec![1, 2] });
    let event = JournalEvent {
        event_id: hash("id"),
        app_id: app("alpha"),
        document: doc("notes:1"),
        kind: EventKind::Change,
        change_hash: hash("c1"),
        document_sequence: 5,
        observed_at: 9,
        actor: "a1".into(),
        patches: b"[]".to_vec(),
    };
    samples.add("full", &event);
    samples.add("full", &JournalRow { first_sequence: 300, events: vec![event] });
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("golden files are ASCII");
        u8::from_str_radix(pair, 16).expect("golden bytes are hex")
    };
    digits.map(byte).collect()
}

/// The lines of a golden file by version and label.
fn read_golden(name: &str) -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(golden_file(name)).unwrap_or_default();
    let line = |line: &str| {
        let (label, bytes) = line.rsplit_once(' ').expect("a line has three words");
        (label.to_owned(), unhex(bytes))
    };
    text.lines().map(line).collect()
}

#[test]
fn golden_bytes_of_every_type_are_read_and_written_the_same() {
    let update = std::env::var_os("UPDATE").is_some();
    for (name, samples) in samples().0 {
        let mut golden = read_golden(&name);
        for (label, bytes, check) in samples {
            let key = format!("v1 {label}");
            if update && !golden.contains_key(&key) {
                golden.insert(key.clone(), bytes.clone());
            }
            let Some(written) = golden.get(&key) else {
                panic!("{name} has no golden bytes '{key}'; write them with UPDATE=1")
            };
            assert_eq!(hex(written), hex(&bytes), "{name} '{key}' is written differently now");
            assert_eq!(check(written).as_ref(), Ok(written), "{name} '{key}'");
        }
        if update {
            let lines = golden.iter().map(|(key, bytes)| format!("{key} {}\n", hex(bytes)));
            fs::write(golden_file(&name), lines.collect::<String>()).unwrap();
        }
    }
}

/// Types in a source file that derive `Encode`, each with its variants where it is an enum.
fn encoded_types(source: &str) -> Vec<(String, Vec<String>)> {
    let mut types: Vec<(String, Vec<String>)> = Vec::new();
    let (mut encoded, mut within_enum) = (false, false);
    for line in source.lines() {
        let word =
            |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric()).collect() };
        if line.starts_with("#[derive(") {
            encoded = line.contains("Encode");
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            if encoded {
                types.push((word(rest), Vec::new()));
            }
        } else if let Some(rest) = line.strip_prefix("pub enum ") {
            within_enum = encoded;
            if encoded {
                types.push((word(rest), Vec::new()));
            }
        } else if line == "}" {
            (encoded, within_enum) = (false, false);
        } else if within_enum
            && let Some(rest) = line.strip_prefix("    ")
            && rest.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some((_, variants)) = types.last_mut()
        {
            variants.push(word(rest));
        }
    }
    types
}

#[test]
fn no_stored_type_or_variant_lacks_golden_bytes() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join("outcome.rs"), source.join("hash.rs")];
    for folder in ["record", "command"] {
        let entries = fs::read_dir(source.join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let mut seen = 0;
    for file in files {
        for (name, variants) in encoded_types(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            let golden = read_golden(&name);
            assert!(!golden.is_empty(), "{name} has no tests/golden/{name}.hex");
            for variant in variants {
                let label = format!("v1 {variant}");
                assert!(golden.contains_key(&label), "{name}::{variant} has no golden bytes");
            }
        }
    }
    assert!(seen > 50, "only {seen} types were found: the sources look different now");
}
