//! The three sources: file, environment, flags; each stronger than the one before.

use std::path::Path;

use toml::Value as Toml;
use zeroize::Zeroizing;

use super::flags::Flags;
use super::given::{Given, Written};
use super::setting::{Kind, Setting};
use super::{SECTIONS, settings};

/// Variables of the command line and of `dev`, which are no settings of a node.
pub(super) const OTHER_VARIABLES: &[&str] =
    &["PEAT_CONFIG", "PEAT_URL", crate::dev::DIE_WITH_PARENT];

/// Variables (by prefix) of features that this build doesn't have.
const MISSING_FEATURES: &[(&str, &str)] = &[
    ("PEAT_CDC_KAFKA_", "kafka"),
    ("PEAT_CDC_REDIS_", "redis"),
    ("PEAT_KMS_", "aws-kms"),
    ("PEAT_VAULT_", "vault"),
    ("PEAT_STORAGE_", "postgres"),
    ("PEAT_INGRESS_NATS_", "ingress"),
    ("PEAT_UI_DIR", "ui"),
];

/// Reads the file: weakest source. Problems name the key's path.
pub(super) fn read_file(given: &mut Given, path: &Path, text: &str) {
    let table: toml::Table = match toml::from_str(text) {
        Ok(table) => table,
        Err(error) => {
            // `message` leaves out the excerpt of the file, which might show a secret.
            let line = error.span().map_or(1, |span| {
                text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
            });
            let problem = format!("{}, line {line}: {}", path.display(), error.message());
            given.problem(problem);
            return;
        }
    };
    for (section, value) in &table {
        match value {
            Toml::Table(fields) if SECTIONS.iter().any(|known| known.name == section) => {
                for (field, value) in fields {
                    read_key(given, path, &format!("{section}.{field}"), value);
                }
            }
            _ => given.problem(format!("{}: unknown key {section}", path.display())),
        }
    }
    for setting in settings().filter(|setting| setting.kind == Kind::Secret) {
        let Some((section, field)) = setting.key.split_once('.') else { continue };
        let fields = table.get(section).and_then(Toml::as_table);
        if fields.is_some_and(|fields| {
            fields.contains_key(field) && fields.contains_key(&format!("{field}_file"))
        }) {
            given.problem(format!(
                "{}: {1} and {1}_file are both set",
                path.display(),
                setting.key
            ));
        }
    }
}

fn read_key(given: &mut Given, path: &Path, key: &str, value: &Toml) {
    let origin = format!("{} in {}", key, path.display());
    if let Some(setting) = settings().find(|setting| setting.key == key) {
        match as_text(setting, value) {
            Ok(text) => given.put(setting.key, Written::Text(text.into()), origin),
            Err(expected) => {
                given.problem(format!("{key} in {}: expected {expected}", path.display()));
            }
        }
        return;
    }
    let secret = key.strip_suffix("_file").and_then(|key| {
        settings().find(|setting| setting.key == key && setting.kind == Kind::Secret)
    });
    match (secret, value) {
        (Some(setting), Toml::String(file)) => {
            given.put(setting.key, Written::File(file.into()), origin);
        }
        (Some(_), _) => {
            given.problem(format!("{key} in {}: expected a string", path.display()));
        }
        (None, _) => given.problem(format!("{}: unknown key {key}", path.display())),
    }
}

fn as_text(setting: &Setting, value: &Toml) -> Result<String, &'static str> {
    match (setting.kind, value) {
        (Kind::Text | Kind::Secret, Toml::String(text)) => Ok(text.clone()),
        (Kind::Number, Toml::Integer(number)) => Ok(number.to_string()),
        (Kind::Boolean, Toml::Boolean(boolean)) => Ok(boolean.to_string()),
        (Kind::List, Toml::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(Toml::as_str).collect();
            texts.map(|texts| texts.join(",")).ok_or("an array of strings")
        }
        (Kind::Text | Kind::Secret, _) => Err("a string"),
        (Kind::Number, _) => Err("an integer"),
        (Kind::Boolean, _) => Err("true or false"),
        (Kind::List, _) => Err("an array of strings"),
    }
}

/// Reads `PEAT_*` variables. A name that nobody knows is a problem: a typo must not be silent.
pub(super) fn read_variables<'v>(
    given: &mut Given,
    variables: impl Iterator<Item = (&'v String, &'v String)> + Clone,
) {
    let has = |name: &str| variables.clone().any(|(other, _)| other == name);
    for (name, value) in variables.clone() {
        if !name.starts_with("PEAT_")
            || OTHER_VARIABLES.contains(&name.as_str())
            || is_service_link(name, value)
        {
            continue;
        }
        let origin = format!("environment variable {name}");
        if let Some(setting) = settings().find(|setting| setting.environment == name) {
            let text = Zeroizing::new(value.clone());
            given.put(setting.key, Written::Text(text), origin);
        } else if let Some(setting) = secret_of_file_variable(name) {
            if has(setting.environment) {
                given.problem(format!("{} and {name} are both set", setting.environment));
            }
            given.put(setting.key, Written::File(value.into()), origin);
        } else if let Some((_, feature)) =
            MISSING_FEATURES.iter().find(|(prefix, _)| name.starts_with(prefix))
        {
            given.problem(format!(
                "{name} needs the feature {feature}, which this build doesn't have"
            ));
        } else {
            given.problem(format!("unknown environment variable {name}"));
        }
    }
}

fn secret_of_file_variable(name: &str) -> Option<&'static Setting> {
    let stem = name.strip_suffix("_FILE")?;
    settings().find(|setting| setting.environment == stem && setting.kind == Kind::Secret)
}

/// Whether the variable is one that Kubernetes sets for a Service named `peat-…` in the namespace.
fn is_service_link(name: &str, value: &str) -> bool {
    let transport = value.starts_with("tcp://") || value.starts_with("udp://");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && transport)
        || name.split("_PORT_").nth(1).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit())
                && (rest.contains("_TCP") || rest.contains("_UDP"))
        })
}

/// Reads flags: strongest source.
pub(super) fn read_flags(given: &mut Given, flags: &Flags) {
    for setting in settings() {
        let Some(text) = flags.values.get(setting.key) else { continue };
        if setting.kind == Kind::Secret {
            let origin = format!("--{}", setting.file_flag);
            given.put(setting.key, Written::File(text.into()), origin);
        } else {
            let origin = format!("--{}", setting.flag);
            given.put(setting.key, Written::Text(text.clone().into()), origin);
        }
    }
}
