//! Collects the settings of a program: defaults, `--config`, environment, flags and `--set`.

use anyhow::Context;
use clap::ArgMatches;
use ringmq_options::{Role, Settings, cli};

/// Largest configuration file that is read, in bytes: a larger one is something else.
const MAX_CONFIG_FILE: u64 = 1 << 20;

/// The settings that the command line `matches` asks for.
pub fn read(role: Role, matches: &ArgMatches) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(role);
    if let Some(path) = cli::config_file(matches) {
        let shown = path.display();
        let size = std::fs::metadata(&path).with_context(|| format!("--config {shown}"))?.len();
        anyhow::ensure!(
            size <= MAX_CONFIG_FILE,
            "--config {shown}: {size} bytes, the most is {MAX_CONFIG_FILE}"
        );
        let text = std::fs::read_to_string(&path).with_context(|| format!("--config {shown}"))?;
        settings.apply_file(&path, &text)?;
    }
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    settings.apply_environment(variables)?;
    cli::apply(&mut settings, matches)?;
    Ok(settings)
}
