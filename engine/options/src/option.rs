//! What an option is: the one declaration that flags, files, variables and documentation come from.

/// The programs that options are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `ringmq server`: broker and name server in one process.
    Server,
    /// `ringmq broker`.
    Broker,
    /// `ringmq namesrv`.
    Namesrv,
}

impl Role {
    /// The subcommand's name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Broker => "broker",
            Role::Namesrv => "namesrv",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Role::Server => 1,
            Role::Broker => 2,
            Role::Namesrv => 4,
        }
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Every program.
    pub const ALL: Roles = Roles(Role::Server.bit() | Role::Broker.bit() | Role::Namesrv.bit());
    /// The programs with a broker in them.
    pub const BROKER: Roles = Roles(Role::Server.bit() | Role::Broker.bit());
    /// The programs with a name server in them.
    pub const NAMESRV: Roles = Roles(Role::Server.bit() | Role::Namesrv.bit());
    /// `ringmq broker` alone.
    pub const BROKER_ALONE: Roles = Roles(Role::Broker.bit());
    /// `ringmq namesrv` alone.
    pub const NAMESRV_ALONE: Roles = Roles(Role::Namesrv.bit());

    /// Whether `role` is one of them.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}

/// The unit that a bare number stands for (Java's files write durations as bare numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Ms,
    /// Seconds.
    Seconds,
    /// Hours.
    Hours,
}

impl TimeUnit {
    /// Milliseconds in one.
    pub const fn ms(self) -> u64 {
        match self {
            TimeUnit::Ms => 1,
            TimeUnit::Seconds => 1000,
            TimeUnit::Hours => 3_600_000,
        }
    }
}

/// One value of an enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// RingMQ's spelling.
    pub name: &'static str,
    /// Java's spelling; accepted everywhere, written by [`crate::Settings::java_properties`].
    pub java: &'static str,
}

/// Type of an option's value, with its bounds (inclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path of a file or directory.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Bytes: `4194304`, `"4MiB"`, `"4MB"`.
    Size {
        /// Smallest, in bytes.
        min: u64,
        /// Largest, in bytes.
        max: u64,
    },
    /// A time span: `"500ms"`, `"30s"`, `"5m"`, `"2h"`, or a bare number of `bare`.
    Duration {
        /// Unit of a bare number.
        bare: TimeUnit,
        /// Smallest, in ms.
        min_ms: u64,
        /// Largest, in ms.
        max_ms: u64,
    },
    /// One of a few words.
    Choice(&'static [Choice]),
    /// An IP address.
    Ip,
    /// `host:port;host:port;…`.
    Addresses,
}

/// One option. `default` is text that the value parser accepts, or empty for "not set".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDef {
    /// Kebab-case name: the flag, the TOML key, the key of `--set`.
    pub name: &'static str,
    /// Java's names for it, the usual one first.
    pub java: &'static [&'static str],
    /// Whose option it is.
    pub roles: Roles,
    /// Type and bounds.
    pub kind: Kind,
    /// Default as text; empty: not set.
    pub default: &'static str,
    /// What "not set" means, for the documentation; empty when there is a default.
    pub unset_means: &'static str,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
    /// Environment variable, when it is not `RINGMQ_` and the name.
    pub variable: Option<&'static str>,
    /// Whether a change takes effect only at the next start.
    pub restart: bool,
    /// First version that has it.
    pub since: &'static str,
}

impl OptionDef {
    /// Declares an option; the other methods add what differs from the usual.
    pub const fn new(
        name: &'static str,
        roles: Roles,
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> OptionDef {
        OptionDef {
            name,
            java: &[],
            roles,
            kind,
            default,
            unset_means: "",
            doc,
            variable: None,
            restart: true,
            since: "0.1.0",
        }
    }

    /// Names it goes by in Java's files.
    pub const fn java(mut self, names: &'static [&'static str]) -> OptionDef {
        self.java = names;
        self
    }

    /// What happens when it is not set.
    pub const fn unset(mut self, meaning: &'static str) -> OptionDef {
        self.unset_means = meaning;
        self
    }

    /// An environment variable of its own.
    pub const fn variable(mut self, name: &'static str) -> OptionDef {
        self.variable = Some(name);
        self
    }

    /// May be changed while running.
    pub const fn dynamic(mut self) -> OptionDef {
        self.restart = false;
        self
    }

    /// The environment variable that sets it.
    pub fn variable_name(&self) -> String {
        match self.variable {
            Some(name) => name.to_owned(),
            None => format!("RINGMQ_{}", self.name.to_ascii_uppercase().replace('-', "_")),
        }
    }
}
