//! The `ringmq` binary.

mod cli;
mod dlq;
mod inspect;
mod logging;
mod machine;
mod preflight;
mod ready;
mod run;
mod settings;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    match cli::run(Instant::now()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmq: {error:#}");
            ExitCode::FAILURE
        }
    }
}
