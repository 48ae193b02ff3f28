//! Organisations.

use peat_gateway_state::command::{
    CreateOrganization, DeleteOrganization, QuotaChanges, UpdateOrganization,
};
use peat_gateway_state::ids::OrgId;
use peat_gateway_state::record::{Organization, OrganizationQuotas};
use peat_gateway_state::{Command, Outcome, query};

use super::access::{Operation, authorize};
use super::{Call, Error, Page, Reply, Service, org_id, unexpected};

impl Service {
    /// Creates an organisation; quotas that aren't given have their defaults.
    ///
    /// # Errors
    /// `invalid_org_id`, `invalid_display_name`, `already_exists`.
    pub async fn create_organization(
        &self,
        call: &Call,
        id: &str,
        display_name: String,
        quotas: QuotaChanges,
    ) -> Result<Reply<Organization>, Error> {
        authorize(call.principal, Operation::CreateOrganization)?;
        let org_id = OrgId::parse(id)
            .map_err(|invalid| Error::field("invalid_org_id", "/org_id", invalid.to_string()))?;
        let quotas = with_defaults(quotas);
        let command = CreateOrganization { org_id, display_name, quotas };
        organization(self.propose(call, Command::CreateOrganization(command)).await?)
    }

    /// Returns organisations by id, those after `after`.
    ///
    /// # Errors
    /// As every read.
    pub async fn organizations(
        &self,
        call: &Call,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Reply<Page<Organization>>, Error> {
        authorize(call.principal, Operation::ReadOrganization)?;
        let after = after.map(OrgId::from_trusted);
        let snapshot = self.read(call).await?;
        let found = query::organizations(snapshot.reader(), after.as_ref(), limit + 1)?;
        Ok(Reply { value: Page::cut(found, limit), index: snapshot.index() })
    }

    /// Returns an organisation.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn organization(&self, call: &Call, org: &str) -> Result<Reply<Organization>, Error> {
        authorize(call.principal, Operation::ReadOrganization)?;
        let id = org_id(org)?;
        let snapshot = self.read(call).await?;
        let found = query::organization(snapshot.reader(), &id)?;
        let value = found.ok_or_else(|| Error::not_found("organization", org))?;
        Ok(Reply { value, index: snapshot.index() })
    }

    /// Changes an organisation; what is `None` stays.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`, `invalid_display_name`.
    pub async fn update_organization(
        &self,
        call: &Call,
        org: &str,
        expected_revision: Option<u64>,
        display_name: Option<String>,
        quotas: QuotaChanges,
    ) -> Result<Reply<Organization>, Error> {
        authorize(call.principal, Operation::UpdateOrganization)?;
        let command =
            UpdateOrganization { org_id: org_id(org)?, expected_revision, display_name, quotas };
        organization(self.propose(call, Command::UpdateOrganization(command)).await?)
    }

    /// Deletes an organisation with all it holds; its audit chain stays.
    ///
    /// # Errors
    /// `not_found`, `precondition_failed`.
    pub async fn delete_organization(
        &self,
        call: &Call,
        org: &str,
        expected_revision: Option<u64>,
    ) -> Result<Reply<()>, Error> {
        authorize(call.principal, Operation::DeleteOrganization)?;
        let command = DeleteOrganization { org_id: org_id(org)?, expected_revision };
        let reply = self.propose(call, Command::DeleteOrganization(command)).await?;
        Ok(reply.map(|_| ()))
    }
}

fn organization(reply: Reply<Outcome>) -> Result<Reply<Organization>, Error> {
    match reply.value {
        Outcome::Organization(value) => Ok(Reply { value, index: reply.index }),
        other => Err(unexpected(&other)),
    }
}

fn with_defaults(given: QuotaChanges) -> OrganizationQuotas {
    let default = OrganizationQuotas::default();
    OrganizationQuotas {
        max_formations: given.max_formations.unwrap_or(default.max_formations),
        max_peers_per_formation: given
            .max_peers_per_formation
            .unwrap_or(default.max_peers_per_formation),
        max_documents_per_formation: given
            .max_documents_per_formation
            .unwrap_or(default.max_documents_per_formation),
        max_cdc_sinks: given.max_cdc_sinks.unwrap_or(default.max_cdc_sinks),
        max_enrollments_per_hour: given
            .max_enrollments_per_hour
            .unwrap_or(default.max_enrollments_per_hour),
        max_journal_bytes: given.max_journal_bytes.unwrap_or(default.max_journal_bytes),
    }
}
