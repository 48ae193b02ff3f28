//! The development authority and the nodes' certificates, and the secrets that nodes share.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::DevError;
use super::directory::{Directory, write_private};

/// Files that nodes share, and their own.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    /// Where certificates are.
    tls: PathBuf,
    /// 64 hexadecimal digits.
    pub(super) kek: PathBuf,
    /// What the nodes of the cluster know one another by.
    pub(super) cluster_token: PathBuf,
}

impl Secrets {
    /// Finds what an earlier run made, or makes it.
    ///
    /// # Errors
    /// As the file system or the random source says.
    pub(super) fn find_or_make(directory: &Directory, nodes: u16) -> Result<Self, DevError> {
        let tls = directory.subdirectory("tls")?;
        let secrets = directory.subdirectory("secrets")?;
        let made =
            Self { tls, kek: secrets.join("kek"), cluster_token: secrets.join("cluster-token") };
        for path in [&made.kek, &made.cluster_token] {
            if !path.exists() {
                write_private(path, random_hex()?.as_bytes())?;
            }
        }
        // The authority is written last: it says that all certificates are there.
        if !made.authority().exists() {
            make_certificates(&made, nodes)
                .map_err(|error| DevError::Certificates(error.to_string()))?
                .iter()
                .try_for_each(|(path, pem)| write_private(path, pem.as_bytes()))?;
        }
        Ok(made)
    }

    /// PEM of the authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.tls.join("ca.pem")
    }

    /// PEM of a node's certificate; nodes count from 1.
    pub(super) fn certificate(&self, node: u16) -> PathBuf {
        self.tls.join(format!("node-{node}.pem"))
    }

    /// PEM of a node's key.
    pub(super) fn key(&self, node: u16) -> PathBuf {
        self.tls.join(format!("node-{node}-key.pem"))
    }
}

/// 32 random bytes as text.
fn random_hex() -> Result<String, DevError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| DevError::Certificates(error.to_string()))?;
    Ok(hex::encode(bytes))
}

/// The authority's key is used here and forgotten: nobody can sign another node later.
fn make_certificates(
    secrets: &Secrets,
    nodes: u16,
) -> Result<Vec<(PathBuf, String)>, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "peat-gateway dev authority");
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let mut files = Vec::new();
    for node in 1..=nodes {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut parameters = CertificateParams::new(names)?;
        parameters.distinguished_name.push(DnType::CommonName, format!("node-{node}"));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        files.push((secrets.certificate(node), parameters.signed_by(&key, &issuer)?.pem()));
        files.push((secrets.key(node), key.serialize_pem()));
    }
    files.push((secrets.authority(), authority_pem));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn certificates_and_secrets_are_made_once_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path(), false).unwrap();
        let secrets = Secrets::find_or_make(&directory, 2).unwrap();
        let files = [
            secrets.authority(),
            secrets.certificate(1),
            secrets.key(2),
            secrets.kek,
            secrets.cluster_token,
        ];
        let first: Vec<String> = files.iter().map(|path| text(path)).collect();
        assert!(first[0].contains("BEGIN CERTIFICATE") && first[2].contains("PRIVATE KEY"));
        assert!(crate::keys::Kek::parse(&first[3]).is_ok());
        Secrets::find_or_make(&directory, 2).unwrap();
        let second: Vec<String> = files.iter().map(|path| text(path)).collect();
        assert_eq!(first, second);
    }
}
