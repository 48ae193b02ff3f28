//! The flags of `serve`: one per setting, made from the same rows as the reference page.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::setting::Kind;
use super::{SECTIONS, settings};

/// What was given on the command line, by key. A secret's text is a file's path.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The TOML file (`--config`).
    pub config: Option<PathBuf>,
    /// Text per key.
    pub values: BTreeMap<&'static str, String>,
}

impl Args for Flags {
    fn augment_args(mut command: Command) -> Command {
        command = command.arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .help("TOML file with settings (also PEAT_CONFIG)")
                .value_parser(clap::value_parser!(PathBuf)),
        );
        for section in SECTIONS {
            for setting in section.settings {
                let help = format!("{} [{}]", setting.doc.trim(), setting.environment);
                let mut arg = Arg::new(setting.key)
                    .help_heading(section.doc.trim().trim_end_matches('.'))
                    .value_parser(NonEmptyStringValueParser::new());
                arg = match setting.kind {
                    // A secret in an argument could be read by everyone on the machine.
                    Kind::Secret => arg
                        .long(setting.file_flag)
                        .value_name("FILE")
                        .help(format!("File with: {help}")),
                    Kind::Boolean => arg
                        .long(setting.flag)
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("true")
                        .value_name("BOOL")
                        .help(help),
                    _ => arg.long(setting.flag).value_name(value_name(setting.kind)).help(help),
                };
                command = command.arg(arg.action(ArgAction::Set));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "N",
        Kind::List => "A,B,…",
        _ => "VALUE",
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for setting in settings() {
            if let Some(text) = matches.get_one::<String>(setting.key) {
                self.values.insert(setting.key, text.clone());
            }
        }
        Ok(())
    }
}
