//! The certificates between nodes, replaced as a whole when their files change.
//!
//! ```text
//!  files ──► read, checked against each other and the clock ──► current ──► the next handshake
//!                └── refused: the ones in use stay                          (accepted or opened)
//! ```
//!
//! A node presents one certificate as a server and as a client, and believes who the authorities in the
//! file have signed. Connections that are open stay open: their handshake is over.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use blake3::Hash;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::connection::TcpStream;
use crate::config::PeerTls;

/// How long a peer may take for its TLS handshake; then the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of one certificate file; a larger one is refused. A bundle of authorities has a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What peers speak inside TLS: HTTP/2, as gRPC.
const PROTOCOL: &[u8] = b"h2";

/// The certificates in use.
pub(crate) struct PeerCertificates {
    files: PeerTls,
    /// The host under which the others reach this node; its certificate must be for it.
    own_host: Option<ServerName<'static>>,
    current: RwLock<Arc<Loaded>>,
}

/// One reading of the files.
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// When this node's certificate expires.
    expires: SystemTime,
    content: Hash,
}

impl PeerCertificates {
    /// Reads the files. `own_address` is this node's `host:port` for the others.
    ///
    /// What another node would not accept is only warned of: correct files are taken up without a
    /// restart.
    ///
    /// # Errors
    /// A file can't be read, or key and certificate don't belong together.
    pub(crate) fn load(files: &PeerTls, own_address: &str) -> Result<Self, String> {
        let own_host = host(own_address).and_then(|host| ServerName::try_from(host).ok());
        let contents = Contents::read(files)?;
        let (loaded, checker) = contents.load(files)?;
        if let Err(reason) = checker.check(own_host.as_ref()) {
            tracing::warn!(reason, "the other nodes will refuse this node's peer certificate");
        }
        let current = RwLock::new(Arc::new(loaded));
        Ok(Self { files: files.clone(), own_host, current })
    }

    /// Reads the files again; `false` where they are the same. Blocks on the disk.
    ///
    /// # Errors
    /// They can't be used, or other nodes would refuse them. The ones in use stay.
    pub(crate) fn reload(&self) -> Result<bool, String> {
        let contents = Contents::read(&self.files)?;
        if contents.hash() == self.current().content {
            return Ok(false);
        }
        let (loaded, checker) = contents.load(&self.files)?;
        checker.check(self.own_host.as_ref())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(true)
    }

    /// When this node's certificate expires.
    pub(crate) fn expires(&self) -> SystemTime {
        self.current().expires
    }

    /// Lets a peer in that an authority has signed.
    ///
    /// # Errors
    /// The handshake failed or took too long.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<server::TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current().server.clone());
        in_time(acceptor.accept(stream)).await
    }

    /// Speaks TLS to the peer at `address`, whose certificate must be for its host.
    ///
    /// # Errors
    /// The handshake failed or took too long.
    pub(crate) async fn connect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let name = host(address).and_then(|host| ServerName::try_from(host).ok());
        let name = name.ok_or_else(|| io::Error::other("the address has no host name"))?;
        let connector = TlsConnector::from(self.current().client.clone());
        in_time(connector.connect(name, stream)).await
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> Option<String> {
    let (host, _) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!bare.is_empty()).then(|| bare.to_owned())
}

/// The files' bytes.
struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
}

impl Contents {
    fn read(files: &PeerTls) -> Result<Self, String> {
        Ok(Self { ca: read(&files.ca)?, cert: read(&files.cert)?, key: read(&files.key)?.into() })
    }

    fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [&self.ca, &self.cert, &*self.key] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// Makes both sides' configurations, and what checks them as another node would.
    fn load(&self, files: &PeerTls) -> Result<(Loaded, Checker), String> {
        let wrong =
            |path: &Path, reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
        let authorities = certificates(&self.ca).map_err(|reason| wrong(&files.ca, &reason))?;
        let chain = certificates(&self.cert).map_err(|reason| wrong(&files.cert, &reason))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong(&files.key, &"this file holds no private key in PEM form"))?;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| wrong(&files.ca, &error))?;
        }
        let roots = Arc::new(roots);
        let expires = expiry(&chain[0]).map_err(|reason| wrong(&files.cert, &reason))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let checker = Checker::new(&roots, &provider, &chain, &files.cert)?;
        let server = server_config(&checker, &provider, &chain, &key)
            .map_err(|error| wrong(&files.key, &error))?;
        let client = client_config(roots, provider, chain, key)
            .map_err(|error| wrong(&files.key, &error))?;
        let (server, client) = (Arc::new(server), Arc::new(client));
        Ok((Loaded { server, client, expires, content: self.hash() }, checker))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!(
            "{}: {length} bytes are more than a certificate file may have, {FILE_BYTES_MAX}",
            path.display()
        ));
    }
    std::fs::read(path).map_err(failed)
}

/// The certificates of a PEM file, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("this file holds no certificate in PEM form".to_owned()),
        Err(error) => Err(format!("this is no PEM file: {error}")),
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("the certificate can't be read: {error}"))?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn server_config(
    checker: &Checker,
    provider: &Arc<CryptoProvider>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(checker.clients.clone())
        .with_single_cert(chain.to_vec(), key.clone_key())?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn client_config(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// Judges this node's certificate as the other nodes will.
struct Checker {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    cert_file: String,
}

impl Checker {
    fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        chain: &[CertificateDer<'static>],
        cert_file: &Path,
    ) -> Result<Self, String> {
        let unusable = |error: rustls::server::VerifierBuilderError| {
            format!("the authorities can't be used: {error}")
        };
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let servers =
            WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        Ok(Self {
            clients: clients.map_err(unusable)?,
            servers: servers.map_err(unusable)?,
            chain: chain.to_vec(),
            cert_file: cert_file.display().to_string(),
        })
    }

    /// # Errors
    /// The certificate is out of its time, not signed by an authority of the bundle, or for another
    /// host.
    fn check(&self, own_host: Option<&ServerName<'_>>) -> Result<(), String> {
        let refused = |error: rustls::Error| {
            format!("{}: the other nodes would refuse it: {error}", self.cert_file)
        };
        let (own, between) = self.chain.split_first().expect("a chain has a first certificate");
        let now = UnixTime::now();
        self.clients.verify_client_cert(own, between, now).map_err(refused)?;
        if let Some(host) = own_host {
            self.servers.verify_server_cert(own, between, host, &[], now).map_err(refused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tempfile::TempDir;

    use super::PeerCertificates;
    use crate::config::PeerTls;
    use crate::transport::connection::{TcpListener, TcpStream};

    const OWN: &str = "127.0.0.1:7000";

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        /// A certificate and its key.
        fn sign(&self, name: &str, until_year: i32) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        }
    }

    struct Files {
        _root: TempDir,
        files: PeerTls,
    }

    impl Files {
        fn new() -> Self {
            let root = TempDir::new().unwrap();
            let path = |name: &str| root.path().join(name);
            let files = PeerTls { ca: path("ca"), cert: path("cert"), key: path("key") };
            Self { _root: root, files }
        }

        fn write(&self, ca: &str, (cert, key): &(String, String)) {
            std::fs::write(&self.files.ca, ca).unwrap();
            std::fs::write(&self.files.cert, cert).unwrap();
            std::fs::write(&self.files.key, key).unwrap();
        }

        fn load(&self) -> PeerCertificates {
            PeerCertificates::load(&self.files, OWN).unwrap()
        }
    }

    /// One handshake; whether both sides are content.
    async fn talk(server: &PeerCertificates, client: &PeerCertificates) -> bool {
        let listener = TcpListener::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = async { server.accept(listener.accept().await.unwrap().0).await };
        let connecting = async {
            let stream = TcpStream::connect(&address.to_string()).await.unwrap();
            client.connect(&address.to_string(), stream).await
        };
        let (accepted, connected) = tokio::join!(accepting, connecting);
        accepted.is_ok() && connected.is_ok()
    }

    #[tokio::test]
    async fn authority_is_rotated_step_by_step_and_every_handshake_in_between_succeeds() {
        let (old, new) = (Authority::new(), Authority::new());
        let files = [Files::new(), Files::new()];
        for node in &files {
            node.write(&old.pem, &old.sign("127.0.0.1", 2100));
        }
        let nodes = [files[0].load(), files[1].load()];
        let all_talk =
            async || talk(&nodes[0], &nodes[1]).await && talk(&nodes[1], &nodes[0]).await;
        let both = format!("{}{}", old.pem, new.pem);
        let steps: [&dyn Fn(&Files); 3] = [
            &|node| std::fs::write(&node.files.ca, &both).unwrap(),
            &|node| node.write(&both, &new.sign("127.0.0.1", 2100)),
            &|node| std::fs::write(&node.files.ca, &new.pem).unwrap(),
        ];
        for (number, step) in steps.into_iter().enumerate() {
            for (node, files) in nodes.iter().zip(&files) {
                step(files);
                assert_eq!(node.reload(), Ok(true));
                assert_eq!(node.reload(), Ok(false));
                assert!(all_talk().await, "step {number}");
            }
        }
        let stranger = Files::new();
        stranger.write(&both, &old.sign("127.0.0.1", 2100));
        assert!(!talk(&nodes[0], &stranger.load()).await, "the old authority counts no more");
    }

    #[tokio::test]
    async fn files_that_other_nodes_would_refuse_are_refused_and_the_old_ones_stay() {
        let (authority, other) = (Authority::new(), Authority::new());
        let files = Files::new();
        files.write(&authority.pem, &authority.sign("127.0.0.1", 2100));
        let node = files.load();
        let before = node.expires();
        let good = authority.sign("127.0.0.1", 2101);
        let cases = [
            ("expired", authority.pem.clone(), authority.sign("127.0.0.1", 2001), "expired"),
            ("another authority", authority.pem.clone(), other.sign("127.0.0.1", 2100), "refuse"),
            ("another host", authority.pem.clone(), authority.sign("else.where", 2100), "refuse"),
            ("no PEM", "garbage".to_owned(), good.clone(), "no certificate"),
            (
                "another key",
                authority.pem.clone(),
                (good.0.clone(), other.sign("x", 2100).1),
                "key",
            ),
            ("no key", authority.pem.clone(), (good.0.clone(), String::new()), "no private key"),
        ];
        for (case, ca, own, expected) in cases {
            files.write(&ca, &own);
            let refused = node.reload().expect_err(case);
            assert!(refused.to_lowercase().contains(expected), "{case}: {refused}");
            assert_eq!(node.expires(), before, "{case}");
            assert!(talk(&node, &node).await, "{case}");
        }
        files.write(&authority.pem, &good);
        assert_eq!(node.reload(), Ok(true));
        assert!(node.expires() > before);
    }
}
