//! How a mesh admits devices.

use std::fmt;
use std::str::FromStr;

/// How a mesh admits devices. The byte is what genesis and credentials carry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Policy {
    /// Anyone who has the formation secret.
    Open = 0,
    /// Devices that were enrolled.
    #[default]
    Controlled = 1,
    /// Enrolled devices, each approved by a person.
    Strict = 2,
}

impl Policy {
    /// Returns the byte on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Returns the policy with this byte on the wire, or none if there is none.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Open),
            1 => Some(Self::Controlled),
            2 => Some(Self::Strict),
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "Open",
            Self::Controlled => "Controlled",
            Self::Strict => "Strict",
        })
    }
}

/// The text names no policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("read a mesh policy: {0:?} is none of open, controlled, strict")]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    /// Reads a name; case and surrounding space do not matter.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text.trim().to_ascii_lowercase().as_str() {
            "open" => Ok(Self::Open),
            "controlled" => Ok(Self::Controlled),
            "strict" => Ok(Self::Strict),
            _ => Err(UnknownPolicy(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whatever_their_case_and_written_in_title_case() {
        for policy in [Policy::Open, Policy::Controlled, Policy::Strict] {
            assert_eq!(Policy::from_byte(policy.byte()), Some(policy));
            assert_eq!(format!("  {} ", policy.to_string().to_uppercase()).parse(), Ok(policy));
        }
        assert_eq!(Policy::from_byte(3), None);
        assert!("closed".parse::<Policy>().is_err());
    }
}
