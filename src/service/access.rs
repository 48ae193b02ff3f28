//! Who may do what: one table, and nothing that isn't in it.

use super::{Error, Kind};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody that is known.
    Anonymous,
    /// The holder of an administrator's token.
    Admin,
    /// A process on the node's own machine, while no token is configured.
    Loopback,
    /// Anybody, where the configuration serves everybody.
    Open,
}

impl Principal {
    /// The name in the audit log; also the owner of idempotency keys.
    pub const fn name(self) -> &'static str {
        match self {
            Principal::Anonymous => "anonymous",
            Principal::Admin => "admin",
            Principal::Loopback => "loopback",
            Principal::Open => "open",
        }
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $permission:literal for $($principal:ident),*;)*) => {
        /// What a use case does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// All operations.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];

            /// The permission that it needs, as `resource:verb`.
            pub const fn permission(self) -> &'static str {
                match self { $(Operation::$name => $permission,)* }
            }

            /// Who has that permission.
            pub const fn principals(self) -> &'static [Principal] {
                match self { $(Operation::$name => &[$(Principal::$principal),*],)* }
            }
        }
    };
}

operations! {
    /// The nodes and who leads.
    ReadCluster = "cluster:read" for Admin, Loopback, Open;
    /// Adds, promotes and removes nodes, hands leadership on, founds and joins clusters.
    ChangeMembers = "cluster-members:change" for Admin, Loopback;
    /// The cluster's settings.
    ReadSettings = "settings:read" for Admin, Loopback, Open;
    /// Changes them.
    UpdateSettings = "settings:update" for Admin, Loopback, Open;
    /// Finishes an upgrade: raises the cluster's version.
    FinishUpgrade = "cluster:upgrade" for Admin, Loopback, Open;
    /// The whole state of all organisations, secrets sealed. Not for whoever can merely reach the port.
    SaveSnapshot = "cluster:save-snapshot" for Admin, Loopback;
    /// The cluster's audit chain.
    ReadClusterAudit = "cluster-audit:read" for Admin, Loopback, Open;
    /// Organisations.
    ReadOrganization = "organization:read" for Admin, Loopback, Open;
    /// Creates one.
    CreateOrganization = "organization:create" for Admin, Loopback, Open;
    /// Changes one.
    UpdateOrganization = "organization:update" for Admin, Loopback, Open;
    /// Deletes one with all it holds.
    DeleteOrganization = "organization:delete" for Admin, Loopback, Open;
    /// Formations and their peers.
    ReadFormation = "formation:read" for Admin, Loopback, Open;
    /// Creates one.
    CreateFormation = "formation:create" for Admin, Loopback, Open;
    /// Changes, suspends or resumes one.
    UpdateFormation = "formation:update" for Admin, Loopback, Open;
    /// Deletes one.
    DeleteFormation = "formation:delete" for Admin, Loopback, Open;
    /// Shows what admits a node to a mesh. A secret: not for whoever can merely reach the port.
    ExportCredentials = "formation:export-credentials" for Admin, Loopback;
    /// Documents with their content.
    ReadDocument = "document:read" for Admin, Loopback, Open;
    /// Sinks and their cursors.
    ReadSink = "sink:read" for Admin, Loopback, Open;
    /// Creates one.
    CreateSink = "sink:create" for Admin, Loopback, Open;
    /// Changes, pauses or resumes one.
    UpdateSink = "sink:update" for Admin, Loopback, Open;
    /// Deletes one.
    DeleteSink = "sink:delete" for Admin, Loopback, Open;
    /// Events with their content.
    ReadJournal = "journal:read" for Admin, Loopback, Open;
    /// An organisation's audit chain.
    ReadAudit = "audit:read" for Admin, Loopback, Open;
}

/// Refuses what the table doesn't allow. The first step of every use case.
///
/// # Errors
/// `Unauthenticated` for nobody that is known, `Forbidden` for everybody else.
pub fn authorize(principal: Principal, operation: Operation) -> Result<(), Error> {
    if operation.principals().contains(&principal) {
        return Ok(());
    }
    Err(match principal {
        Principal::Anonymous => unauthenticated(),
        _ => Error::new(
            Kind::Forbidden,
            "forbidden",
            format!("'{}' may not {}", principal.name(), operation.permission()),
        ),
    })
}

/// The answer to who has no valid token.
pub fn unauthenticated() -> Error {
    Error::new(
        Kind::Unauthenticated,
        "unauthenticated",
        "a valid administrator's token is needed: send `Authorization: Bearer <token>`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_unknown_may_do_anything() {
        for &operation in Operation::ALL {
            assert!(!operation.principals().contains(&Principal::Anonymous), "{operation:?}");
            let error = authorize(Principal::Anonymous, operation).unwrap_err();
            assert_eq!(error.kind, Kind::Unauthenticated);
            assert!(authorize(Principal::Admin, operation).is_ok());
        }
    }

    #[test]
    fn an_open_gateway_still_shows_no_mesh_credentials() {
        let error = authorize(Principal::Open, Operation::ExportCredentials).unwrap_err();
        assert_eq!(error.kind, Kind::Forbidden);
        assert!(error.detail.contains("formation:export-credentials"));
    }

    #[test]
    fn permissions_are_distinct() {
        let mut names: Vec<_> = Operation::ALL.iter().map(|o| o.permission()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Operation::ALL.len());
    }
}
