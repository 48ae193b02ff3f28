//! Which key a node seals with.

use tracing::warn;

use super::ServeError;
use crate::config::Config;
use crate::keys::{Kek, Keyring};

/// The key file that a cluster of one makes for itself, in its data directory.
const KEK_FILE: &str = "kek";

/// Opens the keyring that the configuration asks for. Blocks shortly; for start only.
///
/// # Errors
/// The key file of a cluster of one can't be made or read.
pub(super) fn open(config: &Config) -> Result<Keyring, ServeError> {
    if config.keys.provider == "plaintext" {
        warn!("PEAT_KEY_PROVIDER=plaintext: secrets stand in clear on every disk of this cluster");
        return Ok(Keyring::plaintext());
    }
    if let Some(kek) = &config.keys.kek {
        return Ok(Keyring::local(kek.clone()));
    }
    // The configuration's check has refused this for a cluster of several.
    let path = config.gateway.data_dir.join(KEK_FILE);
    let (kek, made) = Kek::load_or_create(&path)?;
    warn!(
        path = %path.display(),
        made,
        "no PEAT_KEK is set: the key-encryption key lies in the data directory, beside the secrets that \
         it seals. Who copies the directory has both; set PEAT_KEK_FILE to a key kept elsewhere"
    );
    Ok(Keyring::local(kek))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Flags;
    use crate::config::Process;

    #[test]
    fn a_cluster_of_one_makes_its_key_once_and_only_its_owner_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::load(&Flags::default(), &Process).unwrap();
        config.gateway.data_dir = root.path().to_owned();
        let first = open(&config).unwrap();
        let second = open(&config).unwrap();
        assert_eq!(first.key_id(), second.key_id());
        let mode = std::fs::metadata(root.path().join(KEK_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        config.keys.provider = "plaintext".into();
        assert_eq!(open(&config).unwrap().provider(), "plaintext");
    }
}
