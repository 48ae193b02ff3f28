//! Arguments: what is accepted, what is refused, what the help says.

use clap::error::ErrorKind;

use super::*;
use crate::config::settings;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_it_serves() {
    assert!(parse("peat-gateway").unwrap().command.is_none());
}

#[test]
fn every_setting_is_a_flag_of_serve_and_secrets_only_as_files() {
    for setting in settings() {
        let secret = setting.kind == crate::config::Kind::Secret;
        let plain = parse(&format!("peat-gateway serve --{}=1", setting.flag));
        let file = parse(&format!("peat-gateway serve --{}-file=/f", setting.flag));
        assert_eq!(plain.is_err(), secret, "{}", setting.key);
        assert_eq!(file.is_ok(), secret, "{}", setting.key);
    }
    let Some(Command::Serve(flags)) =
        parse("peat-gateway serve --config /f --bind 127.0.0.1:1 --insecure-open").unwrap().command
    else {
        panic!("serve");
    };
    assert_eq!(flags.config.as_deref(), Some(std::path::Path::new("/f")));
    assert_eq!(flags.values["gateway.bind"], "127.0.0.1:1");
    assert_eq!(flags.values["gateway.insecure_open"], "true");
}

#[test]
fn client_verbs_take_their_options_anywhere() {
    for line in [
        "peat-gateway org list -o json",
        "peat-gateway org -o json --url http://a:1,http://b:1 create acme --display-name Acme",
        "peat-gateway org update acme --max-formations 3 --if-match 7 --token-file /t",
        "peat-gateway formation --org acme create alpha --policy open --peer a@h:1 --peer h:2",
        "peat-gateway formation suspend alpha --org acme",
        "peat-gateway formation credentials alpha --org acme",
        "peat-gateway sink create --org acme --nats events --nats-url nats://h:4222 --formation a",
        "peat-gateway sink pause 01J --org acme",
        "peat-gateway document get alpha units:1 --org acme",
        "peat-gateway journal tail --follow --org acme",
        "peat-gateway audit verify --org acme",
        "peat-gateway cluster status",
        "peat-gateway cluster recover --data-dir /d --i-accept-data-loss=0123456789ab -o json",
        "peat-gateway cluster recover --data-dir /d --keep-unconfirmed-entries",
        "peat-gateway cluster recover --data-dir /d --from-snapshot /f",
        "peat-gateway snapshot save /f --overwrite --url http://a:1 --token-file /t",
        "peat-gateway snapshot inspect /f -o json",
        "peat-gateway snapshot restore /f --data-dir /d",
        "peat-gateway bench --rounds 2 --json f",
        "peat-gateway completions bash",
        "peat-gateway config check --bind 127.0.0.1:1",
        "peat-gateway mesh-node --name u --credentials - --peer u2@127.0.0.1:1 --rate 0 -o json",
        "peat-gateway dev --nodes 5 --data d --port 9000 --rate 7 --fresh --no-mesh --plain",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for (line, kind) in [
        ("peat-gateway server", ErrorKind::InvalidSubcommand),
        ("peat-gateway org get", ErrorKind::MissingRequiredArgument),
        (
            "peat-gateway sink create --org a --file x --webhook http://h",
            ErrorKind::ArgumentConflict,
        ),
        ("peat-gateway snapshot restore /f", ErrorKind::MissingRequiredArgument),
        ("peat-gateway cluster recover", ErrorKind::MissingRequiredArgument),
        (
            "peat-gateway cluster recover --data-dir /d --from-snapshot /f --keep-unconfirmed-entries",
            ErrorKind::ArgumentConflict,
        ),
        ("peat-gateway dev --nodes 0", ErrorKind::ValueValidation),
        (
            "peat-gateway mesh-node --name u --credentials f --rate 99999",
            ErrorKind::ValueValidation,
        ),
        ("peat-gateway serve --bind=", ErrorKind::InvalidValue),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), Exit::Usage as i32);
    }
}

#[test]
fn the_organisation_must_be_said() {
    assert_eq!(required_org(None).unwrap_err().exit, Exit::Usage);
    assert_eq!(required_org(Some("acme")).unwrap(), "acme");
}

#[test]
fn every_exit_code_is_documented() {
    let page = include_str!("../../docs/reference/cli.md");
    for exit in [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::Refused,
        Exit::Forbidden,
        Exit::Unavailable,
        Exit::UnknownOutcome,
        Exit::NodeFailed,
        Exit::LeaderWorkStuck,
        Exit::Configuration,
        Exit::Interrupted,
    ] {
        assert!(page.contains(&format!("\n| {} |", exit as u8)), "{exit:?}");
    }
}
