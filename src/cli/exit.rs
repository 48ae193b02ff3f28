//! Exit codes: each means one thing, listed in `docs/reference/cli.md`.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed for a reason that no other code names; stderr says it.
    Failed = 1,
    /// Wrong arguments; nothing happened.
    Usage = 2,
    /// What was named doesn't exist.
    NotFound = 3,
    /// The request contradicts the rules or the state; nothing happened.
    Refused = 4,
    /// The token is missing, wrong, or not allowed to do this.
    Forbidden = 5,
    /// No node could take the request now; nothing happened, try again.
    Unavailable = 6,
    /// It may have happened; look before trying again.
    UnknownOutcome = 7,
    /// A node could not go on: storage or consensus failed.
    NodeFailed = 70,
    /// A deposed leader's work did not end in time, so the process did; start it again.
    LeaderWorkStuck = 75,
    /// The configuration or the key doesn't fit; starting again doesn't help.
    Configuration = 78,
    /// Ended at once by a second signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// The code for an HTTP status that isn't success.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Exit::Forbidden,
            404 => Exit::NotFound,
            429 | 502 | 503 | 507 => Exit::Unavailable,
            504 => Exit::UnknownOutcome,
            400..=499 => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}
