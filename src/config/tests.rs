//! Sources, precedence, refusals. No test touches the process environment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;

/// Variables and files as a test says.
#[derive(Default)]
struct Planted {
    variables: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, String>,
}

impl Planted {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    fn load(&self) -> Result<Config, Problems> {
        self.load_with(&Flags::default())
    }

    fn load_with(&self, flags: &Flags) -> Result<Config, Problems> {
        Config::load(flags, self)
    }

    fn problems(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

impl Environment for Planted {
    fn variables(&self) -> BTreeMap<String, String> {
        self.variables.clone()
    }

    fn read_file(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> String {
        "host-1".into()
    }
}

const TOKEN: &str = "a-long-enough-token";

fn flags(values: &[(&'static str, &str)]) -> Flags {
    Flags {
        config: None,
        values: values.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
    }
}

#[test]
fn with_nothing_set_it_is_a_cluster_of_one_on_loopback() {
    let config = Planted::default().load().unwrap();
    assert_eq!(config.gateway.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.gateway.data_dir, Path::new("./data"));
    assert_eq!(config.gateway.http_advertise.as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(config.cdc.file_sink_dir.as_deref(), Some(Path::new("./data/sinks")));
    assert_eq!(config.cluster.node_name.as_deref(), Some("host-1"));
    assert!(!config.cluster.has_peers());
    assert_eq!(config.keys.provider, "local");
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let planted = Planted::default()
        .file(
            "/etc/peat.toml",
            "[gateway]\nbind = \"127.0.0.1:1\"\ndata_dir = \"/file\"\n[log]\nfilter = \"warn\"",
        )
        .variable("PEAT_CONFIG", "/etc/peat.toml")
        .variable("PEAT_GATEWAY_BIND", "127.0.0.1:2")
        .variable("PEAT_LOG", "debug");
    let config = planted.load_with(&flags(&[("gateway.bind", "127.0.0.1:3")])).unwrap();
    assert_eq!(config.gateway.bind.port(), 3);
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.gateway.data_dir, Path::new("/file"));
}

#[test]
fn the_flag_names_the_file_before_the_variable_does() {
    let planted = Planted::default()
        .file("/a", "[log]\nfilter = \"warn\"")
        .file("/b", "[log]\nfilter = \"error\"")
        .variable("PEAT_CONFIG", "/a");
    let flags = Flags { config: Some("/b".into()), ..Flags::default() };
    assert_eq!(planted.load_with(&flags).unwrap().log.filter, "error");
}

#[test]
fn the_file_has_typed_values() {
    let text = "[gateway]\ninsecure_open = true\n[cluster]\nheartbeat_ms = 50\ninitial_peers = \
                [\"127.0.0.1:7001\", \"127.0.0.1:7002\"]\npeer_bind = \"127.0.0.1:7001\"\n\
                token_file = \"/token\"\n[keys]\nkek_file = \"/kek\"";
    let planted = Planted::default()
        .file("/f", text)
        .file("/token", &format!("{TOKEN}\n"))
        .file("/kek", &format!("{}\n", "0a".repeat(32)))
        .variable("PEAT_CONFIG", "/f");
    let config = planted.load().unwrap();
    assert!(config.gateway.insecure_open);
    assert_eq!(config.cluster.heartbeat_ms, 50);
    assert_eq!(config.cluster.initial_peers.len(), 2);
    assert_eq!(config.cluster.token.unwrap().expose(), TOKEN);
    assert_eq!(config.cluster.peer_address.as_deref(), Some("127.0.0.1:7001"));

    let wrong =
        "[cluster]\nheartbeat_ms = \"50\"\ninitial_peers = \"a:1\"\n[gateway]\ninsecure_open = 1";
    let problems = Planted::default().file("/f", wrong).variable("PEAT_CONFIG", "/f").problems();
    for expected in ["an integer", "an array of strings", "true or false"] {
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn unknown_keys_are_refused_with_their_path() {
    let text =
        "colour = 1\n[gateway]\nbnd = \"127.0.0.1:1\"\ndata_dir_file = \"/x\"\n[sinks]\na = 1";
    let problems = Planted::default().file("/f", text).variable("PEAT_CONFIG", "/f").problems();
    for key in ["unknown key colour", "gateway.bnd", "gateway.data_dir_file", "unknown key sinks"] {
        assert!(problems.contains(key), "{key} in {problems}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_the_line_and_without_its_text() {
    let text = "[gateway]\nadmin_token = \"canary\" oops";
    let problems = Planted::default().file("/f", text).variable("PEAT_CONFIG", "/f").problems();
    assert!(problems.contains("/f, line 2"), "{problems}");
    assert!(!problems.contains("canary"), "{problems}");
}

#[test]
fn unknown_variables_are_refused_and_those_of_kubernetes_passed_over() {
    let problems = Planted::default().variable("PEAT_GATEWAY_BNID", "127.0.0.1:1").problems();
    assert!(problems.contains("unknown environment variable PEAT_GATEWAY_BNID"), "{problems}");
    let links = Planted::default()
        .variable("PEAT_GATEWAY_SERVICE_HOST", "10.0.0.1")
        .variable("PEAT_GATEWAY_SERVICE_PORT", "8080")
        .variable("PEAT_GATEWAY_SERVICE_PORT_HTTP", "8080")
        .variable("PEAT_GATEWAY_PORT", "tcp://10.0.0.1:8080")
        .variable("PEAT_GATEWAY_PORT_8080_TCP_ADDR", "10.0.0.1")
        .variable("PATH", "/bin");
    assert!(links.load().is_ok());
}

#[test]
fn what_needs_a_missing_feature_is_refused_with_its_name() {
    for (variable, feature) in [
        ("PEAT_CDC_KAFKA_BROKERS", "kafka"),
        ("PEAT_VAULT_ADDR", "vault"),
        ("PEAT_KMS_KEY_ARN", "aws-kms"),
        ("PEAT_STORAGE_BACKEND", "postgres"),
    ] {
        let problems = Planted::default().variable(variable, "x").problems();
        assert!(problems.contains(variable) && problems.contains(feature), "{problems}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = Planted::default()
        .variable("PEAT_GATEWAY_BIND", "everywhere")
        .variable("PEAT_HEARTBEAT_MS", "fast")
        .variable("PEAT_LOG_FORMAT", "xml")
        .variable("PEAT_KEK", "secret-canary")
        .variable("PEAT_CONFIG", "/missing")
        .load()
        .unwrap_err();
    assert_eq!(problems.0.len(), 5, "{problems}");
    let text = problems.to_string();
    assert!(text.contains("5 problems") && !text.contains("canary"), "{text}");
    assert!(text.contains("environment variable PEAT_HEARTBEAT_MS"), "{text}");
}

#[test]
fn an_open_bind_without_credentials_is_refused() {
    let open = || Planted::default().variable("PEAT_GATEWAY_BIND", "0.0.0.0:8080");
    assert!(open().problems().contains("PEAT_ADMIN_TOKEN"));
    let config = open().variable("PEAT_ADMIN_TOKEN", TOKEN).load().unwrap();
    assert_eq!(config.gateway.http_advertise.as_deref(), Some("http://host-1:8080"));
    assert!(open().load_with(&flags(&[("gateway.insecure_open", "true")])).is_ok());
    // An empty or short token is no credential, and doesn't lock everybody out silently.
    assert!(open().variable("PEAT_ADMIN_TOKEN", "").problems().contains("the secret is empty"));
    assert!(open().variable("PEAT_ADMIN_TOKEN", "short").problems().contains("fewer than 16"));
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let planted = Planted::default()
        .file("/run/token", "canary-canary-canary\n")
        .variable("PEAT_ADMIN_TOKEN_FILE", "/run/token")
        .variable("PEAT_KEK", &"ca".repeat(32));
    let config = planted.load().unwrap();
    assert_eq!(config.gateway.admin_token.as_ref().unwrap().expose(), "canary-canary-canary");
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary") && !shown.contains("caca"), "{shown}");
    assert!(!shown.contains("202, 202"), "{shown}");

    let both = planted.variable("PEAT_ADMIN_TOKEN", TOKEN).problems();
    assert!(both.contains("both set"), "{both}");
    let missing = Planted::default().variable("PEAT_KEK_FILE", "/nowhere").problems();
    assert!(missing.contains("/nowhere"), "{missing}");
}

fn member() -> Planted {
    Planted::default()
        .variable("PEAT_PEER_BIND", "127.0.0.1:7001")
        .variable("PEAT_INITIAL_PEERS", "127.0.0.1:7001, 127.0.0.1:7002")
        .variable("PEAT_CLUSTER_TOKEN", TOKEN)
        .variable("PEAT_KEK", &"01".repeat(32))
}

#[test]
fn a_member_of_a_cluster_needs_what_the_others_need_too() {
    assert!(member().load().is_ok());
    let refused = |planted: Planted, expected: &str| {
        let problems = planted.problems();
        assert!(problems.contains(expected), "{expected} in {problems}");
    };
    let without = |name: &str| {
        let mut planted = member();
        planted.variables.remove(name);
        planted
    };
    refused(without("PEAT_KEK"), "PEAT_KEK");
    refused(without("PEAT_CLUSTER_TOKEN"), "PEAT_CLUSTER_TOKEN");
    refused(without("PEAT_PEER_BIND"), "PEAT_PEER_BIND");
    refused(member().variable("PEAT_PEER_BIND", "10.0.0.1:7001"), "PEAT_PEER_CA");
    refused(member().variable("PEAT_PEER_BIND", "0.0.0.0:7001"), "PEAT_PEER_ADDRESS");
    refused(member().variable("PEAT_PEER_ADDRESS", "a:1"), "own address a:1 is missing");
    refused(member().variable("PEAT_INITIAL_PEERS", "127.0.0.1:7001,x"), "not host:port");
    refused(member().variable("PEAT_PEER_CA", "/ca"), "belong together");
    refused(member().variable("PEAT_ELECTION_TIMEOUT_MS_MIN", "120"), "twice the heartbeat");
}

#[test]
fn secrets_in_clear_must_be_asked_for_by_name() {
    let plaintext = Planted::default().variable("PEAT_KEY_PROVIDER", "plaintext");
    assert!(plaintext.load().is_ok());
    let problems = plaintext.variable("PEAT_KEK", &"01".repeat(32)).problems();
    assert!(problems.contains("plaintext"), "{problems}");
    let problems = Planted::default().variable("PEAT_KEY_PROVIDER", "Plaintext").problems();
    assert!(problems.contains("neither local nor plaintext"), "{problems}");
    let problems = Planted::default().variable("PEAT_KEY_PROVIDER", "vault").problems();
    assert!(problems.contains("the feature vault"), "{problems}");
}

#[test]
fn every_setting_has_its_own_names_and_a_default_that_can_be_read() {
    for (i, one) in settings().enumerate() {
        for other in settings().skip(i + 1) {
            assert_ne!(one.key, other.key);
            assert_ne!(one.environment, other.environment);
            assert_ne!(one.flag, other.flag);
        }
        assert!(one.environment.starts_with("PEAT_") && one.doc.trim().ends_with('.'), "{one:?}");
    }
    // Each default, given as a variable, is accepted.
    for setting in settings().filter(|setting| !setting.default.is_empty()) {
        let planted = Planted::default().variable(setting.environment, setting.default);
        assert!(planted.load().is_ok(), "{}", setting.key);
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    let page = reference::page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "run this test with UPDATE=1 to write {} again", path.display());
}

#[test]
fn limits_of_the_disk_are_checked_together() {
    let problems = Planted::default()
        .variable("PEAT_DISK_STALL_MS", "50")
        .variable("PEAT_DISK_FREE_PERCENT_MIN", "51")
        .variable("PEAT_LOG_MIB_MAX", "7")
        .variable("PEAT_SCRUB_MIB_PER_S", "0")
        .problems();
    for key in ["disk_stall_ms", "disk_free_percent_min", "log_mib_max", "scrub_mib_per_s"] {
        assert!(problems.contains(key), "{key} is missing in {problems}");
    }
    let late = Planted::default()
        .variable("PEAT_DISK_STALL_MS", "5000")
        .variable("PEAT_DISK_STALL_RESTART_S", "5");
    assert!(late.problems().contains("disk_stall_restart_s"));
    let off = ["PEAT_DISK_STALL_RESTART_S", "PEAT_DISK_FREE_MIB_MIN", "PEAT_LOG_MIB_MAX"];
    let off = off.iter().fold(Planted::default(), |planted, name| planted.variable(name, "0"));
    assert!(off.load().is_ok(), "0 switches each of them off");
}

#[test]
fn backups_need_a_place_outside_the_data_directory_and_sensible_numbers() {
    let good = Planted::default().variable("PEAT_BACKUP_DIR", "/backups").load().unwrap().backup;
    assert_eq!((good.interval_s, good.keep), (3600, 24));
    assert!(Planted::default().load().unwrap().backup.dir.is_none());
    let problems = Planted::default()
        .variable("PEAT_GATEWAY_DATA_DIR", "/data")
        .variable("PEAT_BACKUP_DIR", "/data/backups")
        .variable("PEAT_BACKUP_INTERVAL_S", "0")
        .variable("PEAT_BACKUP_KEEP", "0")
        .problems();
    for part in ["backup.dir: /data/backups", "backup.interval_s", "backup.keep"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}
