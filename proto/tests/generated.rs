//! The checked-in code is what the `.proto` files give.

use std::path::Path;

const FILES: [&str; 2] =
    ["peat/gateway/stored/v1/stored.proto", "peat/gateway/cluster/v1/cluster.proto"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("temporary directory");
    let sources: Vec<_> = FILES.iter().map(|file| root.join(file)).collect();
    tonic_prost_build::configure()
        .out_dir(fresh.path())
        .bytes(".")
        .emit_rerun_if_changed(false)
        .compile_protos(&sources, &[root.to_path_buf()])
        .expect("protoc runs (apt-get install protobuf-compiler)");
    let checked_in = root.join("src/gen");
    for entry in std::fs::read_dir(fresh.path()).expect("generated files") {
        let entry = entry.expect("generated file");
        let new = std::fs::read_to_string(entry.path()).expect("generated text");
        let place = checked_in.join(entry.file_name());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&place, &new).expect("write generated code");
        }
        let old = std::fs::read_to_string(&place).unwrap_or_default();
        assert!(
            old == new,
            "{} is stale: run `UPDATE=1 cargo test -p peat-gateway-proto`",
            place.display()
        );
    }
}
