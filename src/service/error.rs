//! What callers must tell apart, with a stable code each.

use std::borrow::Cow;

use peat_gateway_cluster::{MembershipError, ProposeError, ReadIndexError};
use peat_gateway_state::outcome::code;
use peat_gateway_state::{ReadError, Refusal, RefusalKind};
use thiserror::Error;

use crate::keys::KeyError;

/// Why a use case failed. Maps to a status in one table of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it is.
    Invalid,
    /// Well-formed, but a field has a wrong type or is unknown.
    Unprocessable,
    /// Nobody has said who asks, or not truthfully.
    Unauthenticated,
    /// Who asks may not do this.
    Forbidden,
    /// What it names doesn't exist.
    NotFound,
    /// The path exists, this method on it doesn't.
    MethodNotAllowed,
    /// It contradicts what is there.
    Conflict,
    /// `If-Match` named another revision.
    PreconditionFailed,
    /// The body is too large.
    TooLarge,
    /// The body's content type can't be read.
    UnsupportedMediaType,
    /// A quota or limit is reached.
    TooMany,
    /// Nothing happened; try again.
    Unavailable,
    /// The disks are nearly full: nothing happened, and trying again helps only when there is room.
    NoSpace,
    /// It may have happened; only a retry with the same idempotency key is safe.
    UnknownOutcome,
    /// A fault of the gateway.
    Internal,
}

/// A use case failed.
#[derive(Debug, Error)]
#[error("{detail}")]
pub struct Error {
    /// What the caller should do about it.
    pub kind: Kind,
    /// Stable, snake_case: what scripts compare.
    pub code: Cow<'static, str>,
    /// For people: what was attempted, what is wrong, what to do.
    pub detail: String,
    /// JSON pointer of the field that is wrong, where it is one.
    pub pointer: Option<String>,
    /// What caused it; for the log, never for the client.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Builds an error.
    pub fn new(kind: Kind, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { kind, code: code.into(), detail: detail.into(), pointer: None, source: None }
    }

    /// Builds an error about one field of the request's body.
    pub fn field(
        code: impl Into<Cow<'static, str>>,
        pointer: &str,
        detail: impl Into<String>,
    ) -> Self {
        let pointer = Some(pointer.to_owned());
        Self { pointer, ..Self::new(Kind::Invalid, code, detail) }
    }

    /// Says that a thing doesn't exist.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, "not_found", format!("there is no {what} '{}'", shown(id)))
    }

    /// A fault of the gateway: the detail goes to the log as the cause, the client learns only that.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let detail = "an internal error; the gateway's log has the details under this request id";
        let source = Some(cause.into());
        Self { source, ..Self::new(Kind::Internal, "internal", detail) }
    }

    /// Seconds after which a client should try again, where that can help by itself.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self.kind {
            Kind::Unavailable => Some(1),
            // Nobody frees a disk within a second.
            Kind::NoSpace => Some(10),
            Kind::TooMany if self.code.ends_with("overloaded") => Some(1),
            _ => None,
        }
    }
}

/// Cuts what a client sent to a length that fits in a sentence.
fn shown(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 128;
    text.get(..text.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default()
}

/// Which field of a body a refusal of the state is about.
fn pointer_of(code: &str) -> Option<&'static str> {
    Some(match code {
        "invalid_org_id" => "/org_id",
        "invalid_app_id" => "/app_id",
        "invalid_display_name" => "/display_name",
        "invalid_filter" => "/filter",
        "invalid_sink_type" | "sink_type_immutable" => "/sink_type",
        "invalid_static_peers" => "/static_peers",
        _ => return None,
    })
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.kind {
            RefusalKind::Invalid => Kind::Invalid,
            RefusalKind::NotFound => Kind::NotFound,
            RefusalKind::Conflict => Kind::Conflict,
            RefusalKind::PreconditionFailed => Kind::PreconditionFailed,
            RefusalKind::TooMany => Kind::TooMany,
            // Trying again doesn't help before somebody has finished the upgrade.
            RefusalKind::Unavailable if refusal.code == code::VERSION_NOT_ENABLED => Kind::Conflict,
            RefusalKind::Fenced | RefusalKind::Unavailable => Kind::Unavailable,
        };
        let pointer = pointer_of(&refusal.code).map(str::to_owned);
        Self { pointer, ..Self::new(kind, refusal.code, refusal.detail) }
    }
}

impl From<ProposeError> for Error {
    fn from(error: ProposeError) -> Self {
        match &error {
            ProposeError::Unavailable(_) | ProposeError::NotLeader => Self::new(
                Kind::Unavailable,
                "unavailable",
                format!("{error}; nothing happened, try again"),
            ),
            ProposeError::Unknown(_) => Self::new(
                Kind::UnknownOutcome,
                "unknown_outcome",
                format!(
                    "{error}: it may have happened; ask again with the same Idempotency-Key, or \
                     look before you try again"
                ),
            ),
            ProposeError::Behind { .. } => Self::new(
                Kind::Unavailable,
                "behind",
                format!("{error}; nothing happened, try again"),
            ),
            ProposeError::OverShare { .. } => Self::new(
                Kind::TooMany,
                "organization_overloaded",
                format!("{error}; nothing happened, try again with fewer requests at once"),
            ),
            ProposeError::Overloaded => Self::new(
                Kind::TooMany,
                "overloaded",
                format!("{error}; nothing happened, try again"),
            ),
            ProposeError::TooNew { .. } => {
                Self::new(Kind::Conflict, code::VERSION_NOT_ENABLED, error.to_string())
            }
            ProposeError::NoSpace(_) => {
                Self::new(Kind::NoSpace, "no_space", format!("{error}; nothing happened"))
            }
            ProposeError::TooLarge { .. } => {
                Self::new(Kind::TooLarge, "too_large", error.to_string())
            }
        }
    }
}

impl From<MembershipError> for Error {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Refused(refusal) => refusal.into(),
            MembershipError::Unavailable(_) => Self::new(
                Kind::Unavailable,
                "unavailable",
                format!("{error}; nothing happened, try again"),
            ),
            MembershipError::Unknown(_) => Self::new(
                Kind::UnknownOutcome,
                "unknown_outcome",
                format!("{error}; look at the cluster's status before you try again"),
            ),
        }
    }
}

impl From<ReadIndexError> for Error {
    fn from(error: ReadIndexError) -> Self {
        let code = match &error {
            ReadIndexError::Unavailable(_) => "unavailable",
            ReadIndexError::OutOfService(_) => "out_of_service",
            ReadIndexError::Behind { .. } => "behind",
            ReadIndexError::Stale { .. } => "too_stale",
        };
        Self::new(Kind::Unavailable, code, error.to_string())
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        // The storage says it by this word; the node has taken itself out of service by now.
        if let ReadError::Store { source, .. } = &error
            && source.to_string().starts_with("Corruption")
        {
            let detail = "this node's data is damaged; ask another node";
            let source = Some(error.into());
            return Self { source, ..Self::new(Kind::Unavailable, "out_of_service", detail) };
        }
        Self::internal(error)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unavailable(_) => {
                let detail = "the key provider is not reachable; nothing happened, try again";
                let source = Some(error.into());
                Self { source, ..Self::new(Kind::Unavailable, "key_provider_unavailable", detail) }
            }
            KeyError::TooLarge { .. } => Self::new(Kind::TooLarge, "too_large", error.to_string()),
            KeyError::Refused { .. } | KeyError::WrongKey { .. } => Self::internal(error),
        }
    }
}
