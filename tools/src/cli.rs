//! The command line: which subcommand, and what it does.

use std::time::Instant;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Subcommand};
use ringmq_options::{Role, cli, docs};

use crate::{dlq, inspect, run, settings};

/// Runs what the command line asks for. `started`: when the process did.
pub fn run(started: Instant) -> anyhow::Result<()> {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("server", matches)) => run::server(matches, started),
        Some(("broker", matches)) => run::broker(matches, started),
        Some(("namesrv", matches)) => run::namesrv(matches, started),
        Some(("inspect", matches)) => inspect::run(matches),
        Some(("dlq", matches)) => dlq::run(dlq::Arguments::from_arg_matches(matches)?),
        Some(("config", matches)) => config(matches),
        Some(("bench", matches)) => {
            let command = ringmq_bench::Command::from_arg_matches(matches)?;
            ringmq_bench::run(command, &["bench".into()])
        }
        _ => unreachable!("clap demands one of the subcommands"),
    }
}

fn command() -> Command {
    Command::new("ringmq")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A message broker that RocketMQ's clients use unchanged")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(program(Role::Server, "Runs a name server and a broker in one process"))
        .subcommand(program(Role::Broker, "Runs a broker"))
        .subcommand(program(Role::Namesrv, "Runs a name server"))
        .subcommand(inspect::command())
        .subcommand(
            dlq::Arguments::command().name("dlq").about("Lists, shows, replays and deletes dead letters"),
        )
        .subcommand(config_command())
        .subcommand(bench_command())
}

fn bench_command() -> Command {
    let command = Command::new("bench").about("Loads a broker and measures it, or compares brokers");
    ringmq_bench::Command::augment_subcommands(command).subcommand_required(true).arg_required_else_help(true)
}

fn program(role: Role, about: &'static str) -> Command {
    cli::add_arguments(Command::new(role.name()).about(about), role)
}

fn config_command() -> Command {
    let show = Command::new("show").about("Prints the values in force, as a Java .properties file");
    let show = show.subcommand_required(true);
    let show = [Role::Server, Role::Broker, Role::Namesrv]
        .into_iter()
        .fold(show, |show, role| show.subcommand(program(role, "")));
    Command::new("config")
        .about("Shows what is configured, and what can be")
        .subcommand_required(true)
        .subcommand(show)
        .subcommand(Command::new("docs").about("Prints docs/configuration.md"))
}

fn config(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("docs", _)) => print!("{}", docs::configuration_page()),
        Some(("show", matches)) => {
            let (name, matches) = matches.subcommand().expect("clap demands a program");
            let settings = settings::read(role(name), matches)?;
            for warning in settings.warnings() {
                eprintln!("warning: {warning}");
            }
            print!("{}", settings.java_properties());
        }
        _ => unreachable!("clap demands one of the subcommands"),
    }
    Ok(())
}

fn role(name: &str) -> Role {
    let roles = [Role::Server, Role::Broker, Role::Namesrv];
    roles.into_iter().find(|role| role.name() == name).expect("clap knows these programs only")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        super::command().debug_assert();
    }
}
