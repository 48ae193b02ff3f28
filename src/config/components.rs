//! The components' settings. A field's doc comment is its text in `docs/reference/configuration.md`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::given::Given;
use super::secret::Secret;
use super::setting::{Section, Setting, Value, components};
use crate::keys::Kek;

components! {
    /// The HTTP API and where this node keeps its data.
    Gateway in "gateway" {
        /// Address and port on which the HTTP API listens. Another address than loopback needs
        /// `PEAT_ADMIN_TOKEN`, or `--insecure-open`.
        bind: SocketAddr = "127.0.0.1:8080", "PEAT_GATEWAY_BIND", "bind";
        /// Directory of all that this node stores. One process at a time.
        data_dir: PathBuf = "./data", "PEAT_GATEWAY_DATA_DIR", "data-dir";
        /// URL at which clients and the other nodes' `GET /cluster` find this node's HTTP API. Without
        /// it: `http://` and `bind`, with the host's name in the place of a wildcard address.
        http_advertise: Option<String> = "", "PEAT_HTTP_ADVERTISE", "http-advertise";
        /// Bearer token of the administrator: at least 16 bytes. Without it only loopback is served. Several, one a
        /// line, are all let in, so that a token can be replaced without a gap.
        admin_token: Option<Secret> = "", "PEAT_ADMIN_TOKEN", "admin-token";
        /// Serves everybody who can reach the bind address, without any token. For closed test
        /// networks only.
        insecure_open: bool = "false", "PEAT_INSECURE_OPEN", "insecure-open";
        /// Milliseconds of a planned stop during which `/readyz` says 503 and requests are still served, so that
        /// proxies send them elsewhere before this node hands on leadership and drains; at most 60000. Longer than
        /// a proxy takes to see it: probe interval times failures. A node without peers doesn't wait.
        drain_lead_ms: u64 = "3000", "PEAT_DRAIN_LEAD_MS", "drain-lead-ms";
        /// Milliseconds between looks at the files of certificates and tokens, 100 to 3600000. What changed is used without
        /// a restart; SIGHUP looks at once. The sealing key is read at the start only.
        reload_check_ms: u64 = "2000", "PEAT_RELOAD_CHECK_MS", "reload-check-ms";
    }

    /// Keys that seal secrets before they are stored.
    Keys in "keys" {
        /// Who wraps the data keys: `local` (the key of `PEAT_KEK`) or `plaintext` (nothing is sealed;
        /// for experiments only, and only when asked for by this name).
        provider: String = "local", "PEAT_KEY_PROVIDER", "key-provider";
        /// The key-encryption key: 64 hexadecimal digits or 32 bytes in base64, the same on all nodes of a cluster. Without it
        /// a cluster of one makes a key in its data directory and warns, and a cluster of several is
        /// refused.
        kek: Option<Kek> = "", "PEAT_KEK", "kek";
    }

    /// This node's part in a cluster. With nothing set it is a cluster of one.
    Cluster in "cluster" {
        /// What people call this node, as in `cluster status`. Without it: the host's name.
        node_name: Option<String> = "", "PEAT_NODE_NAME", "node-name";
        /// Address and port on which this node listens for the other nodes.
        peer_bind: Option<SocketAddr> = "", "PEAT_PEER_BIND", "peer-bind";
        /// `host:port` at which the other nodes reach it; a name is resolved at each connect. Without
        /// it: `peer_bind`, which must not be a wildcard then.
        peer_address: Option<String> = "", "PEAT_PEER_ADDRESS", "peer-address";
        /// Peer addresses of all first members, this node's included, the same on each. Used only while
        /// the data directory belongs to no cluster.
        initial_peers: Vec<String> = "", "PEAT_INITIAL_PEERS", "initial-peers";
        /// What a node with a new data directory does. `auto`: joins or makes a cluster, as `join`,
        /// `discover` or `initial_peers` say; with none of them a cluster of one. `wait`: waits for
        /// `peat-gateway cluster init`, `cluster join`, or `cluster add` on a member.
        bootstrap: String = "auto", "PEAT_BOOTSTRAP", "bootstrap";
        /// Peer addresses of members, `host:port`: a node with a new data directory asks them to be taken
        /// in, gets the log as a learner, and a vote when it has caught up.
        join: Vec<String> = "", "PEAT_JOIN", "join";
        /// With `join`: stays without a vote until `peat-gateway cluster promote`.
        join_learner_only: bool = "false", "PEAT_JOIN_LEARNER_ONLY", "join-learner-only";
        /// Names, `host:port`, whose addresses are those of all first members, as a headless Kubernetes
        /// service has. Where they lead to nodes that are new, `expect` of them make a cluster; where
        /// they lead to a cluster, a node with a new data directory joins it.
        discover: Vec<String> = "", "PEAT_DISCOVER", "discover";
        /// With `discover`: how many first members there are, the same on each.
        expect: u64 = "0", "PEAT_EXPECT", "expect";
        /// Learners get a vote by `peat-gateway cluster promote` only. Counts on the leader.
        manual_promotion: bool = "false", "PEAT_MANUAL_PROMOTION", "manual-promotion";
        /// For how long a learner must lack fewer than 1000 entries before it gets a vote by itself,
        /// milliseconds.
        promote_after_ms: u64 = "10000", "PEAT_PROMOTE_AFTER_MS", "promote-after-ms";
        /// Secret that the nodes of one cluster share: at least 16 bytes.
        token: Option<Secret> = "", "PEAT_CLUSTER_TOKEN", "cluster-token";
        /// PEM file of the authority that signs all nodes' certificates. Certificates may be left out
        /// only while peers talk on loopback.
        peer_ca: Option<PathBuf> = "", "PEAT_PEER_CA", "peer-ca";
        /// PEM file of this node's certificate chain.
        peer_cert: Option<PathBuf> = "", "PEAT_PEER_CERT", "peer-cert";
        /// PEM file of its key.
        peer_key: Option<PathBuf> = "", "PEAT_PEER_KEY", "peer-key";
        /// Milliseconds between the leader's heartbeats.
        heartbeat_ms: u64 = "100", "PEAT_HEARTBEAT_MS", "heartbeat-ms";
        /// Shortest election timeout, milliseconds; at least twice the heartbeat.
        election_timeout_ms_min: u64 = "250", "PEAT_ELECTION_TIMEOUT_MS_MIN", "election-timeout-ms-min";
        /// Longest election timeout, milliseconds; also the leader's lease.
        election_timeout_ms_max: u64 = "450", "PEAT_ELECTION_TIMEOUT_MS_MAX", "election-timeout-ms-max";
        /// A snapshot is made after this many log entries.
        snapshot_entries: u64 = "20000", "PEAT_SNAPSHOT_ENTRIES", "snapshot-entries";
        /// How long this node must have run before it agrees that an upgrade is finished without an operator,
        /// milliseconds. Until an upgrade is finished, nodes can go back to the build before.
        upgrade_delay_ms: u64 = "86400000", "PEAT_UPGRADE_DELAY_MS", "upgrade-delay-ms";
        /// Log entries kept behind a snapshot, so that a node that was away for a short time needs no snapshot.
        log_entries_kept: u64 = "20000", "PEAT_LOG_ENTRIES_KEPT", "log-entries-kept";
        /// Clients' writes in consensus at once that came through this node, 4 to 16384; while several organisations
        /// write, one has three quarters of them at most. Fewer are done sooner each, too few leave the disk idle.
        writes_under_way_max: u64 = "256", "PEAT_WRITES_UNDER_WAY_MAX", "writes-under-way-max";
        /// Writes of one organisation that may wait for their turn on this node; a further one is answered with 429.
        writes_waiting_per_org_max: u64 = "1024", "PEAT_WRITES_WAITING_PER_ORG_MAX", "writes-waiting-per-org-max";
        /// Writes of all organisations that may wait on this node; a further one is answered with 429.
        writes_waiting_max: u64 = "4096", "PEAT_WRITES_WAITING_MAX", "writes-waiting-max";
        /// Log entries that this node may have yet to apply; with more, writes are answered with 503.
        apply_lag_entries_max: u64 = "20000", "PEAT_APPLY_LAG_ENTRIES_MAX", "apply-lag-entries-max";
    }

    /// What is expected of this node's disk, and how what is on it is watched.
    Storage in "storage" {
        /// A sync that takes this many milliseconds takes the node out of leadership and readiness until the
        /// disk moves again; well below 5000, so that a failover is done by then.
        disk_stall_ms: u64 = "2000", "PEAT_DISK_STALL_MS", "disk-stall-ms";
        /// A sync that takes this many seconds makes `/livez` fail, so that a supervisor restarts the process;
        /// 0 for never.
        disk_stall_restart_s: u64 = "60", "PEAT_DISK_STALL_RESTART_S", "disk-stall-restart-s";
        /// Clients' writes are refused while the data directory has less than this many MiB free. 0 takes no
        /// notice of the space and keeps no ballast.
        disk_free_mib_min: u64 = "512", "PEAT_DISK_FREE_MIB_MIN", "disk-free-mib-min";
        /// The same in percent of the file system; the lower of the two limits counts. 0 as above.
        disk_free_percent_min: u64 = "5", "PEAT_DISK_FREE_PERCENT_MIN", "disk-free-percent-min";
        /// MiB held back by the file `ballast`, at most half of the limit above. It is removed when a quarter
        /// of the limit is left, so that the log can be written while the node drains.
        ballast_mib: u64 = "32", "PEAT_BALLAST_MIB", "ballast-mib";
        /// MiB of log entries. Beyond, a snapshot is made and the log behind it purged until half is left,
        /// whatever `cluster.snapshot_entries` and `cluster.log_entries_kept` say. 0 for no such bound.
        log_mib_max: u64 = "256", "PEAT_LOG_MIB_MAX", "log-mib-max";
        /// Seconds between two comparisons of the nodes' state hashes; 0 for none.
        comparison_interval_s: u64 = "10", "PEAT_COMPARISON_INTERVAL_S", "comparison-interval-s";
        /// Seconds from one pass over everything that is stored to the next; 0 for none.
        scrub_interval_s: u64 = "3600", "PEAT_SCRUB_INTERVAL_S", "scrub-interval-s";
        /// MiB that such a pass reads a second, at most.
        scrub_mib_per_s: u64 = "32", "PEAT_SCRUB_MIB_PER_S", "scrub-mib-per-s";
    }

    /// The observer of meshes, on the leader.
    Mesh in "mesh" {
        /// UDP address on which formations' endpoints bind; port 0 chooses one per formation.
        bind: SocketAddr = "0.0.0.0:0", "PEAT_MESH_BIND", "mesh-bind";
        /// The gateway's node name in every mesh, the same on all nodes of a cluster; its endpoint id is
        /// derived from it.
        node_name: String = "peat-gateway", "PEAT_MESH_NODE_NAME", "mesh-node-name";
    }

    /// Delivery to sinks, on the leader.
    Cdc in "cdc" {
        /// Directory below which every file sink has its own. Without it: `sinks` in the data directory.
        file_sink_dir: Option<PathBuf> = "", "PEAT_FILE_SINK_DIR", "file-sink-dir";
        /// NATS server of sinks that name none, as `nats://host:4222`. Needs the feature `nats`.
        nats_url: Option<String> = "", "PEAT_CDC_NATS_URL", "cdc-nats-url";
        /// Replicas of a JetStream stream that delivery creates, 1 to 5; an existing stream is never changed.
        nats_stream_replicas: u64 = "1", "PEAT_CDC_NATS_STREAM_REPLICAS", "cdc-nats-stream-replicas";
        /// Lets webhooks go to loopback, link-local and private addresses.
        webhook_allow_private: bool = "false", "PEAT_WEBHOOK_ALLOW_PRIVATE", "webhook-allow-private";
    }

    /// Snapshots that this node saves by itself.
    Backup in "backup" {
        /// Directory into which this node saves a snapshot of the whole state every `interval_s`; it must
        /// lie outside the data directory, better on another disk. Without it none are saved. Nodes may
        /// share one: each keeps and deletes only its own.
        dir: Option<PathBuf> = "", "PEAT_BACKUP_DIR", "backup-dir";
        /// Seconds between two snapshots.
        interval_s: u64 = "3600", "PEAT_BACKUP_INTERVAL_S", "backup-interval-s";
        /// How many are kept; the oldest goes only when a newer one was read back and found whole.
        keep: u64 = "24", "PEAT_BACKUP_KEEP", "backup-keep";
    }

    /// What is written to stderr.
    Log in "log" {
        /// Filter by level and module, as `info` or `info,peat_gateway::mesh=debug`. The default leaves out
        /// what the consensus library repeats many times a second while a node is away.
        filter: String = "info,openraft=error", "PEAT_LOG", "log";
        /// `text` for people, `json` for collectors: one object a line.
        format: String = "text", "PEAT_LOG_FORMAT", "log-format";
    }
}
