//! Formations: created with a genesis that is sealed before it is proposed.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peat_gateway_mesh::genesis::Genesis;
use peat_gateway_mesh::policy::Policy;
use peat_gateway_state::command::{CreateFormation, DeleteFormation, UpdateFormation};
use peat_gateway_state::ids::AppId;
use peat_gateway_state::outcome::code;
use peat_gateway_state::record::{
    EnrollmentPolicy, Formation, FormationStatus, Peer, SealedSecret,
};
use peat_gateway_state::{Command, Outcome, query};
use zeroize::Zeroizing;

use super::access::{Operation, authorize};
use super::{
    Call, Error, Kind, Page, Reply, Service, app_id, binding, existing_organization, org_id,
    seal_domain, unexpected,
};
use crate::keys::SecretKind;

/// How often a new genesis is made where its 32-bit mesh id is taken; then the request is a conflict.
const GENESIS_ATTEMPTS_MAX: usize = 8;
/// The record version of a genesis: it never changes.
const GENESIS_VERSION: u64 = 1;

/// What a new formation is made of.
#[derive(Clone, Debug)]
pub struct NewFormation {
    /// Its id; also the mesh's name.
    pub app_id: String,
    /// Who may enrol.
    pub enrollment_policy: EnrollmentPolicy,
    /// Mesh nodes to dial: `host:port` or `name@host:port`.
    pub static_peers: Vec<String>,
}

/// What to change in a formation; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct FormationChanges {
    /// Who may enrol.
    pub enrollment_policy: Option<EnrollmentPolicy>,
    /// Suspends or resumes.
    pub status: Option<FormationStatus>,
    /// Mesh nodes to dial.
    pub static_peers: Option<Vec<String>>,
}

/// What admits a node to a mesh. Secret: it has no `Debug`.
pub struct MeshCredentials {
    /// The mesh.
    pub mesh_id: String,
    /// Mesh credentials as mesh nodes read them, in standard base64.
    pub credentials: Zeroizing<String>,
}

impl Service {
    /// Creates a formation with its genesis in one step.
    ///
    /// # Errors
    /// `invalid_app_id`, `invalid_static_peers`, `organization_not_found`, `already_exists`,
    /// `quota_exceeded`; `key_provider_unavailable` where the genesis can't be sealed.
    pub async fn create_formation(
        &self,
        call: &Call,
        org: &str,
        new: NewFormation,
    ) -> Result<Reply<Formation>, Error> {
        authorize(call.principal, Operation::CreateFormation)?;
        let org_id = org_id(org)?;
        let app_id = AppId::parse(&new.app_id)
            .map_err(|invalid| Error::field("invalid_app_id", "/app_id", invalid.to_string()))?;
        check_static_peers(&new.static_peers)?;
        let mut attempt = 1;
        loop {
            let (seal_domain, genesis) = {
                let snapshot = self.read_newest(call.consistency.min_index).await?;
                let genesis = fresh_genesis(app_id.as_str(), new.enrollment_policy)?;
                if query::mesh_id_owner(snapshot.reader(), &genesis.mesh_id())?.is_some()
                    && attempt < GENESIS_ATTEMPTS_MAX
                {
                    attempt += 1;
                    continue;
                }
                (seal_domain(&snapshot)?, genesis)
            };
            let bound = binding(
                seal_domain,
                &org_id,
                SecretKind::Genesis,
                app_id.as_str(),
                GENESIS_VERSION,
            );
            let envelope = self.keyring.seal(&bound, &genesis.encode()).await?;
            let command = Command::CreateFormation(CreateFormation {
                org_id: org_id.clone(),
                app_id: app_id.clone(),
                mesh_id: genesis.mesh_id(),
                enrollment_policy: new.enrollment_policy,
                genesis: SealedSecret { envelope, record_version: GENESIS_VERSION },
                static_peers: new.static_peers.clone(),
            });
            match self.propose(call, command).await {
                Err(error)
                    if error.code == code::MESH_ID_TAKEN && attempt < GENESIS_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                decided => return formation(decided?),
            }
        }
    }

    /// Returns an organisation's formations by id, those after `after`.
    ///
    /// # Errors
    /// `not_found` where there is no such organisation.
    pub async fn formations(
        &self,
        call: &Call,
        org: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Reply<Page<Formation>>, Error> {
        authorize(call.principal, Operation::ReadFormation)?;
        let org = org_id(org)?;
        let after = after.map(AppId::from_trusted);
        let snapshot = self.read(call).await?;
        existing_organization(&snapshot, &org)?;
        let found = query::formations(snapshot.reader(), &org, after.as_ref(), limit + 1)?;
        Ok(Reply { value: Page::cut(found, limit), index: snapshot.index() })
    }

    /// Returns a formation.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn formation(
        &self,
        call: &Call,
        org: &str,
        app: &str,
    ) -> Result<Reply<Formation>, Error> {
        authorize(call.principal, Operation::ReadFormation)?;
        let snapshot = self.read(call).await?;
        let found = query::formation(snapshot.reader(), &org_id(org)?, &app_id(app)?)?;
        let value = found.ok_or_else(|| Error::not_found("formation", app))?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Changes, suspends or resumes a formation.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`, `invalid_static_peers`.
    pub async fn update_formation(
        &self,
        call: &Call,
        org: &str,
        app: &str,
        expected_revision: Option<u64>,
        changes: FormationChanges,
    ) -> Result<Reply<Formation>, Error> {
        authorize(call.principal, Operation::UpdateFormation)?;
        check_static_peers(changes.static_peers.as_deref().unwrap_or_default())?;
        let command = UpdateFormation {
            org_id: org_id(org)?,
            app_id: app_id(app)?,
            expected_revision,
            enrollment_policy: changes.enrollment_policy,
            status: changes.status,
            static_peers: changes.static_peers,
        };
        formation(self.propose(call, Command::UpdateFormation(command)).await?)
    }

    /// Deletes a formation with its genesis, peers and documents; its events stay in the journal.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`.
    pub async fn delete_formation(
        &self,
        call: &Call,
        org: &str,
        app: &str,
        expected_revision: Option<u64>,
    ) -> Result<Reply<()>, Error> {
        authorize(call.principal, Operation::DeleteFormation)?;
        let command =
            DeleteFormation { org_id: org_id(org)?, app_id: app_id(app)?, expected_revision };
        let reply = self.propose(call, Command::DeleteFormation(command)).await?;
        Ok(reply.map(|_| ()))
    }

    /// Returns the mesh nodes that the gateway has met in a formation, by id; at most 1024.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn peers(
        &self,
        call: &Call,
        org: &str,
        app: &str,
    ) -> Result<Reply<Vec<Peer>>, Error> {
        authorize(call.principal, Operation::ReadFormation)?;
        let (org, app_key) = (org_id(org)?, app_id(app)?);
        let snapshot = self.read(call).await?;
        if query::formation(snapshot.reader(), &org, &app_key)?.is_none() {
            return Err(Error::not_found("formation", app));
        }
        let value = query::peers(snapshot.reader(), &org, &app_key)?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Returns what admits a node to the formation's mesh. Secret; logged with who asked.
    ///
    /// # Errors
    /// `not_found`; `key_provider_unavailable` where the genesis can't be opened now.
    pub async fn mesh_credentials(
        &self,
        call: &Call,
        org: &str,
        app: &str,
    ) -> Result<Reply<MeshCredentials>, Error> {
        authorize(call.principal, Operation::ExportCredentials)?;
        let (org_key, app_key) = (org_id(org)?, app_id(app)?);
        let (sealed, seal_domain, index) = {
            let snapshot = self.read(call).await?;
            let sealed = query::genesis(snapshot.reader(), &org_key, &app_key)?
                .ok_or_else(|| Error::not_found("formation", app))?;
            (sealed, seal_domain(&snapshot)?, snapshot.index())
        };
        let bound = binding(
            seal_domain,
            &org_key,
            SecretKind::Genesis,
            app_key.as_str(),
            sealed.record_version,
        );
        let opened = self.keyring.open(&bound, &sealed.envelope).await?;
        let genesis = Genesis::decode(&opened).map_err(Error::internal)?;
        tracing::info!(
            principal = call.principal.name(),
            source = call.source,
            request_id = call.request_id,
            organization = org,
            formation = app,
            "mesh credentials were exported"
        );
        let credentials = Zeroizing::new(STANDARD.encode(&*genesis.credentials().encode()));
        Ok(Reply { value: MeshCredentials { mesh_id: genesis.mesh_id(), credentials }, index })
    }
}

fn formation(reply: Reply<Outcome>) -> Result<Reply<Formation>, Error> {
    match reply.value {
        Outcome::Formation(value) => Ok(Reply { value, index: reply.index }),
        other => Err(unexpected(&other)),
    }
}

fn fresh_genesis(name: &str, policy: EnrollmentPolicy) -> Result<Genesis, Error> {
    let policy = match policy {
        EnrollmentPolicy::Open => Policy::Open,
        EnrollmentPolicy::Controlled => Policy::Controlled,
        EnrollmentPolicy::Strict => Policy::Strict,
    };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|error| Error::internal(error.to_string()))?;
    // Only shown to people; the formation's own creation time is the leader's stamp.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Genesis::create(name, policy, created_at_ms, seed).map_err(Error::internal)
}

/// Checks the form `host:port` or `name@host:port`; `apply` checks numbers and lengths.
fn check_static_peers(peers: &[String]) -> Result<(), Error> {
    for (at, peer) in peers.iter().enumerate() {
        let address = peer.split_once('@').map_or(peer.as_str(), |(_, address)| address);
        let parts = address.rsplit_once(':');
        let good = parts.is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            return Err(Error {
                pointer: Some(format!("/static_peers/{at}")),
                ..Error::new(
                    Kind::Invalid,
                    "invalid_static_peers",
                    "a static peer must be 'host:port' or 'name@host:port'",
                )
            });
        }
    }
    Ok(())
}
