//! The values in force: defaults, then the file, then the environment, then the command line.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::file::{self, FileError};
use crate::java_only::{self, JavaOnly};
use crate::option::{OptionDef, Role};
use crate::table::OPTIONS;
use crate::value::{self, Value};

/// Where a value came from; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The table.
    Default,
    /// `--config`.
    File,
    /// An environment variable.
    Environment,
    /// A flag or `--set`.
    CommandLine,
    /// Changed while running.
    Runtime,
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No option and no key of Java's has this name.
    #[error("{place}: unknown option \"{key}\"{}", suggestion.as_ref().map(|s| format!(": did you mean \"{s}\"?")).unwrap_or_default())]
    Unknown {
        /// File, variable or flag.
        place: String,
        /// What was given.
        key: String,
        /// The nearest known name.
        suggestion: Option<String>,
    },
    /// The value does not fit the option.
    #[error("{place}: {key} = \"{value}\": {expected}")]
    Value {
        /// File, variable or flag.
        place: String,
        /// The option as it was named.
        key: String,
        /// The value given.
        value: String,
        /// What is wrong with it, with the limit.
        expected: String,
    },
    /// A key of Java's whose promise cannot be kept.
    #[error("{place}: {key} = \"{value}\" cannot be had: {reason}")]
    NotServed {
        /// File, variable or flag.
        place: String,
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// Why.
        reason: &'static str,
    },
    /// The file is not well formed.
    #[error("{place}: {error}")]
    File {
        /// The file.
        place: String,
        /// What is wrong with it.
        error: FileError,
    },
    /// `--set` without `=`.
    #[error("--set {0}: expected KEY=VALUE")]
    NoEquals(String),
    /// The option only changes with a restart.
    #[error("{0} takes effect at the next start only: set it there")]
    NeedsRestart(&'static str),
}

#[derive(Clone, Debug)]
struct Setting {
    option: &'static OptionDef,
    value: Option<Value>,
    source: Source,
}

/// The values of one program's options.
#[derive(Clone, Debug)]
pub struct Settings {
    role: Role,
    settings: Vec<Setting>,
    warnings: Vec<String>,
    /// Keys of Java's that have no effect here, kept because `getBrokerConfig` shows them.
    extra: Vec<(String, String)>,
}

/// The options of `role`, in the table's order.
pub fn options_of(role: Role) -> impl Iterator<Item = &'static OptionDef> {
    OPTIONS.iter().filter(move |option| option.roles.contains(role))
}

/// Nearest known name, if any is near enough to be meant.
fn suggest(role: Role, key: &str) -> Option<String> {
    let own =
        options_of(role).flat_map(|option| std::iter::once(option.name).chain(option.java.iter().copied()));
    let all = own.chain(java_only::all().map(|(name, _)| name));
    let scored = all.map(|name| (strsim::jaro_winkler(&name.to_lowercase(), &key.to_lowercase()), name));
    let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score >= 0.8).then(|| name.to_owned())
}

impl Settings {
    /// The defaults of `role`.
    pub fn new(role: Role) -> Settings {
        let setting = |option: &'static OptionDef| {
            let value = match option.default {
                "" => None,
                text => Some(value::parse(option.kind, text).expect("a test parses every default")),
            };
            Setting { option, value, source: Source::Default }
        };
        let settings = options_of(role).map(setting).collect();
        Settings { role, settings, warnings: Vec::new(), extra: Vec::new() }
    }

    /// Whose settings these are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What was taken without effect, and why; one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Takes over a file's text; `path` chooses the format and stands in messages.
    pub fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), SettingError> {
        let place = path.display().to_string();
        let entries =
            file::parse(path, text).map_err(|error| SettingError::File { place: place.clone(), error })?;
        for (key, value) in entries {
            self.set(&key, &value, Source::File, &place)?;
        }
        Ok(())
    }

    /// Takes over the environment: `RINGMQ_…`, and Java's NAMESRV_ADDR. Unknown `RINGMQ_…` names are warned
    /// about, not refused: the environment belongs to others too.
    pub fn apply_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), SettingError> {
        let mut java_namesrv = None;
        for (name, text) in variables {
            if name == "NAMESRV_ADDR" {
                java_namesrv = Some(text);
            } else if let Some(option) = options_of(self.role).find(|option| option.variable_name() == name) {
                self.set(option.name, &text, Source::Environment, &name)?;
            } else if name.starts_with("RINGMQ_")
                && name != "RINGMQ_CONFIG"
                && !OPTIONS.iter().any(|o| o.variable_name() == name)
            {
                self.warnings.push(format!("{name}: no option has this variable"));
            }
        }
        match java_namesrv {
            Some(text) if self.role == Role::Broker && self.source("namesrv") < Source::Environment => {
                self.set("namesrv", &text, Source::Environment, "NAMESRV_ADDR")
            }
            _ => Ok(()),
        }
    }

    /// Takes over one `--set key=value`.
    pub fn apply_set(&mut self, assignment: &str) -> Result<(), SettingError> {
        let (key, value) =
            assignment.split_once('=').ok_or_else(|| SettingError::NoEquals(assignment.to_owned()))?;
        self.set(key.trim(), value.trim(), Source::CommandLine, "--set")
    }

    /// Sets the option that goes by `key` (own or Java's name). `place` stands in messages.
    pub fn set(&mut self, key: &str, text: &str, source: Source, place: &str) -> Result<(), SettingError> {
        let role = self.role;
        let Some(setting) = find(&mut self.settings, key) else {
            return self.set_without_effect(key, text, place);
        };
        if source < setting.source {
            return Ok(());
        }
        let value = value::parse(setting.option.kind, text).map_err(|expected| SettingError::Value {
            place: place.to_owned(),
            key: key.to_owned(),
            value: text.to_owned(),
            expected,
        })?;
        assert!(setting.option.roles.contains(role), "settings hold their role's options only");
        setting.value = Some(value);
        setting.source = source;
        Ok(())
    }

    fn set_without_effect(&mut self, key: &str, text: &str, place: &str) -> Result<(), SettingError> {
        let elsewhere = OPTIONS.iter().find(|option| option.name == key || option.java.contains(&key));
        let reason = match (elsewhere, java_only::lookup(key, text)) {
            (Some(_), _) => format!("`ringmq {}` has no use for it", self.role.name()),
            (None, Some(JavaOnly::NoEffect(reason))) => reason.to_owned(),
            (None, Some(JavaOnly::Refused(reason))) => {
                let (place, key, value) = (place.to_owned(), key.to_owned(), text.to_owned());
                return Err(SettingError::NotServed { place, key, value, reason });
            }
            (None, None) => {
                let (place, suggestion) = (place.to_owned(), suggest(self.role, key));
                return Err(SettingError::Unknown { place, key: key.to_owned(), suggestion });
            }
        };
        self.warnings.push(format!("{place}: {key} has no effect: {reason}"));
        self.extra.push((key.to_owned(), text.to_owned()));
        Ok(())
    }

    /// Changes an option while running (Java's `updateBrokerConfig`, `updateNamesrvConfig`). The caller takes the
    /// new value up from here. Keys without effect are taken, as at the start.
    pub fn update(&mut self, key: &str, text: &str) -> Result<(), SettingError> {
        if let Some(setting) = find(&mut self.settings, key)
            && setting.option.restart
        {
            return Err(SettingError::NeedsRestart(setting.option.name));
        }
        self.set(key, text, Source::Runtime, "update")
    }

    /// The values in force as a Java `.properties` file, sorted: Java's names and units where Java has the option,
    /// own names else. Options that are not set are left out.
    pub fn java_properties(&self) -> String {
        let own = self.settings.iter().filter_map(|setting| {
            let key = setting.option.java.first().unwrap_or(&setting.option.name);
            let value = setting.value.as_ref()?.show_java(setting.option.kind);
            Some((*key, value, setting.option.name))
        });
        let mut seen = Vec::new();
        let mut lines: Vec<String> = Vec::new();
        for (key, value, name) in own {
            // listenPort can name two ports of `ringmq server`; the second goes by its own name.
            let key = if seen.contains(&key) { name } else { key };
            seen.push(key);
            lines.push(format!("{key}={}", file::escape_value(&value)));
        }
        lines.extend(self.extra.iter().map(|(key, value)| format!("{key}={}", file::escape_value(value))));
        lines.sort();
        lines.join("\n") + "\n"
    }

    // --- typed access; asking for an option that is not of this role or type is a bug ---

    fn setting(&self, name: &str) -> &Setting {
        let found = self.settings.iter().find(|setting| setting.option.name == name);
        found.unwrap_or_else(|| panic!("`ringmq {}` has no option {name}", self.role.name()))
    }

    /// Where the value of `name` came from.
    pub fn source(&self, name: &str) -> Source {
        self.setting(name).source
    }

    /// Whether this program has the option.
    pub fn has(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.option.name == name)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.setting(name).value.as_ref()
    }

    /// A text or path that has a default.
    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Value::Text(text)) => text,
            other => panic!("{name} is {other:?}, not text"),
        }
    }

    /// A switch.
    pub fn switch(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Value::Bool(value)) => *value,
            other => panic!("{name} is {other:?}, not a switch"),
        }
    }

    /// A whole number that may be unset.
    pub fn maybe_integer(&self, name: &str) -> Option<i64> {
        match self.get(name) {
            None => None,
            Some(Value::Integer(value)) => Some(*value),
            other => panic!("{name} is {other:?}, not a number"),
        }
    }

    /// A whole number that has a default, as the caller's type, which the option's bounds must fit.
    pub fn integer<T: TryFrom<i64>>(&self, name: &str) -> T {
        let value = self.maybe_integer(name).unwrap_or_else(|| panic!("{name} has no default"));
        T::try_from(value).unwrap_or_else(|_| panic!("{name} is bounded to fit its user"))
    }

    /// Bytes, when set.
    pub fn maybe_size(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            None => None,
            Some(Value::Size(bytes)) => Some(*bytes),
            other => panic!("{name} is {other:?}, not a size"),
        }
    }

    /// Bytes, of an option with a default.
    pub fn size(&self, name: &str) -> u64 {
        self.maybe_size(name).unwrap_or_else(|| panic!("{name} has no default"))
    }

    /// A time span, when set.
    pub fn maybe_duration(&self, name: &str) -> Option<Duration> {
        match self.get(name) {
            None => None,
            Some(Value::Duration(ms)) => Some(Duration::from_millis(*ms)),
            other => panic!("{name} is {other:?}, not a time span"),
        }
    }

    /// A time span, of an option with a default.
    pub fn duration(&self, name: &str) -> Duration {
        self.maybe_duration(name).unwrap_or_else(|| panic!("{name} has no default"))
    }

    /// RingMQ's spelling of the choice made.
    pub fn choice(&self, name: &str) -> &'static str {
        match self.get(name) {
            Some(Value::Choice(choice)) => choice.name,
            other => panic!("{name} is {other:?}, not a choice"),
        }
    }

    /// An IP address, when set.
    pub fn maybe_ip(&self, name: &str) -> Option<IpAddr> {
        match self.get(name) {
            None => None,
            Some(Value::Ip(ip)) => Some(*ip),
            other => panic!("{name} is {other:?}, not an address"),
        }
    }

    /// `host:port` entries; none when not set.
    pub fn addresses(&self, name: &str) -> &[String] {
        match self.get(name) {
            None => &[],
            Some(Value::Addresses(addresses)) => addresses,
            other => panic!("{name} is {other:?}, not addresses"),
        }
    }
}

fn find<'a>(settings: &'a mut [Setting], key: &str) -> Option<&'a mut Setting> {
    let own = settings.iter().position(|setting| setting.option.name == key);
    let index = own.or_else(|| settings.iter().position(|setting| setting.option.java.contains(&key)))?;
    settings.get_mut(index)
}

#[cfg(test)]
mod tests;
