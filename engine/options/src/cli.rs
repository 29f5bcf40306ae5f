//! The command line of a program, made from the table.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::option::{Kind, OptionDef, Role};
use crate::settings::{SettingError, Settings, Source, options_of};

/// Adds a flag for each option of `role`, `--config` and `--set` to `command`.
pub fn add_arguments(command: Command, role: Role) -> Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .env("RINGMQ_CONFIG")
        .help("Configuration file: TOML, or a Java .properties file such as broker.conf.");
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Sets any option by its name or by Java's name. May be repeated.");
    command.args(options_of(role).map(argument)).arg(config).arg(set)
}

fn argument(option: &'static OptionDef) -> Arg {
    let default = match option.default {
        "" => format!("default: {}", option.unset_means),
        text => format!("default: {text}"),
    };
    let java = match option.java.first() {
        Some(name) => format!("; in Java's files: {name}"),
        None => String::new(),
    };
    Arg::new(option.name).long(option.name).value_name(value_name(option.kind)).help(format!(
        "{} [{default}; {}{java}]",
        option.doc,
        option.variable_name()
    ))
}

fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "TEXT",
        Kind::Path => "PATH",
        Kind::Bool => "BOOL",
        Kind::Integer { .. } => "N",
        Kind::Size { .. } => "SIZE",
        Kind::Duration { .. } => "TIME",
        Kind::Choice(_) => "WORD",
        Kind::Ip => "ADDR",
        Kind::Addresses => "HOST:PORT;…",
    }
}

/// The file named by `--config`.
pub fn config_file(matches: &ArgMatches) -> Option<PathBuf> {
    matches.get_one::<PathBuf>("config").cloned()
}

/// Takes over `--set` and the flags (which win over `--set`, being more explicit).
pub fn apply(settings: &mut Settings, matches: &ArgMatches) -> Result<(), SettingError> {
    for assignment in matches.get_many::<String>("set").into_iter().flatten() {
        settings.apply_set(assignment)?;
    }
    for option in options_of(settings.role()) {
        if let Some(text) = matches.get_one::<String>(option.name) {
            settings.set(option.name, text, Source::CommandLine, &format!("--{}", option.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(role: Role, words: &[&str]) -> Settings {
        let command = add_arguments(Command::new("x"), role);
        let matches = command.try_get_matches_from(std::iter::once(&"x").chain(words)).unwrap();
        let mut settings = Settings::new(role);
        apply(&mut settings, &matches).unwrap();
        settings
    }

    #[test]
    fn flags_and_set_reach_the_settings() {
        let settings = parse(Role::Server, &["--port", "1", "--set", "brokerName=x", "--set", "port=2"]);
        assert_eq!((settings.integer::<u16>("port"), settings.text("name")), (1, "x"));
    }

    #[test]
    fn the_commands_are_well_formed_and_help_names_every_option() {
        for role in [Role::Server, Role::Broker, Role::Namesrv] {
            let mut command = add_arguments(Command::new("x"), role);
            command.clone().debug_assert();
            let help = command.render_long_help().to_string();
            assert!(options_of(role).all(|option| help.contains(&format!("--{} ", option.name))));
        }
    }
}
