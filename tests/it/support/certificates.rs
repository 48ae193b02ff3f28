//! Authorities and node certificates, as an operator's tool makes them.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The files of a cluster's certificates.
pub const CA: &str = "ca.pem";
/// See [`CA`].
pub const CERT: &str = "node.pem";
/// See [`CA`].
pub const KEY: &str = "node.key";

/// An authority.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A node's certificate and its key.
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// Makes one with a name of its own.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate for loopback that is good until a year begins.
    pub fn sign(&self, until_year: i32) -> Signed {
        self.sign_for(&["127.0.0.1".to_owned()], until_year)
    }

    /// Signs a certificate for these hosts.
    pub fn sign_for(&self, hosts: &[String], until_year: i32) -> Signed {
        let mut names = vec!["localhost".to_owned()];
        names.extend_from_slice(hosts);
        names.dedup();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(names).expect("parameters");
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    /// Writes certificate and key, one after the other.
    pub fn write(&self, directory: &Path) {
        write(directory, CERT, &self.cert);
        write(directory, KEY, &self.key);
    }
}

/// Writes one file.
pub fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("the certificate files");
}
