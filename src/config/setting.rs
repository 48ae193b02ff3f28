//! One setting: where it may be given, how it is written, what it means.
//!
//! A component's struct and its rows in [`Setting`] come from one declaration, so that flags, variables,
//! file keys and the reference page can't drift apart.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::secret::Secret;
use crate::keys::Kek;

/// How a setting is written in a TOML file; variables and flags are always text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An array of strings; text separated by commas elsewhere.
    List,
    /// A string that is never shown; also as a file.
    Secret,
}

/// One row of the configuration reference.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.field`, as in the TOML file.
    pub key: &'static str,
    /// The environment variable.
    pub environment: &'static str,
    /// The flag of `serve`, without dashes; a secret has none.
    pub flag: &'static str,
    /// The flag that names a secret's file, without dashes.
    pub file_flag: &'static str,
    /// The default as text; empty where there is none.
    pub default: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// The field's doc comment.
    pub doc: &'static str,
}

/// A component: a section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    /// The struct's doc comment.
    pub doc: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
}

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// How it is written.
    const KIND: Kind;
    /// Reads the text; the error completes "… is".
    fn parse(text: &str) -> Result<Self, String>;
    /// What it is where nothing was given and there is no default.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("empty".into()) } else { Ok(text.to_owned()) }
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("an empty path".into()) } else { Ok(text.into()) }
    }
}

impl Value for SocketAddr {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not an address and port like 127.0.0.1:8080 or [::1]:8080".into())
    }
}

impl Value for u64 {
    const KIND: Kind = Kind::Number;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "not a whole number from 0".into())
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("neither true nor false".into()),
        }
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<String> = text.split(',').map(|item| item.trim().to_owned()).collect();
        if items.iter().any(String::is_empty) {
            return Err("a list with an empty item".into());
        }
        Ok(items)
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("empty".into()) } else { Ok(Secret::new(text)) }
    }
}

impl Value for Kek {
    const KIND: Kind = Kind::Secret;
    fn parse(text: &str) -> Result<Self, String> {
        Kek::parse(text).map_err(|_| "neither 64 hexadecimal digits nor 32 bytes in base64".into())
    }
}

/// Declares components: the structs, and their sections for flags, variables, file and reference.
macro_rules! components {
    ($(
        $(#[doc = $about:literal])+
        $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $default:literal, $environment:literal, $flag:literal;
            )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug)]
            pub struct $name {
                $( $(#[doc = $doc])+ pub $field: $type, )+
            }

            impl $name {
                const SECTION: Section = Section {
                    name: $section,
                    doc: concat!($($about),+),
                    settings: &[$( Setting {
                        key: concat!($section, ".", stringify!($field)),
                        environment: $environment,
                        flag: $flag,
                        file_flag: concat!($flag, "-file"),
                        default: $default,
                        kind: <$type as Value>::KIND,
                        doc: concat!($($doc),+),
                    } ),+],
                };

                /// Reads the component; problems are noted, and `None` means that there were some.
                pub(super) fn read(given: &mut Given) -> Option<Self> {
                    $( let $field = given.value::<$type>(concat!($section, ".", stringify!($field)), $default); )+
                    Some(Self { $($field: $field?),+ })
                }
            }
        )+

        /// Every section, in the order of the reference page.
        pub const SECTIONS: &[Section] = &[$($name::SECTION),+];
    };
}
pub(super) use components;
